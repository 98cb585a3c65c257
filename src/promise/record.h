// How much of the last day a promise was broken, in slots of five minutes. Private to the folder.
#pragma once

#include "promise/watch.h"

#define RECORD_SLOT_NS 300000000000ull
#define RECORD_SLOTS 288u // a day
#define RECORD_HOUR_SLOTS 12u

// Invariant: at < RECORD_SLOTS; slot `at` is the one that began at begin_ns, those before it are older, around the ring. Slots are
// numbered as they begin; that of `at` is at least RECORD_SLOTS.
struct record {
    uint64_t begin_ns, number;
    uint32_t at;
    struct {
        uint32_t judged_ms, broken_ms;
    } slots[RECORD_SLOTS];
    struct promise_record all;
};

void record_init(struct record *r, uint64_t now_ns);
void record_advance(struct record *r, uint64_t now_ns); // lets slots begin and fall off
void record_add(struct record *r, uint64_t duration_ns, bool broken);
struct promise_record record_last(const struct record *r, unsigned slots);
void record_state(struct record *r, struct state *s, uint64_t now_ns);
