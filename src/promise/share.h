// Water-filling: what there is, divided by weights, each share between a low bound (a reserve) and a high one (a limit, or what is
// asked for). Pure, exact, without floating point and allocation; any thread.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct share {
    uint64_t low, high; // a low above its high counts as the high; the sum of all lows is below 2^64
    uint32_t weight;    // 0: not more than low
    uint64_t given;     // the result
};

// Fills `given` of n shares and returns what was not given away.
//
// If `total` is at least the sum of lows, there is a level such that each share has weight * level, but not less than its low and
// not more than its high, and differs from that by 1 at most; the sum is `total` exactly, or that of all highs (of the lows of
// those without weight), and the rest is returned. If it is less, each has its part of `total` in proportion to its low, rounded
// down or up, and the sum is `total`. Which shares rounding favours depends on their order alone.
//
// Time: n for each bit of total * (largest weight / smallest weight).
uint64_t share_fill(struct share *shares, size_t n, uint64_t total);
