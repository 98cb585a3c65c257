// Overlays whose store is killed: the next one has all that was written, flushed or not, and makes it stable at the next flush.
// What is left of another session or another boot counts for nothing, and after an orderly end nothing is left.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/overlay_file.h"
#include "store/volume/file.h"
#include "store/volume/null.h"
#include "store/volume/overlay.h"

#define SIZE (1u << 20)

static char folder[] = "test_overlay_shadow.XXXXXX";
static char image[64];

struct rig {
    struct loop *loop;
    struct io_engine *io;
    struct volume_env env;
    struct volume *overlay;
};

static void open_rig(struct rig *rig, bool has_folder)
{
    struct tv_error err = {0};
    rig->loop = loop_create(&err);
    rig->io = io_create(rig->loop, &(struct io_config){.depth = 8, .no_uring = true}, &err);
    assert_non_null(rig->io);
    assert_int_equal(volume_env_init(&rig->env, rig->loop, rig->io, &err), 0);
    if (has_folder)
        rig->env.shadow_fd = open(folder, O_RDONLY | O_DIRECTORY);
    const int fd = open(image, O_RDWR);
    struct volume *data = file_volume_create(&rig->env, fd, image, &(struct image_options){.block_size_bytes = 512}, &err);
    assert_non_null(data);
    struct null_options null = {.size_bytes = SIZE, .block_bytes = 512, .read_only = true, .read_zeroes = true};
    rig->overlay = overlay_volume_create(&rig->env, data, null_volume_create(&rig->env, &null, &err), &err);
    assert_string_equal(err.text, "");
    assert_non_null(rig->overlay);
}

static void close_rig(struct rig *rig)
{
    volume_destroy(rig->overlay);
    if (rig->env.shadow_fd >= 0)
        close(rig->env.shadow_fd);
    volume_env_fini(&rig->env);
    io_destroy(rig->io);
    loop_destroy(rig->loop);
}

static int run(struct rig *rig, enum volume_op op, unsigned block, uint8_t *bytes)
{
    struct iovec iov = {bytes, OVERLAY_BLOCK};
    struct volume_request request = {.op = op, .data = {.iov = &iov, .n_iov = 1}, .may_unmap = true};
    request.offset_bytes = op == VOLUME_FLUSH ? 0 : (uint64_t)block * OVERLAY_BLOCK;
    request.len_bytes = op == VOLUME_FLUSH ? 0 : OVERLAY_BLOCK;
    return volume_run(rig->overlay, &request);
}

static void put(struct rig *rig, unsigned block, uint8_t value)
{
    static uint8_t bytes[OVERLAY_BLOCK];
    memset(bytes, value, sizeof(bytes));
    assert_int_equal(run(rig, VOLUME_WRITE, block, bytes), 0);
}

static uint8_t get(struct rig *rig, unsigned block)
{
    static uint8_t bytes[OVERLAY_BLOCK];
    assert_int_equal(run(rig, VOLUME_READ, block, bytes), 0);
    assert_memory_equal(bytes, bytes + 1, sizeof(bytes) - 1);
    return bytes[0];
}

static void flush(struct rig *rig)
{
    assert_int_equal(run(rig, VOLUME_FLUSH, 0, NULL), 0);
}

// Files that are left; `removes`: and are not any more.
static unsigned left(bool removes)
{
    unsigned n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        n++;
        if (removes)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
    return n;
}

static void make_image(void)
{
    unlink(image);
    const int fd = open(image, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_int_equal(overlay_format(fd, SIZE, NULL), 0);
    close(fd);
    left(true);
}

// What a process does that is killed then.
static void killed(void (*does)(struct rig *rig))
{
    const pid_t pid = fork();
    if (!pid) {
        struct rig rig;
        open_rig(&rig, true);
        does(&rig);
        raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void write_some(struct rig *rig)
{
    put(rig, 1, 11);
    put(rig, 5, 15);
    flush(rig);
    put(rig, 2, 22);
    assert_int_equal(run(rig, VOLUME_DISCARD, 5, NULL), 0);
}

static void write_more(struct rig *rig)
{
    assert_int_equal(get(rig, 2), 22);
    put(rig, 3, 33);
}

static void test_nothing_is_lost(void **state)
{
    (void)state;
    struct rig rig;
    make_image();
    killed(write_some);
    killed(write_more);
    open_rig(&rig, true);
    const uint8_t found[] = {get(&rig, 0), get(&rig, 1), get(&rig, 2), get(&rig, 3), get(&rig, 5)};
    assert_memory_equal(found, ((const uint8_t[]){0, 11, 22, 33, 0}), sizeof(found));
    flush(&rig);
    close_rig(&rig);
    assert_int_equal(left(false), 0);
    open_rig(&rig, false); // from the disk alone
    assert_int_equal(get(&rig, 2), 22);
    assert_int_equal(get(&rig, 3), 33);
    assert_int_equal(get(&rig, 5), 0);
    close_rig(&rig);
}

static void test_ended_without_a_flush(void **state)
{
    (void)state;
    struct rig rig;
    make_image();
    open_rig(&rig, true);
    put(&rig, 1, 11);
    close_rig(&rig);
    assert_int_equal(left(false), 1);
    open_rig(&rig, true);
    assert_int_equal(get(&rig, 1), 11);
    close_rig(&rig);
}

static void test_after_a_power_cut(void **state)
{
    (void)state;
    struct rig rig;
    make_image();
    killed(write_some);
    assert_int_equal(left(true), 1);
    open_rig(&rig, true);
    assert_int_equal(get(&rig, 1), 11);
    assert_int_equal(get(&rig, 2), 0);
    close_rig(&rig);
}

static void test_of_another_session(void **state)
{
    (void)state;
    struct rig rig;
    make_image();
    killed(write_some);
    open_rig(&rig, false); // somebody who does not see what is left
    assert_int_equal(get(&rig, 2), 0);
    put(&rig, 4, 44);
    flush(&rig);
    close_rig(&rig);
    assert_int_equal(left(false), 1);
    open_rig(&rig, true);
    assert_int_equal(get(&rig, 4), 44);
    assert_int_equal(get(&rig, 2), 0);
    close_rig(&rig);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(image, sizeof(image), "test_overlay_shadow.%d.image", (int)getpid());
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(image);
    left(true);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_lost),
        cmocka_unit_test(test_ended_without_a_flush),
        cmocka_unit_test(test_after_a_power_cut),
        cmocka_unit_test(test_of_another_session),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
