// Volumes of type "fault": each rule strikes when and where it says, in the same way each time; what is delayed and what hangs; a
// flush that failed stays failed, under an overlay too; the log tells what was done and in which order.
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
#include <unistd.h>

#include "record_volume.h"
#include "store/volume/fault.h"

#define SIZE (1u << 20)
#define BLOCK 512u
#define MOST 64u

struct rig {
    struct loop *loop;
    struct io_engine *io;
    struct volume_env env;
    struct record_volume *below;
    struct volume *volume;
};

struct request {
    struct volume_request io;
    struct iovec iov;
    uint8_t bytes[8 * BLOCK];
    bool is_done;
    int result;
    unsigned order; // of completion
};

static unsigned n_done;

static void on_done(struct volume_request *io, int result)
{
    struct request *request = (struct request *)io;
    free(io->context);
    request->is_done = true;
    request->result = result;
    request->order = n_done++;
}

static int parse(struct fault_rules *rules, const char *text, struct tv_error *err)
{
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    int r = fault_rules_parse(rules, json, err);
    json_decref(json);
    return r;
}

static void open_rig(struct rig *rig, const char *rules, int log_fd)
{
    struct tv_error err = {0};
    struct fault_rules parsed;
    assert_int_equal(parse(&parsed, rules, &err), 0);
    rig->loop = loop_create(&err);
    rig->io = io_create(rig->loop, &(struct io_config){.depth = 8, .no_uring = true}, &err);
    assert_non_null(rig->io);
    assert_int_equal(volume_env_init(&rig->env, rig->loop, rig->io, &err), 0);
    rig->below = record_volume_create(&rig->env, SIZE, 1);
    rig->volume = fault_volume_create(&rig->env, &rig->below->volume, &parsed, log_fd, &err);
    assert_non_null(rig->volume);
    n_done = 0;
}

static void close_rig(struct rig *rig)
{
    volume_destroy(rig->volume);
    volume_env_fini(&rig->env);
    io_destroy(rig->io);
    loop_destroy(rig->loop);
}

static void start(struct rig *rig, struct request *request, enum volume_op op, unsigned block, unsigned n)
{
    request->iov = (struct iovec){request->bytes, (size_t)n * BLOCK};
    request->is_done = false;
    request->io = (struct volume_request){
        .op = op,
        .offset_bytes = (uint64_t)block * BLOCK,
        .len_bytes = (uint64_t)n * BLOCK,
        .data = {.iov = &request->iov, .n_iov = 1},
        .done = on_done,
        .context = malloc(rig->volume->context_bytes),
    };
    volume_start(rig->volume, &request->io);
    assert_false(request->is_done);
}

static void settle(struct rig *rig)
{
    while (volume_env_deliver(&rig->env) || record_volume_pump(rig->below))
        ;
}

static int run(struct rig *rig, enum volume_op op, unsigned block, unsigned n, uint8_t value)
{
    static struct request request;
    memset(request.bytes, value, sizeof(request.bytes));
    start(rig, &request, op, block, n);
    settle(rig);
    assert_true(request.is_done);
    return request.result;
}

static void test_refused_rules(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{}", "must be a list"},
        {"[1]", "rule 1: must be an object"},
        {"[{\"error\": \"EIO\"}, {\"op\": \"write\"}]", "rule 2: must have one of error"},
        {"[{\"op\": \"trim\", \"error\": \"EIO\"}]", "\"op\" must be"},
        {"[{\"error\": \"EPERM\"}]", "\"error\" must be"},
        {"[{\"error\": \"EIO\", \"hang\": true}]", "must have one of"},
        {"[{\"hang\": false}]", "can only be true"},
        {"[{\"error\": \"EIO\", \"nth\": 0}]", "\"nth\" must be a number"},
        {"[{\"error\": \"EIO\", \"every\": \"2\"}]", "\"every\" must be a number"},
        {"[{\"error\": \"EIO\", \"per_million\": 1000001}]", "\"per_million\" must be a number"},
        {"[{\"error\": \"EIO\", \"nth\": 1, \"every\": 2}]", "one of every, nth"},
        {"[{\"drop\": true}]", "\"drop\" is for"},
        {"[{\"hang\": true, \"part_bytes\": 512}]", "goes with error"},
        {"[{\"error\": \"EIO\", \"colour\": 1}]", "\"colour\" is not known"},
    };
    struct fault_rules rules = {.n = 77};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct tv_error err = {0};
        assert_int_equal(parse(&rules, bad[i][0], &err), -EINVAL);
        assert_non_null(strstr(err.text, bad[i][1]));
        assert_int_equal(rules.n, 77);
    }
}

static void test_when_and_where(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig,
             "[{\"op\": \"write\", \"nth\": 3, \"error\": \"ENOSPC\"},"
             " {\"op\": \"read\", \"offset_bytes\": 4096, \"len_bytes\": 512, \"times\": 2, \"error\": \"ENODATA\"},"
             " {\"op\": \"discard\", \"every\": 2, \"error\": \"EIO\"}]",
             -1);
    for (unsigned i = 1; i <= 5; i++)
        assert_int_equal(run(&rig, VOLUME_WRITE, i, 1, (uint8_t)i), i == 3 ? -ENOSPC : 0);
    assert_int_equal(rig.below->now[2 * BLOCK], 2);
    assert_int_equal(rig.below->now[3 * BLOCK], 0);
    assert_int_equal(run(&rig, VOLUME_READ, 7, 1, 0), 0);
    assert_int_equal(run(&rig, VOLUME_READ, 9, 1, 0), 0);
    assert_int_equal(run(&rig, VOLUME_READ, 7, 2, 0), -ENODATA);
    assert_int_equal(run(&rig, VOLUME_READ, 8, 1, 0), -ENODATA);
    assert_int_equal(run(&rig, VOLUME_READ, 8, 1, 0), 0);
    for (unsigned i = 1; i <= 4; i++)
        assert_int_equal(run(&rig, VOLUME_DISCARD, 100, 1, 0), i % 2 ? 0 : -EIO);
    assert_int_equal(run(&rig, VOLUME_FLUSH, 0, 0, 0), 0);
    close_rig(&rig);
}

static void test_chance_is_the_same_each_time(void **state)
{
    (void)state;
    bool struck[3][1000];
    for (unsigned pass = 0; pass < 3; pass++) {
        struct rig rig;
        open_rig(&rig,
                 pass < 2 ? "[{\"per_million\": 100000, \"seed\": 7, \"error\": \"EIO\"}]"
                          : "[{\"per_million\": 100000, \"seed\": 8, \"error\": \"EIO\"}]",
                 -1);
        unsigned n = 0;
        for (unsigned i = 0; i < 1000; i++)
            n += struck[pass][i] = run(&rig, VOLUME_READ, 0, 1, 0) == -EIO;
        assert_in_range(n, 60, 140);
        close_rig(&rig);
    }
    assert_memory_equal(struck[0], struck[1], sizeof(struck[0]));
    assert_memory_not_equal(struck[0], struck[2], sizeof(struck[0]));
}

static void test_part_of_it_and_nothing_of_it(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig,
             "[{\"op\": \"write\", \"nth\": 1, \"error\": \"EIO\", \"part_bytes\": 1100}, {\"op\": \"write\", \"nth\": 1, "
             "\"drop\": true}]",
             -1);
    assert_int_equal(run(&rig, VOLUME_WRITE, 0, 4, 5), -EIO);
    assert_int_equal(rig.below->now[2 * BLOCK - 1], 5);
    assert_int_equal(rig.below->now[2 * BLOCK], 0);
    assert_int_equal(run(&rig, VOLUME_WRITE, 0, 4, 6), 0);
    assert_int_equal(rig.below->now[0], 5);
    assert_int_equal(run(&rig, VOLUME_WRITE, 0, 4, 7), 0);
    assert_int_equal(rig.below->now[0], 7);
    close_rig(&rig);
}

static void test_delayed(void **state)
{
    (void)state;
    struct rig rig;
    static struct request requests[4];
    open_rig(&rig, "[{\"nth\": 2, \"delay\": 2}, {\"nth\": 4, \"delay\": 100}]", -1);
    for (unsigned i = 0; i < 4; i++)
        start(&rig, &requests[i], VOLUME_READ, i, 1);
    settle(&rig);
    assert_int_equal(n_done, 4);
    assert_int_equal(requests[1].order, 2); // after two others: the first and the third
    assert_int_equal(requests[3].order, 3); // when nothing else was left
    assert_int_equal(run(&rig, VOLUME_READ, 0, 1, 0), 0);
    close_rig(&rig);
}

static void test_hangs(void **state)
{
    (void)state;
    struct rig rig;
    struct tv_error err = {0};
    static struct request one, other;
    open_rig(&rig, "[{\"op\": \"write\", \"nth\": 1, \"hang\": true}]", -1);
    start(&rig, &one, VOLUME_WRITE, 0, 1);
    start(&rig, &other, VOLUME_WRITE, 1, 1);
    settle(&rig);
    assert_true(other.is_done && !one.is_done);
    json_t *rules = json_loads("[{\"op\": \"read\", \"hang\": true}]", 0, NULL), *wrong = json_loads("[{}]", 0, NULL);
    assert_int_equal(volume_set_rules(rig.volume, wrong, &err), -EINVAL);
    settle(&rig);
    assert_false(one.is_done);
    assert_int_equal(volume_set_rules(rig.volume, rules, &err), 0);
    settle(&rig);
    assert_true(one.is_done);
    assert_int_equal(one.result, 0);
    json_decref(rules);
    json_decref(wrong);
    // Who has to have it drained does not wait for ever.
    start(&rig, &one, VOLUME_READ, 0, 1);
    settle(&rig);
    assert_false(one.is_done);
    rig.volume->ops->wait(rig.volume, 1000);
    settle(&rig);
    assert_true(one.is_done);
    assert_int_equal(one.result, -EIO);
    close_rig(&rig);
}

static void test_failed_flush_has_failed_for_good(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, "[{\"op\": \"flush\", \"nth\": 2, \"error\": \"EIO\"}]", -1);
    assert_int_equal(run(&rig, VOLUME_FLUSH, 0, 0, 0), 0);
    assert_int_equal(run(&rig, VOLUME_FLUSH, 0, 0, 0), -EIO);
    assert_int_equal(run(&rig, VOLUME_FLUSH, 0, 0, 0), -EIO);
    assert_int_equal(run(&rig, VOLUME_WRITE, 0, 1, 1), 0);
    static struct request durable;
    durable.io.op = VOLUME_WRITE;
    struct volume_request request = {
        .op = VOLUME_WRITE, .durable = true, .len_bytes = BLOCK, .data = {.iov = &durable.iov, .n_iov = 1}};
    durable.iov = (struct iovec){durable.bytes, BLOCK};
    assert_int_equal(volume_run(rig.volume, &request), -EIO);
    json_t *none = json_array(), *told = volume_describe(rig.volume);
    assert_true(json_is_true(json_object_get(told, "flush_failed")));
    assert_int_equal(volume_set_rules(rig.volume, none, NULL), 0);
    assert_int_equal(run(&rig, VOLUME_FLUSH, 0, 0, 0), -EIO);
    json_decref(none);
    json_decref(told);
    close_rig(&rig);
}

static const uint8_t *record(const uint8_t *at, unsigned kind, unsigned op, unsigned number, unsigned block, unsigned n)
{
    uint64_t numbers[3];
    memcpy(numbers, at + 16, sizeof(numbers));
    assert_memory_equal(at, "TVFL", 4);
    assert_int_equal(at[4], kind);
    assert_int_equal(at[5], op);
    assert_int_equal(numbers[0], number);
    assert_int_equal(numbers[1], block * BLOCK);
    assert_int_equal(numbers[2], n * BLOCK);
    return at + 40;
}

static void test_log(void **state)
{
    (void)state;
    char path[] = "test_fault.XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    struct rig rig;
    open_rig(&rig, "[{\"op\": \"write\", \"nth\": 2, \"drop\": true}]", dup(fd));
    assert_int_equal(run(&rig, VOLUME_WRITE, 3, 2, 9), 0);
    assert_int_equal(run(&rig, VOLUME_WRITE, 9, 1, 9), 0); // dropped
    assert_int_equal(run(&rig, VOLUME_READ, 3, 1, 0), 0);
    assert_int_equal(run(&rig, VOLUME_FLUSH, 0, 0, 0), 0);
    close_rig(&rig);
    uint8_t log[4096];
    const ssize_t n = pread(fd, log, sizeof(log), 0);
    const uint8_t *at = record(log, 0, 0, 0, 0, SIZE / BLOCK);
    at = record(at, 1, 1, 0, 3, 2);
    for (unsigned i = 0; i < 2 * BLOCK; i++)
        assert_int_equal(*at++, 9);
    at = record(at, 2, 1, 0, 0, 0);
    at = record(at, 1, 2, 2, 0, 0);
    at = record(at, 2, 2, 2, 0, 0);
    assert_int_equal(at - log, n);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_rules),
        cmocka_unit_test(test_when_and_where),
        cmocka_unit_test(test_chance_is_the_same_each_time),
        cmocka_unit_test(test_part_of_it_and_nothing_of_it),
        cmocka_unit_test(test_delayed),
        cmocka_unit_test(test_hangs),
        cmocka_unit_test(test_failed_flush_has_failed_for_good),
        cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
