// Guest memory: views lie in one region or do not exist, sets refuse what overlaps or wraps, sealed memory keeps its size, and a
// file that is cut under a mapping costs its contents and not the process.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vhost/memory.h"

#define MIB (1ull << 20)

static int ram(uint64_t size)
{
    struct tv_error err = {0};
    int fd = guest_ram_create("test", size, &err);
    assert_true(fd >= 0);
    return fd;
}

static void test_ram_is_sealed(void **state)
{
    (void)state;
    struct tv_error err = {0};
    int fd = ram(MIB);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, 2 * MIB), -1);
    close(fd);
    assert_int_equal(guest_ram_create("none", 0, &err), -EINVAL);
    assert_non_null(strstr(err.text, "'none'"));
}

static void test_views(void **state)
{
    (void)state;
    struct guest_memory mem;
    guest_memory_init(&mem);
    assert_int_equal(guest_memory_add(&mem, 0x80000000, MIB, ram(2 * MIB), 0x1800, 0x7000000000, NULL), 0);
    assert_int_equal(guest_memory_add(&mem, 0x80000000 + MIB, MIB, ram(MIB), 0, 0, NULL), 0);
    uint8_t *first = guest_memory_view(&mem, 0x80000000, MIB);
    uint8_t *second = guest_memory_view(&mem, 0x80000000 + MIB, MIB);
    assert_non_null(first);
    assert_non_null(second);
    first[0] = 1;
    first[MIB - 1] = 2;
    second[MIB - 1] = 3;
    uint8_t byte = 0;
    assert_int_equal(pread(mem.regions[0].fd, &byte, 1, 0x1800), 1);
    assert_int_equal(byte, 1);
    assert_null(guest_memory_view(&mem, 0x80000000, MIB + 1)); // over the border
    assert_null(guest_memory_view(&mem, 0x7fffffff, 1));
    assert_null(guest_memory_view(&mem, 0x7fffffff, 2));
    assert_null(guest_memory_view(&mem, 0x80000000 + 2 * MIB, 1));
    assert_null(guest_memory_view(&mem, 0x80000000, UINT64_MAX));
    assert_null(guest_memory_view(&mem, UINT64_MAX, UINT64_MAX));
    uint64_t got = 0, guest_addr = 0;
    assert_ptr_equal(guest_memory_view_part(&mem, 0x80000000 + MIB - 8, 100, &got), first + MIB - 8);
    assert_int_equal(got, 8);
    assert_ptr_equal(guest_memory_view_user(&mem, 0x7000000010, 16, &guest_addr), first + 16);
    assert_int_equal(guest_addr, 0x80000010);
    assert_ptr_equal(guest_memory_view_user(&mem, (uint64_t)(uintptr_t)second, MIB, &guest_addr), second);
    assert_null(guest_memory_view_user(&mem, 0x7000000010, MIB, NULL));
    assert_int_equal(guest_memory_remove(&mem, 0x80000000, MIB / 2), -ENOENT);
    assert_int_equal(guest_memory_remove(&mem, 0x80000000, MIB), 0);
    assert_null(guest_memory_view(&mem, 0x80000000, 1));
    assert_ptr_equal(guest_memory_view(&mem, 0x80000000 + MIB, 1), second);
    guest_memory_fini(&mem);
}

static void test_refusals(void **state)
{
    (void)state;
    struct tv_error err = {0};
    struct guest_memory mem;
    guest_memory_init(&mem);
    assert_int_equal(guest_memory_add(&mem, MIB, MIB, ram(MIB), 0, 16 * MIB, &err), 0);
    assert_int_equal(guest_memory_add(&mem, 2 * MIB - 1, MIB, ram(MIB), 0, 0, &err), -EINVAL);
    assert_int_equal(guest_memory_add(&mem, 0, MIB + 1, ram(2 * MIB), 0, 0, &err), -EINVAL);
    assert_non_null(strstr(err.text, "overlaps"));
    assert_int_equal(guest_memory_add(&mem, 4 * MIB, MIB, ram(MIB), 0, 17 * MIB - 1, &err), -EINVAL);
    assert_int_equal(guest_memory_add(&mem, 4 * MIB, 0, ram(MIB), 0, 0, &err), -EINVAL);
    assert_int_equal(guest_memory_add(&mem, UINT64_MAX - 10, MIB, ram(MIB), 0, 0, &err), -EINVAL);
    assert_int_equal(guest_memory_add(&mem, 4 * MIB, MIB, ram(MIB), UINT64_MAX - 10, 0, &err), -EINVAL);
    assert_int_equal(guest_memory_add(&mem, 4 * MIB, UINT64_MAX, ram(MIB), 0, 0, &err), -EINVAL);
    assert_int_equal(guest_memory_add(&mem, 4 * MIB, MIB, ram(MIB), 1, 0, &err), -EINVAL); // beyond the file
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    close(pipe_fds[1]);
    assert_int_equal(guest_memory_add(&mem, 4 * MIB, MIB, pipe_fds[0], 0, 0, &err), -EINVAL);
    assert_int_equal(fcntl(pipe_fds[0], F_GETFD), -1); // taken also on failure
    assert_int_equal(mem.n_regions, 1);
    for (unsigned i = 1; i < GUEST_REGIONS_MAX; i++)
        assert_int_equal(guest_memory_add(&mem, (i + 1) * MIB, MIB, ram(MIB), 0, 0, &err), 0);
    assert_int_equal(guest_memory_add(&mem, 100 * MIB, MIB, ram(MIB), 0, 0, &err), -ENOSPC);
    guest_memory_fini(&mem);
}

static void test_guard(void **state)
{
    (void)state;
    assert_int_equal(guest_memory_guard_install(NULL), 0);
    assert_int_equal(guest_memory_guard_install(NULL), 0);
    struct guest_memory mem;
    guest_memory_init(&mem);
    int fd = memfd_create("unsealed", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, MIB), 0);
    int kept = dup(fd);
    assert_int_equal(guest_memory_add(&mem, 0, MIB, fd, 0, 0, NULL), 0);
    assert_int_equal(guest_memory_add(&mem, MIB, MIB, ram(MIB), 0, 0, NULL), 0);
    volatile uint8_t *view = guest_memory_view(&mem, 0, MIB);
    view[MIB / 2] = 7;
    assert_false(guest_memory_is_lost(&mem));
    assert_int_equal(ftruncate(kept, 0), 0);
    assert_int_equal(view[MIB / 2], 0);
    view[MIB - 1] = 9;
    assert_int_equal(view[MIB - 1], 9);
    assert_true(guest_memory_is_lost(&mem));
    assert_int_equal(guest_memory_remove(&mem, 0, MIB), 0);
    assert_false(guest_memory_is_lost(&mem));
    guest_memory_fini(&mem);
    close(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ram_is_sealed), cmocka_unit_test(test_views),
                                       cmocka_unit_test(test_refusals), cmocka_unit_test(test_guard)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
