// Promises: what a tenant may count on of a resource, and the one grammar in which people write it.
//
//   promises = [ entry { ("," | ";" | newline) entry } ]        reserve: 40MB/s, limit: 300 iops, latency: p99 < 5ms, weight: 200
//   entry    = key ":" value { "and" value }                    reserve: 40MB/s and 1000 iops
//
// The unit of a value tells its metric; trivet-promises(7) lists them. A promise knows nothing of disks or packets but which units
// a resource has. Pure logic, without state, I/O or clock: any thread.
//
// admit.h   can a resource keep a set of promises together?
// share.h   what is there, divided by weights between reserves and limits
// watch.h   are they kept? since when, by how much not, and who held what was lacking; describe.h: as JSON
// archive.h what became of them in the last day, as a file has it
#pragma once

#include "base/error.h"

#include <stdint.h>

struct state;

enum promise_kind { PROMISE_RESERVE, PROMISE_LIMIT, PROMISE_WEIGHT, PROMISE_KINDS };

// A metric, and the base unit in which its values are kept.
enum promise_metric {
    PROMISE_BANDWIDTH,   // bytes/s
    PROMISE_OPERATIONS,  // requests/s
    PROMISE_LATENCY,     // ns
    PROMISE_UTILIZATION, // millionths of the resource: of a disk's or a link's time, of all of a host's CPUs
    PROMISE_CORES,       // millionths of one CPU
    PROMISE_BIT_RATE,    // bits/s
    PROMISE_PACKETS,     // packets/s
    PROMISE_METRICS
};

enum promise_resource { PROMISE_DISK, PROMISE_CPU, PROMISE_LINK, PROMISE_RESOURCES };

// A weight shares the resource's time: its metric is PROMISE_UTILIZATION, its value 1 to PROMISE_WEIGHT_MAX. A latency is a
// reserve: `per_mille` of 1000 requests take less than `value`; of all others per_mille is 0.
struct promise {
    enum promise_kind kind;
    enum promise_metric metric;
    uint32_t per_mille;
    uint64_t value; // never 0, and at most PROMISE_VALUE_MAX
};

#define PROMISE_WEIGHT_DEFAULT 100u // of who was promised none
#define PROMISE_WEIGHT_MAX 10000u
#define PROMISE_VALUE_MAX 1000000000000000ull // 10^15

// What one disk, virtual machine or link was promised. Invariants: one promise at most of a kind in a metric; no reserve above the
// limit in its metric; each metric is one of the resource's. So PROMISE_SET_MAX is never exceeded.
#define PROMISE_SET_MAX 8u
struct promise_set {
    enum promise_resource resource;
    unsigned n;
    struct promise list[PROMISE_SET_MAX];
};

// A set from text. -EINVAL or -ERANGE with the entry, what is wrong with it and what would be right; *set is then unchanged.
int promise_set_parse(struct promise_set *set, enum promise_resource resource, const char *text, struct tv_error *err);
// One entry more, as a YAML mapping has them. The set begins as {.resource = ...}; after a failure it is unchanged.
int promise_set_add(struct promise_set *set, const char *key, const char *value, struct tv_error *err);

// NULL when there is none.
const struct promise *promise_set_find(const struct promise_set *set, enum promise_kind kind, enum promise_metric metric);
uint32_t promise_set_weight(const struct promise_set *set); // PROMISE_WEIGHT_DEFAULT when none was promised

// The shortest text that is read back as the same promise, as "reserve: 40MB/s"; returns buf.
#define PROMISE_TEXT_MAX 64u
const char *promise_format(const struct promise *p, char buf[static PROMISE_TEXT_MAX]);
// The value alone, as "40MB/s", of any metric but a latency's percentile.
const char *promise_format_value(enum promise_metric metric, uint64_t value, char buf[static PROMISE_TEXT_MAX]);
// The whole set, entries with ", " between them; returns buf.
#define PROMISE_SET_TEXT_MAX (PROMISE_SET_MAX * PROMISE_TEXT_MAX)
const char *promise_set_format(const struct promise_set *set, char buf[static PROMISE_SET_TEXT_MAX]);

// Saves or loads; what is loaded holds the invariants, or the stream is marked as failed and the set is empty.
void promise_set_state(struct promise_set *set, struct state *s);
