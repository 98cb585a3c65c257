// Water-filling: see share.h.
//
// The sum of all shares grows with the level, so the level is bisected, until between its two bounds no share differs by more
// than 1. Each then has what it has at the lower bound, and the units that are left go to those that have one more at the upper.
#include "promise/share.h"

#include <assert.h>

typedef unsigned __int128 u128;

enum { LEVEL_BITS = 32 }; // a level is units for each unit of weight, with so many bits behind the point

static uint64_t low_of(const struct share *s)
{
    return s->low < s->high ? s->low : s->high;
}

static uint64_t most_of(const struct share *s)
{
    return s->weight ? s->high : low_of(s);
}

static uint64_t at_level(const struct share *s, u128 level)
{
    const u128 value = (u128)s->weight * level >> LEVEL_BITS; // the product is below 2^128: a level is at most 2^96 + 1
    if (value < low_of(s))
        return low_of(s);
    return value > most_of(s) ? most_of(s) : (uint64_t)value;
}

static u128 sum_at(const struct share *shares, size_t n, u128 level)
{
    u128 sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += at_level(&shares[i], level);
    return sum;
}

static void give_most(struct share *shares, size_t n)
{
    for (size_t i = 0; i < n; i++)
        shares[i].given = most_of(&shares[i]);
}

// What all up to a share have together is rounded, so that the roundings do not add up.
static void give_parts_of_low(struct share *shares, size_t n, uint64_t total, uint64_t lows)
{
    u128 low = 0;
    uint64_t given = 0;
    for (size_t i = 0; i < n; i++) {
        low += low_of(&shares[i]);
        const uint64_t until = (uint64_t)(low * total / lows);
        shares[i].given = until - given;
        given = until;
    }
}

static void give_by_weight(struct share *shares, size_t n, uint64_t total)
{
    uint32_t largest = 1, smallest = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        const uint32_t weight = shares[i].weight;
        largest = weight > largest ? weight : largest;
        smallest = weight && weight < smallest ? weight : smallest;
    }
    const u128 near = ((u128)1 << LEVEL_BITS) / largest; // no share differs by more than 1 so near to each other
    u128 lower = 0, upper = (((u128)total + 1) << LEVEL_BITS) / smallest + 1; // there each has its high, or more than there is
    while (upper - lower > near) {                                            // invariant: sum at lower <= total < sum at upper
        const u128 middle = lower + (upper - lower) / 2;
        if (sum_at(shares, n, middle) <= total)
            lower = middle;
        else
            upper = middle;
    }
    uint64_t left = total - (uint64_t)sum_at(shares, n, lower);
    for (size_t i = 0; i < n; i++) {
        shares[i].given = at_level(&shares[i], lower);
        if (left && at_level(&shares[i], upper) > shares[i].given) {
            shares[i].given++;
            left--;
        }
    }
    assert(left == 0);
}

uint64_t share_fill(struct share *shares, size_t n, uint64_t total)
{
    u128 lows = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        lows += low_of(&shares[i]);
        most += most_of(&shares[i]);
    }
    assert(lows <= UINT64_MAX);
    if (most <= total) {
        give_most(shares, n);
        return total - (uint64_t)most;
    }
    if (lows > total)
        give_parts_of_low(shares, n, total, (uint64_t)lows);
    else
        give_by_weight(shares, n, total);
    return 0;
}
