// OIOS, the opportunistic I/O scheduler: reservations, limits and weights together, in bandwidth, requests, latency and time of the
// device, at the device's full speed and without knowledge of the workloads. Private to its parts:
//
//   oios.c          queues, rounds, the order of service, what each request is charged
//   oios_terms.c    the clocks of reservations and limits
//   oios_cost.c     what a request costs, learned
//   oios_window.c   how much may be with the device at once
//   oios_latency.c  the loop that holds promised latencies
//
// The currency is the device's time, in nanoseconds: a request costs what it adds to the time the device needs for all there is. A
// *round* is 2 ms of it. In each round every disk with something to do has an *opportunity*: its part of the round by weight. A
// disk that has used its opportunity waits for the next round, which begins as soon as all that have something queued have used
// theirs: what one does not use goes to the others, and the device never waits while a request may go. Within the round the order
// is:
//   1. disks with a promised latency, the nearest deadline first;
//   2. disks behind their reservation, the furthest behind first;
//   3. the others; one that has been without requests and still has opportunity goes before one that goes on.
// A disk uses its opportunity in one go, as far as its requests reach. That is what makes costs learnable while all run at once:
// the mix that the device sees changes from one half millisecond to the next.
//
// Reservations are kept by a clock for each, in its own metric, as mClock does, so nothing depends on an estimate; what a disk gets
// by its reservation is charged like all else, so that a disk gets the larger of its reservation and its part by weight: the limit
// of this is exact water-filling. Limits are clocks as well, and say when a queue may go again.
#pragma once

#include "store/sched/item_fifo.h"
#include "store/sched/wheel.h"

#define OIOS_ROUND_NS 2000000
#define OIOS_TICK_NS 16000000u // of the loop over promises

// ---- cost ----

// What a request is described by: one of the requests' classes, and its pages by direction.
enum oios_feature {
    COST_READ_RANDOM,
    COST_READ_NEXT, // begins where the disk's last one of its kind ended
    COST_READ_PAGE,
    COST_WRITE_RANDOM,
    COST_WRITE_NEXT,
    COST_WRITE_PAGE,
    COST_FLUSH,
    COST_TRIM,
    COST_FEATURES,
    COST_NOTHING = COST_FEATURES // the pages of what has none: they cost nothing
};
#define COST_PAGE_BITS 12

#define COST_STRETCHES 128u
#define COST_KNOWN 100u // stretches that make more of a cost than an assumption

struct oios_stretch {
    uint32_t n[COST_FEATURES + 1], left; // what is in it; how much of it is still with the device
    double cost_ns;
    int64_t end_ns;
};

struct oios_cost {
    double ns[COST_FEATURES + 1]; // all positive, but that of nothing
    struct oios_stretch stretches[COST_STRETCHES];
    uint64_t oldest, newest;                                // numbers of stretches; those in between are closed, and not done
    uint64_t good_from;                                     // from this one on the device has been busy to the full
    int64_t since_ns;                                       // when the one before the oldest was done
    uint64_t least_lag_ns[2][DISPATCH_KINDS], lag_until_ns; // now, and before
    const struct dispatch_queue *queue;                     // of the newest; only compared
    // normal equations of the least squares over past stretches, which fade
    double squares[COST_FEATURES][COST_FEATURES], right[COST_FEATURES];
    bool changed;
    uint32_t n_learned; // stretches learned from, up to COST_KNOWN
};

void cost_init(struct oios_cost *c);
uint32_t cost_let_go(struct oios_cost *c, struct dispatch_item *item, bool is_next); // sets its cost, and returns it
void cost_completed(struct oios_cost *c, const struct dispatch_item *item, uint64_t now_ns);
void cost_not_full(struct oios_cost *c); // the device was not kept busy to the full: time tells nothing
void cost_learn(struct oios_cost *c);    // each tick

// ---- window ----

#define WINDOW_TARGET_MOST_NS 20000000.0

// What is with the device, in cost, is what it will take to do it all: the time a request spends there. So the window is a delay.
struct oios_window {
    double size_ns;           // of the costs that may be with the device
    double target_ns;         // of the time a request spends there; size_ns is led there by every completion
    double delay_ns;          // how long it does take, smoothed
    double most_ns;           // for target_ns, by promised latencies
    double mean_ns, large_ns; // of a request's cost, by cost; the largest of late
    double dither;            // 0 to 1: so that a window of two and a half requests is one
    bool bound;               // something waits for the window
    // what was completed since the last adjustment: cost; times time with the device, times itself
    double sum_ns, sum_took, sum_squares;
    // the search for the least target that keeps the device busy to the full: stretches in turns with a little more, and a little
    // less
    unsigned turn;
    bool was_bound; // in both smaller stretches, all the time
    double done_ns, rate[2];
    uint64_t since_ns, from_ns; // of the stretch; of what is counted in it
};

void window_init(struct oios_window *w);
void window_completed(struct oios_window *w, const struct dispatch_item *item, uint64_t now_ns);
bool window_is_full(const struct oios_window *w, uint64_t in_flight_ns); // it is so until something is let go or completed
void window_let_go(struct oios_window *w);
void window_not_full(struct oios_window *w);

// ---- queues ----

struct oios_link {
    struct oios_link *next, *prev; // next == NULL: in no list
};

// Up to when the queue has had what a rate gives.
struct oios_clock {
    uint64_t ns;
    double unit_ns; // how far a unit of the metric moves it
    enum oios_metric { OIOS_BYTES, OIOS_REQUESTS, OIOS_DEVICE_NS } metric;
};

struct oios_clocks { // of the metrics that there are terms in
    unsigned n;
    struct oios_clock clock[3];
};

// The members that every request touches come first.
struct dispatch_queue {
    struct oios_link link; // first; in oios.turn or oios.later, while there are requests that may go
    struct item_fifo line;
    int64_t credit_ns;            // of the opportunity
    uint64_t round;               // of the credit
    uint32_t weight;              // as the loop over promises has it
    uint32_t n_held;              // queued or with the device
    uint64_t ready_ns, waited_ns; // while it is in a ring: since when; how long it was in one before
    bool is_plain, has_latency,
        kept; // is_plain: there are no terms but the weight; kept: had something to do all through the last round
    uint64_t next_bytes[DISPATCH_KINDS]; // where the last one ended

    struct wheel_node gate, behind, deadline;
    struct oios_clocks limit, reserve;
    struct dispatch_terms terms;

    // latency: counts that fade, a tick
    struct dispatch_queue *next_latency;
    double done, late_queued, late_device;
    double slow[2]; // with the device for as long as was promised: as it was; less what was there before
    double boost;   // of the weight
    // Ticks: for how long it has been slow though the window could do no more about it; for how many more nothing is tried; for how
    // many the next time.
    uint32_t n_slow, given_up, patience;
    bool is_device; // it was given up since the device takes as long by itself, and not since requests of others do
};

struct oios {
    struct dispatcher base;
    unsigned window_requests, in_flight, n_waiting, n_ready; // queues with requests; of those, the ones that may go
    uint64_t in_flight_ns, lane_ns; // costs of what is with the device; of that, what belongs to disks with a promised latency
    struct oios_link turn, later;   // heads of rings
    uint64_t round, skip;           // the next round is so many further
    uint64_t weight, round_weight;  // sum over queues with n_held: now; what this round was made for
    uint64_t unit_ns;               // << 20: the opportunity of a unit of weight in this round
    uint64_t tick_ns;
    uint64_t slip_ns;               // see oios_terms.c; time less this is that of reservations, and of the wheel `behind`
    struct dispatch_queue *latency; // those that are promised one
    struct oios_cost cost;
    struct oios_window window;
    struct wheel gates, behind, deadlines;
};

// oios_terms.c: clocks
void terms_set(struct dispatch_queue *queue, const struct dispatch_terms *terms, uint64_t now_ns, uint64_t slip_ns);
void terms_begin(struct dispatch_queue *queue, uint64_t now_ns, uint64_t slip_ns);  // it had nothing queued or with the device
void terms_return(struct dispatch_queue *queue, uint64_t now_ns, uint64_t slip_ns); // it had nothing queued, or might not go
void terms_charge(struct dispatch_queue *queue, const struct dispatch_item *item, uint64_t now_ns, uint64_t slip_ns);
uint64_t terms_slip_ns(uint64_t slip_ns, uint64_t furthest_behind_ns, uint64_t now_ns); // the new one
uint64_t terms_gate_ns(const struct dispatch_queue *queue);                             // not to be served before; 0: no limit
uint64_t terms_since_ns(const struct dispatch_queue *queue, const struct dispatch_item *head); // since when no limit holds it
uint64_t terms_behind_ns(const struct dispatch_queue *queue);                                  // to be served from then on

// oios_latency.c
void latency_completed(struct dispatch_queue *queue, const struct dispatch_item *item, uint64_t now_ns);
void latency_tick(struct oios *o);
void latency_begin(struct dispatch_queue *queue); // it has other terms
