// Any JSON as rules of a fault volume: refused with a message, and the rules as they were, or rules that can be asked.
#include <assert.h>
#include <errno.h>
#include <stdint.h>

#include "store/volume/fault_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(struct fault_rules *rules)
{
    assert(rules->n <= FAULT_RULES_MAX);
    for (unsigned i = 0; i < 64; i++) {
        const struct volume_request request = {
            .op = (enum volume_op)(i % (VOLUME_STATUS + 1)), .offset_bytes = i * 4096u, .len_bytes = 4096};
        const struct fault_rule *rule = fault_rules_find(rules, &request);
        assert(!rule || (rule->struck && rule->struck <= rule->times && rule->struck <= rule->matched));
        assert(!rule || (rule->act == FAULT_ERROR) == (rule->error < 0));
    }
    json_decref(fault_rules_describe(rules));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fault_rules rules = {.n = 77};
    struct tv_error err = {0};
    json_t *json = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
    if (!json)
        return 0;
    const int r = fault_rules_parse(&rules, json, &err);
    assert(r == 0 || r == -EINVAL);
    if (r)
        assert(err.text[0] && rules.n == 77);
    else
        ask(&rules);
    json_decref(json);
    return 0;
}
