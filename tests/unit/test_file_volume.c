// Images as volumes: real files, through io_uring and through threads: data arrives where it should, from memory of any alignment;
// ranges; what a full, limited or shortened file does; more requests than the engine and the bounce buffers take at once.
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
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/volume/file.h"

#define IMAGE_BYTES (8u << 20)
#define DEPTH 8

struct rig {
    struct loop *loop;
    struct io_engine *io;
    struct volume_env env;
    struct volume *volume;
    char path[64];
    uint8_t *memory; // page-aligned
};

struct request {
    struct volume_request io;
    struct iovec iov[64];
};

static bool no_uring;
static unsigned n_done;
static int last_result;

static void on_done(struct volume_request *io, int result)
{
    free(io->context);
    n_done++;
    last_result = result;
}

static void on_batch_end(void *arg)
{
    struct rig *rig = arg;
    volume_env_deliver(&rig->env);
}

static void open_rig(struct rig *rig, const char *dir)
{
    struct tv_error err = {0};
    rig->loop = loop_create(&err);
    struct io_config config = {.depth = DEPTH, .no_uring = no_uring, .batch_end = on_batch_end, .arg = rig};
    rig->io = io_create(rig->loop, &config, &err);
    assert_non_null(rig->io);
    assert_int_equal(volume_env_init(&rig->env, rig->loop, rig->io, &err), 0);
    snprintf(rig->path, sizeof(rig->path), "%s/test_file_volume.XXXXXX", dir);
    int fd = mkstemp(rig->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
    struct image_options options = {.block_size_bytes = 512};
    rig->volume = file_volume_create(&rig->env, fd, rig->path, &options, &err);
    assert_non_null(rig->volume);
    assert_int_equal(rig->volume->size_bytes, IMAGE_BYTES);
    rig->memory = aligned_alloc(4096, IMAGE_BYTES + 4096);
    n_done = 0;
}

static void close_rig(struct rig *rig)
{
    volume_destroy(rig->volume);
    volume_env_fini(&rig->env);
    io_destroy(rig->io);
    loop_destroy(rig->loop);
    unlink(rig->path);
    free(rig->memory);
}

static void prepare(struct request *request, enum volume_op op, uint64_t offset)
{
    request->io = (struct volume_request){.op = op, .offset_bytes = offset, .done = on_done};
    request->io.data.iov = request->iov;
}

static void add_segment(struct request *request, void *base, size_t len)
{
    request->iov[request->io.data.n_iov++] = (struct iovec){base, len};
    request->io.len_bytes += len;
}

static void start(struct rig *rig, struct request *request)
{
    request->io.context = malloc(rig->volume->context_bytes);
    volume_start(rig->volume, &request->io);
}

static void run_until(struct rig *rig, unsigned n)
{
    io_submit(rig->io);
    uint64_t deadline = clock_now_ns() + 60 * NS_PER_S;
    while (n_done < n && clock_now_ns() < deadline)
        loop_run_once(rig->loop, 1000);
    assert_int_equal(n_done, n);
}

static int run(struct rig *rig, struct request *request)
{
    n_done = 0;
    start(rig, request);
    assert_int_equal(n_done, 0);
    io_poke(rig->io);
    run_until(rig, 1);
    assert_int_equal(rig->env.bounce.n_free, rig->env.bounce.n);
    return last_result;
}

static int run_io(struct rig *rig, enum volume_op op, uint64_t offset, void *base, size_t len)
{
    static struct request request;
    prepare(&request, op, offset);
    add_segment(&request, base, len);
    return run(rig, &request);
}

static void fill(uint8_t *bytes, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(i * 31 + (i >> 8) * 7 + seed);
}

static void test_any_alignment(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, ".");
    static uint8_t back[2 << 20];
    static const size_t shifts[] = {0, 512, 1, 4, 511, 4095};
    static const size_t lens[] = {512, 4096, 64 << 10, (256 << 10) + 512, 1 << 20}; // the last two: several bounce buffers' worth
    for (size_t s = 0; s < sizeof(shifts) / sizeof(shifts[0]); s++)
        for (size_t l = 0; l < sizeof(lens) / sizeof(lens[0]); l++) {
            uint8_t *data = rig.memory + shifts[s];
            fill(data, lens[l], (unsigned)(s * 16 + l));
            assert_int_equal(run_io(&rig, VOLUME_WRITE, 512 * (s + 1), data, lens[l]), 0);
            memcpy(back, data, lens[l]);
            memset(data, 0, lens[l]);
            assert_int_equal(run_io(&rig, VOLUME_READ, 512 * (s + 1), data, lens[l]), 0);
            assert_memory_equal(data, back, lens[l]);
        }
    close_rig(&rig);
}

static void test_scattered_segments(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, ".");
    static struct request t;
    static uint8_t expected[64 << 10];
    for (unsigned odd = 0; odd < 2; odd++) {
        prepare(&t, VOLUME_WRITE, 0);
        size_t sum = 0;
        for (unsigned i = 0; i < 64; i++) {
            size_t len = odd ? (i & 1 ? 1000 : 1048) : 1024;
            fill(rig.memory + i * 8192 + odd * 3, len, i);
            memcpy(expected + sum, rig.memory + i * 8192 + odd * 3, len);
            add_segment(&t, rig.memory + i * 8192 + odd * 3, len);
            sum += len;
        }
        t.io.durable = true;
        assert_int_equal(run(&rig, &t), 0);
        assert_int_equal(run_io(&rig, VOLUME_READ, 0, rig.memory, sum), 0);
        assert_memory_equal(rig.memory, expected, sum);
    }
    close_rig(&rig);
}

// Many more than the engine's depth and the bounce buffers, all at once.
static void test_many_at_once(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, ".");
    enum { N = 256 }; // 4 times the buffers
    struct request *all = calloc(N, sizeof(*all));
    for (unsigned pass = 0; pass < 2; pass++) {
        n_done = 0;
        for (unsigned i = 0; i < N; i++) {
            uint8_t *data = rig.memory + i * 8192 + (i & 1); // every second one is bounced
            prepare(&all[i], pass ? VOLUME_READ : VOLUME_WRITE, i * 4096u);
            if (!pass)
                fill(data, 4096, i);
            else
                memset(data, 0, 4096);
            add_segment(&all[i], data, 4096);
            start(&rig, &all[i]);
        }
        run_until(&rig, N);
    }
    for (unsigned i = 0; i < N; i++) {
        uint8_t expected[4096];
        fill(expected, 4096, i);
        assert_memory_equal(rig.memory + i * 8192 + (i & 1), expected, 4096);
    }
    free(all);
    close_rig(&rig);
}

static int run_range(struct rig *rig, enum volume_op op, uint64_t offset, uint64_t len, bool unmap, bool durable)
{
    static struct request t;
    prepare(&t, op, offset);
    t.io.len_bytes = len;
    t.io.may_unmap = unmap;
    t.io.durable = durable;
    return run(rig, &t);
}

static void check_zeroes(struct rig *rig, uint64_t offset, size_t len)
{
    memset(rig->memory, 0xff, len);
    assert_int_equal(run_io(rig, VOLUME_READ, offset, rig->memory, len), 0);
    assert_int_equal(rig->memory[0], 0);
    assert_memory_equal(rig->memory, rig->memory + 1, len - 1);
}

static blkcnt_t blocks_of(const struct rig *rig)
{
    struct stat st;
    assert_int_equal(stat(rig->path, &st), 0);
    return st.st_blocks;
}

static void test_ranges(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, ".");
    fill(rig.memory, IMAGE_BYTES, 1);
    assert_int_equal(run_io(&rig, VOLUME_WRITE, 0, rig.memory, IMAGE_BYTES), 0);
    blkcnt_t full = blocks_of(&rig);
    assert_int_equal(run_range(&rig, VOLUME_ZERO, 4096, 1 << 20, false, true), 0);
    check_zeroes(&rig, 4096, 1 << 20);
    assert_true(blocks_of(&rig) >= full - 16); // kept its place
    assert_int_equal(run_range(&rig, VOLUME_ZERO, 2 << 20, 1 << 20, true, false), 0);
    check_zeroes(&rig, 2 << 20, 1 << 20);
    if (rig.volume->can_discard) {
        assert_true(blocks_of(&rig) <= full - 2000); // a hole
        assert_int_equal(run_range(&rig, VOLUME_DISCARD, 4 << 20, 2 << 20, false, false), 0);
        assert_true(blocks_of(&rig) <= full - 6000);
    }
    // Unaligned to any page: just that, not a byte more.
    assert_int_equal(run_range(&rig, VOLUME_ZERO, (7 << 20) + 512, 2048, true, false), 0);
    check_zeroes(&rig, (7 << 20) + 512, 2048);
    uint8_t expected[4096];
    assert_int_equal(run_io(&rig, VOLUME_READ, 7 << 20, rig.memory, 4096), 0);
    for (size_t i = 0; i < sizeof(expected); i++)
        expected[i] = (uint8_t)(((7u << 20) + i) * 31 + (((7u << 20) + i) >> 8) * 7 + 1);
    memset(expected + 512, 0, 2048);
    assert_memory_equal(rig.memory, expected, 4096);
    static struct request t;
    prepare(&t, VOLUME_FLUSH, 0);
    assert_int_equal(run(&rig, &t), 0);
    close_rig(&rig);
}

static void test_shortened_image(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, ".");
    assert_int_equal(truncate(rig.path, (1 << 20) + 700), 0);
    assert_int_equal(run_io(&rig, VOLUME_READ, 2 << 20, rig.memory, 4096), -ENODATA);
    assert_int_equal(run_io(&rig, VOLUME_READ, 1 << 20, rig.memory, 4096), -ENODATA);
    assert_int_equal(run_io(&rig, VOLUME_READ, (1 << 20) - 4096, rig.memory, 4096), 0);
    close_rig(&rig);
}

// A limit of the file's size cuts a write short; what follows fails, and the engine goes on.
static void test_size_limit(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, ".");
    assert_int_equal(truncate(rig.path, 0), 0);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, limit;
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = 1 << 20;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(run_io(&rig, VOLUME_WRITE, 0, rig.memory, 2 << 20), -EFBIG);
    assert_int_equal(run_io(&rig, VOLUME_WRITE, 0, rig.memory, 4096), 0);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(run_io(&rig, VOLUME_WRITE, 0, rig.memory, 2 << 20), 0);
    close_rig(&rig);
}

static void test_full_file_system(void **state)
{
    (void)state;
    char dir[] = "test_file_volume_full.XXXXXX";
    assert_non_null(mkdtemp(dir));
    if (mount("none", dir, "tmpfs", 0, "size=4m")) {
        printf("skipped: a small file system cannot be mounted here: %s\n", strerror(errno));
        rmdir(dir);
        skip();
    }
    struct rig rig;
    open_rig(&rig, dir);
    assert_int_equal(run_io(&rig, VOLUME_WRITE, 0, rig.memory, 2 << 20), 0);
    assert_int_equal(run_io(&rig, VOLUME_WRITE, 2 << 20, rig.memory, 4 << 20), -ENOSPC);
    assert_int_equal(run_io(&rig, VOLUME_READ, 0, rig.memory, 1 << 20), 0);
    assert_int_equal(run_range(&rig, VOLUME_DISCARD, 0, 4 << 20, false, false), 0);
    assert_int_equal(run_io(&rig, VOLUME_WRITE, 4 << 20, rig.memory, 1 << 20), 0); // there is room again
    // No ZERO_RANGE here: zeroes are written, in pieces and an odd rest.
    fill(rig.memory, 3 << 20, 5);
    assert_int_equal(run_io(&rig, VOLUME_WRITE, 0, rig.memory, 2 << 20), 0);
    assert_int_equal(run_range(&rig, VOLUME_ZERO, 512, (1 << 20) + 1024, false, true), 0);
    check_zeroes(&rig, 512, (1 << 20) + 1024);
    close_rig(&rig);
    umount(dir);
    rmdir(dir);
}

static struct volume_extent status(struct rig *rig, uint64_t offset, uint64_t len)
{
    static struct request t;
    prepare(&t, VOLUME_STATUS, offset);
    t.io.len_bytes = len;
    assert_int_equal(run(rig, &t), 0);
    return t.io.extent;
}

static void test_status(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, ".");
    struct volume_extent extent = status(&rig, 0, IMAGE_BYTES);
    assert_true(extent.hole && extent.zero && extent.len_bytes == IMAGE_BYTES);
    assert_int_equal(run_io(&rig, VOLUME_WRITE, 1 << 20, rig.memory, 1 << 20), 0);
    extent = status(&rig, 0, IMAGE_BYTES);
    assert_true(extent.hole && extent.len_bytes == 1 << 20);
    extent = status(&rig, (1 << 20) + 512, IMAGE_BYTES / 2);
    assert_true(!extent.hole && !extent.zero && extent.len_bytes == (1 << 20) - 512);
    close_rig(&rig);
}

static void test_bad_memory(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, ".");
    assert_int_equal(run_io(&rig, VOLUME_READ, 0, (void *)4096, 4096), -EFAULT);
    assert_int_equal(run_io(&rig, VOLUME_READ, 0, rig.memory, 4096), 0);
    close_rig(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_alignment),    cmocka_unit_test(test_scattered_segments),
        cmocka_unit_test(test_many_at_once),     cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_shortened_image),  cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_full_file_system), cmocka_unit_test(test_status),
        cmocka_unit_test(test_bad_memory),
    };
    int failed = cmocka_run_group_tests_name("io_uring, where there is one", tests, NULL, NULL);
    no_uring = true;
    return failed + cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
