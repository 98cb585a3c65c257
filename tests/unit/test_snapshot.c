// A saved machine comes back as it was, costs what is not zero, and any damage is noticed.
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "machine/snapshot/snapshot.h"

#define RAM_BYTES (64u << 20)
#define PAGE 4096u

static const char config[] = "{\"cpus\":2}";
static const uint8_t state_stream[] = {1, 2, 3, 4, 5, 6, 7};

struct fixture {
    int ram_fd, file_fd;
    uint8_t *ram;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->ram_fd = memfd_create("ram", 0);
    f->file_fd = memfd_create("file", 0);
    assert_int_equal(ftruncate(f->ram_fd, RAM_BYTES), 0);
    f->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, f->ram_fd, 0);
    assert_ptr_not_equal(f->ram, MAP_FAILED);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    munmap(f->ram, RAM_BYTES);
    close(f->ram_fd);
    close(f->file_fd);
    free(f);
    return 0;
}

static void fill_ram(struct fixture *f)
{
    memset(f->ram + 3 * PAGE, 0xa5, 2 * PAGE);
    f->ram[10 * PAGE + 17] = 1;
    f->ram[11 * PAGE] = 0; // in use, and zero
    for (uint32_t i = 0; i < (9u << 20); i += 4)
        memcpy(f->ram + (16u << 20) + i, &i, 4);
    f->ram[RAM_BYTES - 1] = 0xff;
}

static int save(struct fixture *f, int fd, struct tv_error *err)
{
    struct snapshot_contents contents = {.config = config,
                                         .config_len_bytes = strlen(config),
                                         .state = state_stream,
                                         .state_len_bytes = sizeof(state_stream),
                                         .ram_fd = f->ram_fd,
                                         .ram = f->ram,
                                         .ram_size_bytes = RAM_BYTES};
    uint64_t done, total, last = 0;
    struct snapshot_writer *w = snapshot_writer_create(fd, &contents, err);
    if (!w)
        return err->code;
    int rc;
    do {
        rc = snapshot_writer_step(w, err);
        snapshot_writer_progress(w, &done, &total);
        assert_true(done >= last && done <= total);
        last = done;
    } while (rc == 1);
    if (rc == 0)
        assert_int_equal(done, total);
    snapshot_writer_destroy(w);
    return rc;
}

static uint64_t resident_pages(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512 / PAGE;
}

static void test_round_trip(void **state)
{
    struct fixture *f = *state;
    struct tv_error err = {0};
    size_t len;
    fill_ram(f);
    uint64_t pages = resident_pages(f->ram_fd);
    assert_int_equal(save(f, f->file_fd, &err), 0);
    assert_int_equal(resident_pages(f->ram_fd), pages); // saving touches no hole
    assert_true(resident_pages(f->file_fd) < (10u << 20) / PAGE);

    struct snapshot_reader *r = snapshot_reader_create(f->file_fd, &err);
    assert_non_null(r);
    assert_string_equal(snapshot_reader_config(r, &len), config);
    assert_int_equal(len, strlen(config));
    assert_memory_equal(snapshot_reader_state(r, &len), state_stream, sizeof(state_stream));
    assert_int_equal(len, sizeof(state_stream));
    uint8_t *again = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(snapshot_reader_load_ram(r, again, RAM_BYTES, &err), 0);
    assert_memory_equal(again, f->ram, RAM_BYTES);
    munmap(again, RAM_BYTES);
    snapshot_reader_destroy(r);
}

static int load(struct fixture *f, struct tv_error *err)
{
    struct snapshot_reader *r = snapshot_reader_create(f->file_fd, err);
    if (!r)
        return err->code;
    uint8_t *ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc = snapshot_reader_load_ram(r, ram, RAM_BYTES, err);
    munmap(ram, RAM_BYTES);
    snapshot_reader_destroy(r);
    return rc;
}

static void test_every_damaged_byte_is_noticed(void **state)
{
    struct fixture *f = *state;
    struct tv_error err = {0};
    struct stat st;
    f->ram[5 * PAGE] = 7;
    assert_int_equal(save(f, f->file_fd, &err), 0);
    assert_int_equal(load(f, &err), 0);
    assert_int_equal(fstat(f->file_fd, &st), 0);
    for (off_t at = 0; at < st.st_size; at += at < 200 ? 1 : 61) {
        uint8_t byte, bad;
        assert_int_equal(pread(f->file_fd, &byte, 1, at), 1);
        bad = byte ^ 0x10;
        assert_int_equal(pwrite(f->file_fd, &bad, 1, at), 1);
        assert_true(load(f, &err) < 0);
        assert_int_equal(pwrite(f->file_fd, &byte, 1, at), 1);
    }
    assert_int_equal(load(f, &err), 0);
}

static void test_every_truncation_is_noticed(void **state)
{
    struct fixture *f = *state;
    struct tv_error err = {0};
    struct stat st;
    f->ram[5 * PAGE] = 7;
    assert_int_equal(save(f, f->file_fd, &err), 0);
    assert_int_equal(fstat(f->file_fd, &st), 0);
    for (off_t size = st.st_size - 1; size >= 0; size -= size > 200 ? 50 : 1) {
        assert_int_equal(ftruncate(f->file_fd, size), 0);
        assert_true(load(f, &err) < 0);
        assert_non_null(strstr(err.text, "saved machine: "));
    }
}

static void test_no_saved_machine(void **state)
{
    struct fixture *f = *state;
    struct tv_error err = {0};
    char text[200];
    memset(text, 'x', sizeof(text));
    assert_int_equal(write(f->file_fd, text, sizeof(text)), sizeof(text));
    assert_int_equal(load(f, &err), -EINVAL);
    assert_non_null(strstr(err.text, "this file is none"));
}

// A file that may not grow over its size stands for a disk that is full.
static void test_full_disk(void **state)
{
    struct fixture *f = *state;
    struct tv_error err = {0};
    struct stat st;
    fill_ram(f);
    FILE *full = tmpfile();
    assert_non_null(full);
    struct rlimit old, small = {.rlim_cur = 3u << 20, .rlim_max = RLIM_INFINITY};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = save(f, fileno(full), &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(rc, -EFBIG);
    assert_non_null(strstr(err.text, "saving: "));
    assert_int_equal(fstat(fileno(full), &st), 0);
    assert_int_equal(st.st_size, 0); // no half of a machine is left
    fclose(full);
    assert_int_equal(save(f, f->file_fd, &err), 0);
}

static void test_wrong_size_of_memory(void **state)
{
    struct fixture *f = *state;
    struct tv_error err = {0};
    assert_int_equal(save(f, f->file_fd, &err), 0);
    struct snapshot_reader *r = snapshot_reader_create(f->file_fd, &err);
    assert_non_null(r);
    assert_int_equal(snapshot_reader_load_ram(r, f->ram, RAM_BYTES / 2, &err), -EINVAL);
    snapshot_reader_destroy(r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_round_trip),
                                       TEST(test_every_damaged_byte_is_noticed),
                                       TEST(test_every_truncation_is_noticed),
                                       TEST(test_no_saved_machine),
                                       TEST(test_full_disk),
                                       TEST(test_wrong_size_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
