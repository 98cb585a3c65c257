// Hostile routing daemons: any bytes as frames of FPM and as messages of rtnetlink, in any order with losses, resyncs and ports
// that go. Nothing beyond the bytes is read; what is in the forwarding tables is always the best candidate of its prefix; and when
// both origins have told everything again, and that was nothing, nothing is left.
//
// The input is steps: what (a byte), length (two bytes), then so many bytes for the steps that take some.
#include "router/ip/fpm.h"
#include "router/ip/learn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEP_FPM, STEP_EVENT, STEP_LATE, STEP_KERNEL_BEGIN, STEP_KERNEL_END, STEP_FPM_BEGIN, STEP_FPM_END, STEP_PORT, STEPS };
#define STEPS_MOST 200 // of one input

static struct fib fib;
static struct candidates *candidates;

static void synchronize(void *arg)
{
    (void)arg;
}

// Devices 1 to 7 are ports, 8 is nothing, all others are the namespace's own.
static enum target_kind resolve(void *arg, const struct netlink_hop *in, struct hop *hop)
{
    (void)arg;
    if (in->device > 8)
        return TARGET_PUNT;
    if (!in->device || in->device == 8)
        return TARGET_NONE;
    *hop = (struct hop){.family = in->family, .port = (uint16_t)in->device, .gateway = in->gateway};
    return in->family ? TARGET_VIA : TARGET_LINK;
}

static void take_messages(struct learn *l, const uint8_t *data, size_t size, bool is_late)
{
    struct netlink_message m;
    for (int r; (r = netlink_read(&data, &size, &m)) != -ENODATA;)
        if (!r)
            learn_message(l, &m, is_late);
}

// Of just this size, so that a byte too many is noticed.
static void take_copy(struct learn *l, const uint8_t *data, size_t size, bool is_late)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return;
    memcpy(copy, data, size);
    take_messages(l, copy, size, is_late);
    free(copy);
}

static void take_frames(struct learn *l, const uint8_t *data, size_t size)
{
    const uint8_t *messages;
    size_t len;
    while (!fpm_read(&data, &size, &messages, &len))
        take_copy(l, messages, len, false);
    learn_settle(l);
}

static bool check_route(void *arg, rib_key key, unsigned len, uint16_t target)
{
    const struct candidate *best = candidates_best(candidates, *(const unsigned *)arg, key, len);
    assert(best && best->target == target);
    assert(fib_targets(&fib)[target].kind != TARGET_NONE);
    return true;
}

static void check(void)
{
    const unsigned families[2] = {IP4, IP6};
    for (unsigned f = 0; f < 2; f++)
        rib_walk(&fib.ribs[f], 0, 0, check_route, (void *)&families[f]);
}

static void step(struct learn *kernel, struct learn *fpm, unsigned what, const uint8_t *data, size_t size)
{
    switch (what) {
    case STEP_FPM:
        take_frames(fpm, data, size);
        break;
    case STEP_EVENT:
    case STEP_LATE:
        take_copy(kernel, data, size, what == STEP_LATE);
        break;
    case STEP_KERNEL_BEGIN:
    case STEP_FPM_BEGIN:
        learn_begin(what == STEP_FPM_BEGIN ? fpm : kernel, what == STEP_KERNEL_BEGIN);
        break;
    case STEP_KERNEL_END:
    case STEP_FPM_END:
        learn_end(what == STEP_FPM_END ? fpm : kernel);
        break;
    default:
        candidates_withdraw_port(candidates, size ? data[0] & 7 : 1);
    }
    fib_settle(&fib);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct fib_config config = {.synchronize = synchronize, .bytes_most = 1 << 20, .direct_at = 64};
    const struct learn_env env = {.resolve = resolve};
    struct learn kernel, fpm;
    if (fib_init(&fib, &config))
        return 0;
    candidates = candidates_create(&fib);
    assert(candidates);
    learn_init(&kernel, candidates, ORIGIN_KERNEL, &env);
    learn_init(&fpm, candidates, ORIGIN_FPM, &env);
    for (unsigned n = 0; n < STEPS_MOST && size >= 3; n++) {
        const unsigned what = data[0] % STEPS;
        size_t len = (size_t)data[1] << 8 | data[2];
        data += 3;
        size -= 3;
        len = len < size ? len : size;
        step(&kernel, &fpm, what, data, len);
        check();
        data += len;
        size -= len;
    }
    learn_begin(&kernel, true);
    learn_end(&kernel);
    learn_begin(&fpm, false);
    learn_end(&fpm);
    assert(!fib.ribs[0].n_routes && !fib.ribs[1].n_routes);
    assert(!candidates_count(candidates, ORIGIN_KERNEL) && !candidates_count(candidates, ORIGIN_FPM));
    learn_fini(&kernel);
    learn_fini(&fpm);
    candidates_destroy(candidates);
    fib_settle(&fib);
    fib_fini(&fib);
    return 0;
}
