// How much of the last day a promise was broken: see record.h.
#include "promise/record.h"

#include "base/clock.h"
#include "base/state.h"

#include <inttypes.h>
#include <string.h>

void record_init(struct record *r, uint64_t now_ns)
{
    memset(r, 0, sizeof(*r));
    r->begin_ns = now_ns;
    r->number = RECORD_SLOTS;
}

void record_advance(struct record *r, uint64_t now_ns)
{
    const uint64_t passed = (now_ns - r->begin_ns) / RECORD_SLOT_NS;
    for (uint64_t i = 0; i < passed && i < RECORD_SLOTS; i++) {
        r->at = (r->at + 1) % RECORD_SLOTS;
        memset(&r->slots[r->at], 0, sizeof(r->slots[0]));
    }
    r->begin_ns += passed * RECORD_SLOT_NS;
    r->number += passed;
}

static void add_saturated(uint32_t *sum, uint64_t value)
{
    *sum = value > UINT32_MAX - *sum ? UINT32_MAX : *sum + (uint32_t)value;
}

void record_add(struct record *r, uint64_t duration_ns, bool broken)
{
    const uint64_t ms = duration_ns / NS_PER_MS;
    add_saturated(&r->slots[r->at].judged_ms, ms);
    r->all.judged_ms += ms;
    if (!broken)
        return;
    add_saturated(&r->slots[r->at].broken_ms, ms);
    r->all.broken_ms += ms;
}

struct promise_record record_last(const struct record *r, unsigned slots)
{
    struct promise_record sum = {0};
    for (unsigned i = 0; i < slots; i++) {
        const uint32_t at = (r->at + RECORD_SLOTS - i) % RECORD_SLOTS;
        sum.judged_ms += r->slots[at].judged_ms;
        sum.broken_ms += r->slots[at].broken_ms;
    }
    return sum;
}

void record_state(struct record *r, struct state *s, uint64_t now_ns)
{
    uint64_t age_ns = now_ns - r->begin_ns, packed[RECORD_SLOTS];
    for (unsigned i = 0; i < RECORD_SLOTS; i++)
        packed[i] = (uint64_t)r->slots[i].judged_ms << 32 | r->slots[i].broken_ms;
    state_section_begin(s, "record", 1);
    state_u64(s, "age_ns", &age_ns);
    state_u32(s, "at", &r->at);
    state_u64(s, "number", &r->number);
    state_u64_array(s, "slots", packed, RECORD_SLOTS);
    state_u64(s, "judged_ms", &r->all.judged_ms);
    state_u64(s, "broken_ms", &r->all.broken_ms);
    state_section_end(s);
    if (!state_is_loading(s))
        return;
    if (r->at >= RECORD_SLOTS) {
        state_fail(s, "slot %u of a record; there are %u", r->at, RECORD_SLOTS);
        r->at = 0;
    }
    if (r->number < RECORD_SLOTS) {
        state_fail(s, "a record's slot has the number %" PRIu64 "; they begin with %u", r->number, RECORD_SLOTS);
        r->number = RECORD_SLOTS;
    }
    r->begin_ns = now_ns - age_ns;
    for (unsigned i = 0; i < RECORD_SLOTS; i++) {
        r->slots[i].judged_ms = (uint32_t)(packed[i] >> 32);
        r->slots[i].broken_ms = (uint32_t)packed[i];
    }
}
