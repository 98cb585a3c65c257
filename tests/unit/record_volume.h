// A volume in memory for tests, that completes requests in any order when it is told to, and knows what a power cut would leave:
// what was flushed, and of the rest any part.
#pragma once

#include "store/volume/env.h"

struct record_volume {
    struct volume volume;
    uint8_t *now, *stable; // as read, and as it is for sure after a power cut
    uint64_t *touched;     // bits: blocks of 4096 bytes that were ever written
    struct record_entry *entries;
    unsigned n_entries, n_held;
    struct volume_request *held[512];
    unsigned held_from[512]; // n_entries when it was started
    uint64_t random;
    int write_error; // what the next writes fail with; 0: they do not
    int flush_error;
    bool refuses_fast;                        // zeroing is never fast
    uint64_t unreadable_from, unreadable_end; // bytes; until they are written to
    uint64_t n_reads;
};

struct record_volume *record_volume_create(struct volume_env *env, uint64_t size_bytes, uint64_t seed);
bool record_volume_pump(struct record_volume *r); // completes one that is held, any; false: there is none
// A new one as a power cut would leave it now.
struct record_volume *record_volume_cut(struct record_volume *r);
uint64_t record_random(uint64_t *state);
