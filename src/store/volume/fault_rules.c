// What fails: see fault_rules.h.
#include "store/volume/fault_rules.h"

#include <errno.h>
#include <string.h>

#define MILLION 1000000u

// ---- reading them ----

static const struct {
    const char *name;
    unsigned ops;
} op_names[] = {
    {"read", 1u << VOLUME_READ},       {"write", 1u << VOLUME_WRITE}, {"flush", 1u << VOLUME_FLUSH},
    {"discard", 1u << VOLUME_DISCARD}, {"zero", 1u << VOLUME_ZERO},   {"status", 1u << VOLUME_STATUS},
};

static const struct {
    const char *name;
    int error;
} error_names[] = {
    {"EIO", -EIO},       {"ENOSPC", -ENOSPC},       {"ENODATA", -ENODATA}, {"EOPNOTSUPP", -EOPNOTSUPP},
    {"ENOMEM", -ENOMEM}, {"ETIMEDOUT", -ETIMEDOUT},
};

static int bad(unsigned index, const char *what, struct tv_error *err)
{
    return tv_error_set(err, -EINVAL, "rule %u: %s", index + 1, what);
}

static bool parse_ops(struct fault_rule *rule, const json_t *op)
{
    rule->ops = 0;
    for (size_t i = 0; i < sizeof(op_names) / sizeof(op_names[0]); i++)
        if (json_is_string(op) && !strcmp(op_names[i].name, json_string_value(op)))
            rule->ops = op_names[i].ops;
    return rule->ops != 0;
}

static bool parse_error(struct fault_rule *rule, const json_t *error)
{
    rule->act = FAULT_ERROR;
    for (size_t i = 0; i < sizeof(error_names) / sizeof(error_names[0]); i++)
        if (json_is_string(error) && !strcmp(error_names[i].name, json_string_value(error)))
            rule->error = error_names[i].error;
    return rule->error != 0;
}

// Numbers, all of them optional.
static bool parse_number(struct fault_rule *rule, const char *key, const json_t *value, bool *known)
{
    const struct {
        const char *key;
        uint64_t *to, least;
    } numbers[] = {
        {"offset_bytes", &rule->offset_bytes, 0},
        {"len_bytes", &rule->end_bytes, 1},
        {"every", &rule->every, 1},
        {"nth", &rule->nth, 1},
        {"seed", &rule->random, 0},
        {"times", &rule->times, 1},
        {"part_bytes", &rule->part_bytes, 0},
        {"delay", &rule->delay, 1},
    };
    const json_int_t number = json_integer_value(value);
    if (!strcmp(key, "per_million")) {
        rule->per_million = (uint32_t)number;
        return json_is_integer(value) && number > 0 && number <= MILLION;
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (!strcmp(key, numbers[i].key)) {
            *numbers[i].to = (uint64_t)number;
            return json_is_integer(value) && number >= (json_int_t)numbers[i].least;
        }
    *known = false;
    return false;
}

static int parse_member(struct fault_rule *rule, unsigned index, const char *key, const json_t *value, struct tv_error *err)
{
    bool known = true;
    if (!strcmp(key, "op"))
        return parse_ops(rule, value) ? 0 : bad(index, "\"op\" must be read, write, flush, discard, zero or status", err);
    if (!strcmp(key, "error"))
        return parse_error(rule, value)
                   ? 0
                   : bad(index, "\"error\" must be EIO, ENOSPC, ENODATA, EOPNOTSUPP, ENOMEM or ETIMEDOUT", err);
    if (!strcmp(key, "hang") || !strcmp(key, "drop")) {
        rule->act = key[0] == 'h' ? FAULT_HANG : FAULT_DROP;
        return json_is_true(value) ? 0 : bad(index, "\"hang\" and \"drop\" can only be true", err);
    }
    if (parse_number(rule, key, value, &known)) {
        if (!strcmp(key, "delay"))
            rule->act = FAULT_DELAY;
        rule->has_range |= !strcmp(key, "offset_bytes") || !strcmp(key, "len_bytes");
        return 0;
    }
    return tv_error_set(err, -EINVAL, "rule %u: \"%s\" %s", index + 1, key,
                        known ? "must be a number, and is too small or too large"
                              : "is not known; there are op, offset_bytes, len_bytes, every, nth, per_million, seed, times, error, "
                                "part_bytes, drop, delay and hang");
}

// Which of its members make sense together.
static int check(struct fault_rule *rule, unsigned index, const json_t *json, struct tv_error *err)
{
    static const char *const acts[] = {"error", "drop", "delay", "hang"};
    unsigned n_acts = 0;
    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
        n_acts += json_object_get(json, acts[i]) != NULL;
    if (n_acts != 1)
        return bad(index, "must have one of error, drop, delay and hang", err);
    if ((rule->every && rule->nth) || (rule->per_million && (rule->every || rule->nth)))
        return bad(index, "can have one of every, nth and per_million", err);
    if (rule->part_bytes && rule->act != FAULT_ERROR)
        return bad(index, "\"part_bytes\" goes with error", err);
    if (rule->act == FAULT_DROP && (rule->ops & (1u << VOLUME_READ | 1u << VOLUME_STATUS)))
        return bad(index, "\"drop\" is for write, flush, discard and zero, and \"op\" must say which", err);
    if (!rule->end_bytes || rule->end_bytes > UINT64_MAX - rule->offset_bytes)
        rule->end_bytes = UINT64_MAX;
    else
        rule->end_bytes += rule->offset_bytes;
    if (!rule->every && !rule->nth && !rule->per_million)
        rule->every = 1;
    if (!rule->times)
        rule->times = UINT64_MAX;
    rule->random = (rule->random + 1) * 0x9e3779b97f4a7c15ull | 1; // (the golden ratio's bits: small seeds lie far apart)
    return 0;
}

static int parse_rule(struct fault_rule *rule, unsigned index, const json_t *json, struct tv_error *err)
{
    const char *key;
    json_t *value;
    *rule = (struct fault_rule){.ops = ~0u};
    if (!json_is_object(json))
        return bad(index, "must be an object", err);
    int r = 0;
    json_object_foreach((json_t *)json, key, value) if (!r) r = parse_member(rule, index, key, value, err);
    return r ? r : check(rule, index, json, err);
}

int fault_rules_parse(struct fault_rules *rules, const json_t *json, struct tv_error *err)
{
    struct fault_rules parsed = {0};
    if (json && (!json_is_array(json) || json_array_size(json) > FAULT_RULES_MAX))
        return tv_error_set(err, -EINVAL, "\"rules\" must be a list of at most %d", FAULT_RULES_MAX);
    for (; parsed.n < json_array_size(json); parsed.n++) {
        int r = parse_rule(&parsed.list[parsed.n], parsed.n, json_array_get(json, parsed.n), err);
        if (r)
            return r;
    }
    *rules = parsed;
    return 0;
}

// ---- asking them ----

static bool matches(const struct fault_rule *rule, const struct volume_request *request)
{
    if (!(rule->ops >> request->op & 1))
        return false;
    if (!rule->has_range)
        return true;
    return request->offset_bytes < rule->end_bytes && rule->offset_bytes < request->offset_bytes + request->len_bytes;
}

// Xorshift (Marsaglia 2003): good enough for dice.
static uint64_t throw(struct fault_rule * rule)
{
    rule->random ^= rule->random << 13;
    rule->random ^= rule->random >> 7;
    rule->random ^= rule->random << 17;
    return rule->random;
}

static bool is_its_turn(struct fault_rule *rule)
{
    rule->matched++;
    if (rule->struck == rule->times)
        return false;
    if (rule->nth)
        return rule->matched == rule->nth;
    if (rule->per_million)
        return (throw(rule) >> 20) % MILLION < rule->per_million;
    return rule->matched % rule->every == 0;
}

const struct fault_rule *fault_rules_find(struct fault_rules *rules, const struct volume_request *request)
{
    for (unsigned i = 0; i < rules->n; i++) {
        struct fault_rule *rule = &rules->list[i];
        if (!matches(rule, request) || !is_its_turn(rule))
            continue;
        rule->struck++;
        return rule;
    }
    return NULL;
}

json_t *fault_rules_describe(const struct fault_rules *rules)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < rules->n; i++)
        json_array_append_new(list, json_pack("{s:I, s:I}", "matched", (json_int_t)rules->list[i].matched, "struck",
                                              (json_int_t)rules->list[i].struck));
    return list;
}
