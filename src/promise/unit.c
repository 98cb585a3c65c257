// The units of promises: see unit.h.
//
// Rates count in powers of 1000, as those who sell devices and links do, unless the prefix says otherwise (Ki, Mi: IEC 80000-13).
#include "promise/unit.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const struct unit promise_units[] = {
    {"B/s", PROMISE_BANDWIDTH, PREFIX_BINARY, 1, PRINT_JOINED},
    {"iops", PROMISE_OPERATIONS, PREFIX_DECIMAL, 1, PRINT_SPACED},
    {"IOPS", PROMISE_OPERATIONS, PREFIX_DECIMAL, 1, PRINT_NEVER},
    {"requests/s", PROMISE_OPERATIONS, PREFIX_DECIMAL, 1, PRINT_NEVER},
    {"ns", PROMISE_LATENCY, PREFIX_NONE, 1, PRINT_JOINED},
    {"us", PROMISE_LATENCY, PREFIX_NONE, 1000, PRINT_JOINED},
    {"ms", PROMISE_LATENCY, PREFIX_NONE, 1000000, PRINT_JOINED},
    {"s", PROMISE_LATENCY, PREFIX_NONE, 1000000000, PRINT_JOINED},
    {"%", PROMISE_UTILIZATION, PREFIX_NONE, 10000, PRINT_JOINED},
    {"cores", PROMISE_CORES, PREFIX_NONE, 1000000, PRINT_SPACED},
    {"core", PROMISE_CORES, PREFIX_NONE, 1000000, PRINT_NEVER},
    {"bit/s", PROMISE_BIT_RATE, PREFIX_BINARY, 1, PRINT_JOINED},
    {"packets/s", PROMISE_PACKETS, PREFIX_DECIMAL, 1, PRINT_SPACED},
    {"pps", PROMISE_PACKETS, PREFIX_DECIMAL, 1, PRINT_NEVER},
};
const size_t promise_n_units = COUNT(promise_units);

const struct prefix promise_prefixes[] = {
    {"", 1, false, true},           {"k", 1000, false, true},       {"K", 1000, false, false},
    {"M", 1000000, false, true},    {"G", 1000000000, false, true}, {"T", 1000000000000, false, true},
    {"Ki", 1ull << 10, true, true}, {"Mi", 1ull << 20, true, true}, {"Gi", 1ull << 30, true, true},
    {"Ti", 1ull << 40, true, true},
};
const size_t promise_n_prefixes = COUNT(promise_prefixes);

const char *const promise_kind_names[PROMISE_KINDS] = {"reserve", "limit", "weight"};
const char *const promise_resource_names[PROMISE_RESOURCES] = {"a disk", "a CPU", "a network"};
const char *const promise_resource_units[PROMISE_RESOURCES] = {
    "MB/s, iops or %",
    "cores or %",
    "Mbit/s, packets/s or %",
};
const char *const promise_resource_examples[PROMISE_RESOURCES] = {"40MB/s", "1.5 cores", "100Mbit/s"};

static const unsigned metrics[PROMISE_RESOURCES] = {
    [PROMISE_DISK] = 1u << PROMISE_BANDWIDTH | 1u << PROMISE_OPERATIONS | 1u << PROMISE_LATENCY | 1u << PROMISE_UTILIZATION,
    [PROMISE_CPU] = 1u << PROMISE_CORES | 1u << PROMISE_UTILIZATION,
    [PROMISE_LINK] = 1u << PROMISE_BIT_RATE | 1u << PROMISE_PACKETS | 1u << PROMISE_LATENCY | 1u << PROMISE_UTILIZATION,
};

bool promise_resource_has(enum promise_resource resource, enum promise_metric metric)
{
    return metrics[resource] & 1u << metric;
}

uint64_t promise_value_max(enum promise_kind kind, enum promise_metric metric)
{
    if (kind == PROMISE_WEIGHT)
        return PROMISE_WEIGHT_MAX;
    return metric == PROMISE_UTILIZATION ? 1000000 : PROMISE_VALUE_MAX;
}
