// Deficit round robin (Shreedhar and Varghese, SIGCOMM'95) in cycles of the time-stamp counter: pure arithmetic.
//
// What a burst costs is known when it has been done, so a flow's deficit may go below zero: a debt, which its next turns pay first.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define DRR_WEIGHT_MAX 10000
#define DRR_WEIGHT_DEFAULT 100

struct drr {
    int64_t deficit_cycles;
    uint32_t weight; // 1 to DRR_WEIGHT_MAX; DRR_WEIGHT_DEFAULT has one quantum a turn
};

// A turn begins: what was not used of the last one is not saved up, what is owed stays. Whether the flow may do anything in it.
static inline bool drr_begin(struct drr *flow, uint64_t quantum_cycles)
{
    if (flow->deficit_cycles > 0)
        flow->deficit_cycles = 0;
    flow->deficit_cycles += (int64_t)(quantum_cycles * flow->weight / DRR_WEIGHT_DEFAULT);
    return flow->deficit_cycles > 0;
}

// A burst has cost that much; whether there may be another one in this turn. most_cycles: what the flow pays of it at most, since
// a burst in which the host took the CPU away is not the flow's doing.
static inline bool drr_charge(struct drr *flow, uint64_t cycles, uint64_t most_cycles)
{
    flow->deficit_cycles -= (int64_t)(cycles < most_cycles ? cycles : most_cycles);
    return flow->deficit_cycles > 0;
}
