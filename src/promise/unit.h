// The units of promises: what people write and the metric and factor it stands for. Private to the folder.
#pragma once

#include "promise/promise.h"

#include <stdbool.h>
#include <stddef.h>

enum prefixes { PREFIX_NONE, PREFIX_DECIMAL, PREFIX_BINARY }; // a binary one has the decimal ones too

enum print { PRINT_NEVER, PRINT_JOINED, PRINT_SPACED }; // 40MB/s, 300 iops

struct unit {
    const char *text;
    enum promise_metric metric;
    enum prefixes prefixes;
    uint64_t factor;  // base units in one of these
    enum print print; // one that is never printed is read all the same
};

extern const struct unit promise_units[];
extern const size_t promise_n_units;

struct prefix {
    const char *text;
    uint64_t factor;
    bool binary;
    bool printed;
};

extern const struct prefix promise_prefixes[];
extern const size_t promise_n_prefixes;

extern const char *const promise_kind_names[PROMISE_KINDS];
extern const char *const promise_resource_names[PROMISE_RESOURCES]; // "a disk"
extern const char *const promise_resource_units[PROMISE_RESOURCES]; // as a remedy tells them
extern const char *const promise_resource_examples[PROMISE_RESOURCES];

bool promise_resource_has(enum promise_resource resource, enum promise_metric metric);
uint64_t promise_value_max(enum promise_kind kind, enum promise_metric metric);

// What every promise of a set obeys by itself and beside the others; 0 or -errno with the reason. Used by whatever makes one.
int promise_set_insert(struct promise_set *set, const struct promise *p, struct tv_error *err);
