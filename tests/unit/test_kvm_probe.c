// What is said of something that is no KVM, and of this host's, whatever it is: that its guest comes to its end on hardware is
// shown by the machines of tests/system/kvm, which are not begun without.
#include "machine/engine/kvm/probe.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_no_kvm(void **state)
{
    (void)state;
    struct kvm_fitness fitness = {.fit = true};
    kvm_probe(-1, &fitness);
    assert_false(fitness.fit);
    assert_non_null(strstr(fitness.why, "there is no /dev/kvm"));
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    fitness.fit = true;
    kvm_probe(fd, &fitness);
    assert_false(fitness.fit);
    assert_non_null(strstr(fitness.why, "version"));
    close(fd);
}

static void test_this_host(void **state)
{
    (void)state;
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        skip();
    struct kvm_fitness first, second;
    struct sigaction action;
    kvm_probe(fd, &first);
    print_message("%s\n", first.why);
    assert_int_not_equal(strlen(first.why), 0);
    kvm_probe(fd, &second); // and leaves nothing behind
    assert_int_equal(first.fit, second.fit);
    assert_string_equal(first.why, second.why);
    sigaction(SIGRTMIN + 4, NULL, &action);
    assert_true(action.sa_handler == SIG_DFL);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_kvm), cmocka_unit_test(test_this_host)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
