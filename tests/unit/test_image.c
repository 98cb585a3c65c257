// Images: what is refused, with which words; locks against double use and their end; sizes, block sizes, direct I/O and doing
// without.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/volume/image.h"

static char path[64];
static const struct image_options rw, ro = {.read_only = true};

static int set_up(void **state)
{
    (void)state;
    strcpy(path, "test_image.XXXXXX"); // in the build's folder: a real file system, where /tmp may be memory
    int fd = mkstemp(path);
    return fd < 0 || ftruncate(fd, 1 << 20) || close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

static int open_image(struct image *image, const struct image_options *options, struct tv_error *err)
{
    int fd = image_open(path, options->read_only, err);
    return fd < 0 ? fd : image_init(image, fd, path, options, err);
}

static void test_file(void **state)
{
    (void)state;
    struct image image;
    struct tv_error err = {0};
    assert_int_equal(open_image(&image, &rw, &err), 0);
    assert_int_equal(image.size_bytes, 1 << 20);
    assert_true(image.block_size_bytes >= 512 && image.physical_bytes >= image.block_size_bytes);
    assert_false(image.is_block);
    image_fini(&image);
}

static void test_refused(void **state)
{
    (void)state;
    struct image image;
    struct tv_error err = {0};
    assert_int_equal(image_open("no/such/file", false, &err), -ENOENT);
    assert_non_null(strstr(err.text, "no/such/file"));
    int fd = open(".", O_RDONLY);
    assert_int_equal(image_init(&image, fd, "dir", &ro, &err), -EINVAL);
    assert_non_null(strstr(err.text, "neither a file nor a block device"));
    fd = open(path, O_RDONLY);
    assert_int_equal(image_init(&image, fd, path, &rw, &err), -EINVAL);
    assert_non_null(strstr(err.text, "without the right to write"));
    assert_int_equal(open_image(&image, &(struct image_options){.block_size_bytes = 1000}, &err), -EINVAL);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(open_image(&image, &rw, &err), -EINVAL);
    assert_non_null(strstr(err.text, "is empty"));
}

static void test_odd_size(void **state)
{
    (void)state;
    struct image image;
    assert_int_equal(truncate(path, 4096 * 3 + 700), 0);
    struct image_options big = {.block_size_bytes = 4096};
    assert_int_equal(open_image(&image, &big, NULL), 0);
    assert_int_equal(image.size_bytes, 4096 * 3);
    assert_int_equal(image.block_size_bytes, 4096);
    image_fini(&image);
}

// Another process holds the image until its pipe is closed.
static pid_t hold(const struct image_options *options, int *hold_fd)
{
    int ready[2], end[2];
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(end), 0);
    pid_t pid = fork();
    if (!pid) {
        struct image image;
        char byte = (char)open_image(&image, options, NULL);
        close(end[1]);
        if (write(ready[1], &byte, 1) != 1 || read(end[0], &byte, 1) < 0)
            _exit(1);
        _exit(0);
    }
    char byte = 1;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 0);
    close(ready[0]);
    close(ready[1]);
    close(end[0]);
    *hold_fd = end[1];
    return pid;
}

static void test_double_use(void **state)
{
    (void)state;
    struct image image;
    struct tv_error err = {0};
    char text[32];
    int end;
    pid_t pid = hold(&rw, &end);
    assert_int_equal(open_image(&image, &rw, &err), -EBUSY);
    snprintf(text, sizeof(text), "process %d", (int)pid);
    assert_non_null(strstr(err.text, text));
    assert_int_equal(open_image(&image, &ro, &err), -EBUSY);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(open_image(&image, &rw, &err), 0); // the lock went with its holder
    image_fini(&image);
    close(end);
}

static void test_readers_share(void **state)
{
    (void)state;
    struct image image;
    struct tv_error err = {0};
    int end;
    pid_t pid = hold(&ro, &end);
    assert_int_equal(open_image(&image, &ro, &err), 0);
    image_fini(&image);
    assert_int_equal(open_image(&image, &rw, &err), -EBUSY);
    close(end);
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

static void test_resize(void **state)
{
    (void)state;
    struct image image;
    struct tv_error err = {0};
    struct stat st;
    assert_int_equal(open_image(&image, &rw, &err), 0);
    assert_int_equal(image_resize(&image, path, 2 << 20, &err), 0);
    assert_int_equal(image.size_bytes, 2 << 20);
    assert_int_equal(image_resize(&image, path, 1000, &err), -EINVAL);
    assert_int_equal(image_resize(&image, path, 0, &err), -EINVAL);
    assert_int_equal(image_resize(&image, path, 512 << 10, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 512 << 10);
    image_fini(&image);
    assert_int_equal(open_image(&image, &ro, &err), 0);
    assert_int_equal(image_resize(&image, path, 1 << 20, &err), -EROFS);
    image_fini(&image);
}

// A file system without direct I/O, or with blocks larger than the disk's: through the page cache, without any wish for alignment.
static void test_without_direct(void **state)
{
    (void)state;
    int fd = memfd_create("image", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    bool has_direct = !fcntl(fd, F_SETFL, O_DIRECT); // recent kernels have it in memory, too
    fcntl(fd, F_SETFL, 0);
    struct image image;
    struct tv_error err = {0};
    assert_int_equal(image_init(&image, fd, "memory", &rw, &err), 0);
    assert_int_equal(image.direct, has_direct);
    if (!has_direct)
        assert_int_equal(image.mem_align_bytes, 1);
    image_fini(&image);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {T(test_file),          T(test_refused), T(test_odd_size),      T(test_double_use),
                                       T(test_readers_share), T(test_resize),  T(test_without_direct)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
