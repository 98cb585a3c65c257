// How much a network or a port may have, and how much it is owed: limits, reserves and turns as a worker keeps them. Pure
// arithmetic on times in cycles; O(1) a burst, nothing is allocated.
//
// A limit is a token bucket. How many packets may come by is asked before they are taken from the port, so a limit drops nothing:
// what is too much waits where it is. What the last packet of a burst takes too much is paid first by what comes later. The bucket
// holds PACE_BURST_US of its rate, which a worker that was busy elsewhere can make up for, and a sender that was quiet may use at
// once.
//
// A reserve is a clock, as in mClock (OSDI'10). In its turn a network has the larger of what its weight gives it and what it takes
// for no clock of its to be behind (worker.c), so that together they come to water-filling, whoever has something to do; a port has
// the same within its network. Nothing is owed to who has nothing waiting. What a network is owed it gets within the time of the
// CPU that it is entitled to (promises.h), so that one whose packets become dearer than they were takes from nobody's reserve.
//
// There are two clocks: the time, for bits and packets; and the worker's own, which stands still while the host runs something else
// on its CPU, for shares of that CPU. So whatever the worker is left with is divided as was promised.
//
// Counts are in units times hz: each cycle adds `rate`, a unit costs hz, and nothing is rounded.
#pragma once

#include "router/counters.h"
#include "router/drr.h"

#include <stdbool.h>

#define PACE_BURST_US 5000    // of a limit
#define PACE_BEHIND_US 100000 // a clock may be so far behind, to be made up for
#define PACE_AHEAD_US 1000    // and so far ahead, by what came without being owed

enum pace_metric { PACE_BITS, PACE_PACKETS, PACE_CYCLES, PACE_METRICS };

// What was promised, as the worker needs it: the control thread writes, the worker takes it over with pace_apply(). By the second;
// 0: nothing.
struct pace_terms {
    _Atomic uint32_t weight; // 1 to DRR_WEIGHT_MAX
    _Atomic uint64_t limit[PACE_METRICS], reserve[PACE_METRICS];
    _Atomic uint64_t entitled;    // cycles in which reserves are met; UINT64_MAX: as many as it takes. Looked at all the time
    _Atomic uint64_t late_cycles; // a packet that takes as long is late; 0: none is
};

// What it had, since it was made. The worker writes, anybody reads.
struct usage {
    _Atomic uint64_t packets, bits, cycles;
    _Atomic uint64_t waited_cycles; // in which packets were waiting, and not for its own limit
    _Atomic uint64_t late_packets;
    // Of bursts that were full, or at least half of that, which tell what a packet costs when there are many.
    _Atomic uint64_t full_packets, full_bits, full_cycles;
};

struct usage_reading {
    uint64_t packets, bits, cycles, waited_cycles, late_packets, full_packets, full_bits, full_cycles;
};

struct usage_reading usage_read(const struct usage *usage);

struct meter {
    uint64_t rate;
    int64_t credit, least, most;
};

struct pace {
    struct drr drr;
    const struct pace_terms *terms;
    uint64_t hz, late_cycles;
    unsigned limits, reserves; // a bit for each metric in which there is one
    struct meter limit[PACE_METRICS], reserve[PACE_METRICS], entitled;
    uint64_t looked, looked_own; // by the worker's own clock
    uint64_t advanced, advanced_own;
    uint64_t mean_packet; // of the last burst, as the limit in bits counts
    uint64_t waiting;     // cycles in which packets were waiting, if there are any when it is asked next
    bool is_backlogged;   // when it was last looked at there was more than was taken, or just as much
    bool is_limited;      // it was not looked into then: a limit of its own is used up
    struct usage usage;
};

struct pace_burst {
    unsigned packets;
    uint64_t bits, cycles; // cycles without what was not its doing (drr.h)
    bool is_full;
};

// terms: the owner's, stays as long.
void pace_init(struct pace *pace, struct pace_terms *terms, uint64_t hz, uint64_t now, uint64_t own);
void pace_apply(struct pace *pace); // the terms have changed
// Cycles until a limit that is used up lets enough come by for it to be worth while; 0: no limit is in the way.
uint64_t pace_wait(const struct pace *pace);

static inline void meter_advance(struct meter *meter, uint64_t cycles)
{
    const unsigned __int128 more = (unsigned __int128)meter->rate * cycles;
    const uint64_t room = (uint64_t)meter->most - (uint64_t)meter->credit;
    meter->credit = more < room ? meter->credit + (int64_t)more : meter->most;
}

// What was owed is paid in full; what came besides puts it ahead as far as `least` only.
static inline void meter_charge(struct meter *meter, uint64_t units, uint64_t hz)
{
    const int64_t least = meter->credit > 0 ? INT64_MIN : meter->credit < meter->least ? meter->credit : meter->least;
    const __int128 credit = meter->credit - (__int128)((unsigned __int128)units * hz);
    meter->credit = credit < least ? least : (int64_t)credit;
}

// It is its turn to be asked for packets, at a time by both clocks that does not go back.
static inline void pace_look(struct pace *pace, uint64_t now, uint64_t own)
{
    if (pace->is_backlogged && !pace->is_limited)
        pace->waiting += now - pace->looked;
    pace->looked = now;
    pace->looked_own = own;
    if (!(pace->limits | pace->reserves))
        return;
    const uint64_t time = now - pace->advanced, own_time = own - pace->advanced_own;
    pace->advanced = now;
    pace->advanced_own = own;
    for (unsigned i = 0; i < PACE_METRICS; i++) {
        if (pace->limits & 1u << i)
            meter_advance(&pace->limit[i], i == PACE_CYCLES ? own_time : time);
        if (pace->reserves & 1u << i)
            meter_advance(&pace->reserve[i], i == PACE_CYCLES ? own_time : time);
    }
    pace->entitled.rate = counter_get(&pace->terms->entitled);
    meter_advance(&pace->entitled, own_time);
}

// How many packets may come by now, up to `most`; 0: its limit is used up.
static inline unsigned pace_budget(struct pace *pace, unsigned most)
{
    if (!pace->limits)
        return most;
    if (pace->is_limited && pace_wait(pace))
        return 0;
    for (unsigned i = 0; i < PACE_METRICS; i++) {
        if (!(pace->limits & 1u << i))
            continue;
        const int64_t credit = pace->limit[i].credit;
        const uint64_t packet = i == PACE_BITS ? pace->mean_packet : i == PACE_PACKETS ? pace->hz : 0;
        pace->is_limited = credit <= 0;
        if (pace->is_limited)
            return 0;
        if (packet && (uint64_t)(credit - 1) / packet < most)
            most = (unsigned)((uint64_t)(credit - 1) / packet) + 1;
    }
    return most;
}

// Whether something is owed to it, if it has something waiting.
static inline bool pace_is_owed(const struct pace *pace)
{
    if (!pace->reserves || pace->entitled.credit <= 0)
        return false;
    for (unsigned i = 0; i < PACE_METRICS; i++)
        if (pace->reserves & 1u << i && pace->reserve[i].credit > 0)
            return true;
    return false;
}

// It has nothing waiting, and had not since it was asked before: nothing is owed.
static inline void pace_found_empty(struct pace *pace)
{
    pace->waiting = 0;
    for (unsigned i = 0; pace->reserves && i < PACE_METRICS; i++)
        if (pace->reserve[i].credit > 0)
            pace->reserve[i].credit = 0;
}

static inline void pace_charge_meters(struct pace *pace, const struct pace_burst *burst)
{
    const uint64_t units[PACE_METRICS] = {burst->bits, burst->packets, burst->cycles};
    for (unsigned i = 0; i < PACE_METRICS; i++) {
        if (pace->limits & 1u << i)
            meter_charge(&pace->limit[i], units[i], pace->hz);
        if (pace->reserves & 1u << i)
            meter_charge(&pace->reserve[i], units[i], pace->hz);
    }
    meter_charge(&pace->entitled, burst->cycles, pace->hz);
    if (pace->limits & 1u << PACE_BITS)
        pace->mean_packet = burst->bits / burst->packets * pace->hz;
}

// A burst has come by, of at least one packet. Turns are not charged: who gives them knows whether it was one.
static inline void pace_charge(struct pace *pace, const struct pace_burst *burst)
{
    struct usage *usage = &pace->usage;
    counter_add(&usage->waited_cycles, pace->waiting);
    pace->waiting = 0;
    counter_add(&usage->packets, burst->packets);
    counter_add(&usage->bits, burst->bits);
    counter_add(&usage->cycles, burst->cycles);
    if (burst->is_full) {
        counter_add(&usage->full_packets, burst->packets);
        counter_add(&usage->full_bits, burst->bits);
        counter_add(&usage->full_cycles, burst->cycles);
    }
    if (pace->limits | pace->reserves)
        pace_charge_meters(pace, burst);
}
