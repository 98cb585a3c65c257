// Images as volumes, over an I/O engine that is not as it should be. Every read and write is cut short at random, and now and then
// interrupted: what was written is all there, and what is read is all of it; an engine that does nothing ends in an error. Of
// several flushes the kernel tells one alone that something was lost: none that ends after it has succeeded.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "store/volume/file.h"

#define IMAGE_BYTES (2u << 20)
#define BLOCK 512u

void __real_io_start(struct io_engine *io, struct io_op *op);
void __wrap_io_start(struct io_engine *io, struct io_op *op);

static struct {
    struct io_op op;
    struct io_op *whole;
    struct iovec iov[VOLUME_SEGMENTS_MAX];
    unsigned n_cut, n_interrupted;
    uint64_t random;
    bool does_nothing;
    struct io_op *syncs[2]; // held, if they are to be
    unsigned n_syncs;
    bool holds_syncs;
} rigged = {.random = 1};

static uint64_t throw(void)
{
    rigged.random ^= rigged.random << 13;
    rigged.random ^= rigged.random >> 7;
    rigged.random ^= rigged.random << 17;
    return rigged.random;
}

static void on_cut_done(struct io_op *op, int result)
{
    const bool interrupted = throw() % 4 == 0;
    (void)op;
    rigged.n_interrupted += interrupted;
    rigged.whole->done(rigged.whole, rigged.does_nothing ? 0 : interrupted ? -EINTR : result);
}

// One at a time: less of it, at any byte where the file takes that. What was interrupted was carried out, and counts for nothing.
void __wrap_io_start(struct io_engine *io, struct io_op *op)
{
    if (op->kind == IO_SYNC && rigged.holds_syncs) {
        rigged.syncs[rigged.n_syncs++] = op;
        return;
    }
    if (op->kind != IO_READ && op->kind != IO_WRITE) {
        __real_io_start(io, op);
        return;
    }
    const uint64_t unit = BLOCK, wanted = op->len_bytes > unit ? (throw() % (op->len_bytes / unit) + 1) * unit : op->len_bytes;
    rigged.n_cut += wanted < op->len_bytes;
    rigged.op = *op;
    rigged.whole = op;
    rigged.op.done = on_cut_done;
    rigged.op.len_bytes = wanted;
    const struct volume_data data = {.iov = op->iov, .n_iov = op->n_iov};
    rigged.op.n_iov = volume_data_vector(data, wanted, rigged.iov, VOLUME_SEGMENTS_MAX);
    rigged.op.iov = rigged.iov;
    __real_io_start(io, &rigged.op);
}

struct rig {
    struct loop *loop;
    struct io_engine *io;
    struct volume_env env;
    struct volume *volume;
    uint8_t *memory, *expected;
};

static void open_rig(struct rig *rig)
{
    struct tv_error err = {0};
    char path[] = "test_file_short.XXXXXX";
    rig->loop = loop_create(&err);
    rig->io = io_create(rig->loop, &(struct io_config){.depth = 8}, &err);
    assert_non_null(rig->io);
    assert_int_equal(volume_env_init(&rig->env, rig->loop, rig->io, &err), 0);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
    rig->volume = file_volume_create(&rig->env, fd, path, &(struct image_options){.block_size_bytes = BLOCK}, &err);
    assert_non_null(rig->volume);
    rig->memory = aligned_alloc(4096, IMAGE_BYTES + 4096);
    rig->expected = calloc(1, IMAGE_BYTES);
}

static void close_rig(struct rig *rig)
{
    volume_destroy(rig->volume);
    volume_env_fini(&rig->env);
    io_destroy(rig->io);
    loop_destroy(rig->loop);
    free(rig->memory);
    free(rig->expected);
}

static int run(struct rig *rig, enum volume_op op, uint64_t offset_bytes, uint64_t len_bytes, size_t shift)
{
    // Two segments, the first of any length that direct I/O takes.
    const size_t first = len_bytes > BLOCK ? BLOCK : len_bytes;
    struct iovec iov[2] = {{rig->memory + shift, first}, {rig->memory + shift + first, len_bytes - first}};
    struct volume_request request = {
        .op = op, .offset_bytes = offset_bytes, .len_bytes = len_bytes, .data = {.iov = iov, .n_iov = 2}, .may_unmap = false};
    return volume_run(rig->volume, &request);
}

static void test_all_of_it(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig);
    for (unsigned i = 0; i < 300; i++) {
        const uint64_t block = throw() % (IMAGE_BYTES / BLOCK - 1), most = IMAGE_BYTES / BLOCK - block;
        const uint64_t offset = block * BLOCK, len = (throw() % (most < 1200 ? most : 1200) + 1) * BLOCK;
        const size_t shift = throw() % 3 ? 0 : 3; // by bounce buffers, of which a request may need several
        if (i % 2) {
            for (uint64_t b = 0; b < len; b++)
                rig.expected[offset + b] = rig.memory[shift + b] = (uint8_t)(throw() >> 32);
            assert_int_equal(run(&rig, VOLUME_WRITE, offset, len, shift), 0);
        } else {
            memset(rig.memory, 0xee, len + shift);
            assert_int_equal(run(&rig, VOLUME_READ, offset, len, shift), 0);
            assert_memory_equal(rig.memory + shift, rig.expected + offset, len);
        }
    }
    assert_true(rigged.n_cut > 300 && rigged.n_interrupted > 100);
    assert_int_equal(rig.env.bounce.n_free, rig.env.bounce.n);
    close_rig(&rig);
}

static void test_nothing_of_it(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig);
    rigged.does_nothing = true;
    assert_int_equal(run(&rig, VOLUME_READ, 0, 4096, 0), -ENODATA);
    assert_int_equal(run(&rig, VOLUME_WRITE, 0, 4096, 0), -EIO);
    assert_int_equal(run(&rig, VOLUME_WRITE, 0, 4096, 5), -EIO);
    rigged.does_nothing = false;
    assert_int_equal(run(&rig, VOLUME_WRITE, 0, 4096, 0), 0);
    close_rig(&rig);
}

struct flush {
    struct volume_request io;
    int result;
};

static void on_flushed(struct volume_request *io, int result)
{
    ((struct flush *)io)->result = result;
    free(io->context);
}

static void test_two_flushes_and_one_fails(void **state)
{
    (void)state;
    struct rig rig;
    struct flush flushes[2];
    open_rig(&rig);
    rigged.holds_syncs = true;
    for (unsigned i = 0; i < 2; i++) {
        void *context = aligned_alloc(VOLUME_CONTEXT_ALIGN, rig.volume->context_bytes);
        flushes[i].io = (struct volume_request){.op = VOLUME_FLUSH, .done = on_flushed, .context = context};
        volume_start(rig.volume, &flushes[i].io);
    }
    assert_int_equal(rigged.n_syncs, 2);
    rigged.syncs[0]->done(rigged.syncs[0], -EIO);
    rigged.syncs[1]->done(rigged.syncs[1], 0);
    assert_int_equal(flushes[0].result, -EIO);
    assert_int_equal(flushes[1].result, -EIO);
    rigged.holds_syncs = false;
    struct volume_request again = {.op = VOLUME_FLUSH};
    assert_int_equal(volume_run(rig.volume, &again), -EIO);
    close_rig(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_of_it), cmocka_unit_test(test_nothing_of_it),
                                       cmocka_unit_test(test_two_flushes_and_one_fails)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
