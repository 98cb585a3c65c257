// The rules by which a volume of type "fault" fails: a list, looked through in order for each request. The same requests in the
// same order always meet the same: nothing here knows a clock, and chance has a seed. Pure logic; any thread.
#pragma once

#include "base/error.h"
#include "store/volume/volume.h"

#define FAULT_RULES_MAX 32

enum fault_act {
    FAULT_ERROR, // it fails with `error`, and of its range the first part_bytes were carried out
    FAULT_DROP,  // it succeeds, and was not carried out
    FAULT_DELAY, // it is carried out after `delay` others, or as soon as there are no others
    FAULT_HANG,  // it is carried out when there are other rules
};

// Which of the requests that match: each `every`th, the `nth` alone, or by chance; at most `times` of them.
struct fault_rule {
    unsigned ops; // bits, 1 << enum volume_op
    bool has_range;
    uint64_t offset_bytes, end_bytes; // requests that touch this range, if there is one
    uint64_t every, nth;              // 0: not so
    uint32_t per_million;             // of chance; 0: not so
    uint64_t random;
    uint64_t times;
    enum fault_act act;
    int error; // negative
    uint64_t part_bytes, delay;
    uint64_t matched, struck;
};

struct fault_rules {
    unsigned n;
    struct fault_rule list[FAULT_RULES_MAX];
};

// From a list as trivet-store(8) has it; NULL: none. On failure *rules is as it was.
int fault_rules_parse(struct fault_rules *rules, const json_t *json, struct tv_error *err);
// The first rule that matches the request and whose turn it is. Those before it have counted the request, those behind it have not.
const struct fault_rule *fault_rules_find(struct fault_rules *rules, const struct volume_request *request);
json_t *fault_rules_describe(const struct fault_rules *rules); // [{"matched", "struck"}]
