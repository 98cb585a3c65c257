// A machine's configuration: what is right is taken, what is wrong is refused with the member's name.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "machine/config.h"

static int decode(const char *text, struct config *config, struct tv_error *err)
{
    return config_decode(text, strlen(text), config, err);
}

static void test_whole(void **state)
{
    (void)state;
    struct config c;
    struct tv_error err = {0};
    char text[512];
    int kernel = memfd_create("k", 0), disk = memfd_create("d", 0), viewer = memfd_create("v", 0), net = memfd_create("n", 0);
    snprintf(text, sizeof(text),
             "{\"name\":\"web\",\"tenant\":\"a\",\"engine\":\"rv64\",\"memory_bytes\":268435456,\"cpus\":2,\"kernel_fd\":%d,"
             "\"append\":\"quiet\",\"console\":{\"fd\":%d},\"disks\":[{\"name\":\"root\",\"fd\":%d,\"queues\":4}],"
             "\"nets\":[{\"name\":\"net0\",\"fd\":%d,\"mac\":\"52:54:00:ab:cd:0f\",\"mtu_bytes\":1400,\"queues\":2}],"
             "\"on_reboot\":\"exit\"}",
             kernel, viewer, disk, net);
    assert_int_equal(decode(text, &c, &err), 0);
    assert_string_equal(c.name, "web");
    assert_string_equal(c.tenant, "a");
    assert_string_equal(c.append, "quiet");
    assert_int_equal(c.memory_bytes, 268435456);
    assert_int_equal(c.cpus, 2);
    assert_int_equal(c.kernel_fd, kernel);
    assert_int_equal(c.initrd_fd, -1);
    assert_int_equal(c.console_fd, viewer);
    assert_true(c.exit_on_reboot);
    assert_int_equal(c.n_disks, 1);
    assert_int_equal(c.disks[0].fd, disk);
    assert_int_equal(c.disks[0].queues, 4);
    static const uint8_t mac[6] = {0x52, 0x54, 0x00, 0xab, 0xcd, 0x0f};
    assert_int_equal(c.n_nets, 1);
    assert_int_equal(c.nets[0].fd, net);
    assert_memory_equal(c.nets[0].mac, mac, 6);
    assert_int_equal(c.nets[0].mtu_bytes, 1400);
    assert_int_equal(c.nets[0].queues, 2);
    config_fini(&c);
    assert_int_equal(close(kernel), -1); // they were the configuration's
    assert_int_equal(close(net), -1);
    assert_int_equal(close(disk), -1);
}

static void test_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "configuration: line 1"},
        {"[]", "machine: should be an object"},
        {"{\"cpus\":1,\"memory_bytes\":4194304,\"kernel_fd\":0}", "lacks 'name'"},
        {"{\"name\":\"a b\"}", "name: 'a b' should be"},
        {"{\"name\":\"a\",\"colour\":1}", "machine: has no member 'colour'"},
        {"{\"name\":\"a\",\"name\":\"b\"}", "duplicate"},
        {"{\"name\":7}", "name: should be a string"},
        {"{\"name\":\"a\",\"cpus\":65}", "cpus: 65 should be 1 to 64"},
        {"{\"name\":\"a\",\"cpus\":0}", "cpus: 0 should be 1 to 64"},
        {"{\"name\":\"a\",\"cpus\":1.5}", "cpus: should be a whole number"},
        {"{\"name\":\"a\",\"cpus\":1,\"memory_bytes\":-1}", "memory_bytes: -1 should be"},
        {"{\"name\":\"a\",\"cpus\":1,\"memory_bytes\":4194305,\"kernel_fd\":0}", "memory_bytes: should be a multiple"},
        {"{\"name\":\"a\",\"kernel_fd\":999}", "kernel_fd: 999 is no open descriptor"},
        {"{\"name\":\"a\",\"kernel_fd\":-5}", "kernel_fd: -5 is no open descriptor"},
        {"{\"name\":\"a\",\"cpus\":1,\"memory_bytes\":4194304}", "neither a kernel nor a saved machine"},
        {"{\"name\":\"a\",\"cpus\":1,\"memory_bytes\":4194304,\"kernel_fd\":0,\"initrd_fd\":0}", "descriptor 0 is named twice"},
        {"{\"name\":\"a\",\"cpus\":1,\"memory_bytes\":4194304,\"kernel_fd\":0,\"on_reboot\":\"sing\"}", "on_reboot: should be"},
        {"{\"name\":\"a\",\"cpus\":1,\"memory_bytes\":4194304,\"kernel_fd\":0,\"console\":{\"listen_fd\":1,\"fd\":2}}",
         "console: has both"},
        {"{\"name\":\"a\",\"cpus\":1,\"memory_bytes\":4194304,\"kernel_fd\":0,\"disks\":[{\"name\":\"r\"}]}", "disk: lacks 'fd'"},
        {"{\"name\":\"a\",\"cpus\":1,\"memory_bytes\":4194304,\"kernel_fd\":0,\"disks\":[{\"name\":\"r\",\"fd\":1},"
         "{\"name\":\"r\",\"fd\":2}]}",
         "two have the name 'r'"},
#define NET(members) "{\"name\":\"a\",\"cpus\":1,\"memory_bytes\":4194304,\"kernel_fd\":0,\"nets\":[{\"name\":\"n\"," members "}]}"
        {NET("\"fd\":1"), "net: lacks 'mac'"},
        {NET("\"fd\":1,\"mac\":\"52:54:00:00:00\""), "net 'n': mac: '52:54:00:00:00' should be a station's address"},
        {NET("\"fd\":1,\"mac\":\"52:54:00:00:00:001\""), "should be a station's address"},
        {NET("\"fd\":1,\"mac\":\"53:54:00:00:00:01\""), "should be a station's address"},
        {NET("\"fd\":1,\"mac\":\"00:00:00:00:00:00\""), "should be a station's address"},
        {NET("\"fd\":1,\"mac\":\"52:54:00:00:00:01\",\"mtu_bytes\":67"), "mtu_bytes: 67 should be 68 to 65535"},
        {NET("\"fd\":1,\"mac\":\"52:54:00:00:00:01\",\"queues\":17"), "queues: 17 should be 1 to 16"},
        {NET("\"fd\":0,\"mac\":\"52:54:00:00:00:01\""), "descriptor 0 is named twice"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config c;
        struct tv_error err = {0};
        assert_true(decode(cases[i].text, &c, &err) < 0);
        if (!strstr(err.text, cases[i].message))
            fail_msg("%s: got '%s', not '%s'", cases[i].text, err.text, cases[i].message);
        assert_null(strchr(err.text, '\n'));
    }
}

static void test_read_from_descriptor(void **state)
{
    (void)state;
    struct config c;
    struct tv_error err = {0};
    int fd = memfd_create("c", 0), kernel = memfd_create("k", 0);
    dprintf(fd, "{\"name\":\"m\",\"cpus\":1,\"memory_bytes\":4194304,\"kernel_fd\":%d}\n", kernel);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(config_read(fd, &c, &err), 0);
    assert_string_equal(c.tenant, "default");
    config_fini(&c);
    close(fd);
    assert_true(config_read(fd, &c, &err) < 0);
    assert_non_null(strstr(err.text, "Bad file descriptor"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole), cmocka_unit_test(test_wrong),
                                       cmocka_unit_test(test_read_from_descriptor)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
