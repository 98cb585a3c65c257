// Promises as text: see promise.h. Of all ways to write a value exactly, the shortest; the plainer one where two are as short.
#include "promise/unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NUMBER_MAX = 40 };

// value / scale, exact: as a decimal fraction when scale is a power of ten. False when it has no such form.
static bool format_number(uint64_t value, uint64_t scale, bool decimal, char buf[static NUMBER_MAX])
{
    const uint64_t rest = value % scale;
    if (rest && !decimal)
        return false;
    if (!rest) {
        snprintf(buf, NUMBER_MAX, "%" PRIu64, value / scale);
        return true;
    }
    int digits = 0;
    for (uint64_t power = scale; power > 1; power /= 10)
        digits++;
    int n = snprintf(buf, NUMBER_MAX, "%" PRIu64 ".%0*" PRIu64, value / scale, digits, rest);
    while (buf[n - 1] == '0')
        buf[--n] = 0;
    return true;
}

static void keep_shorter(const struct unit *unit, const struct prefix *prefix, uint64_t value, char buf[static PROMISE_TEXT_MAX])
{
    char number[NUMBER_MAX], text[PROMISE_TEXT_MAX];
    if (!format_number(value, unit->factor * prefix->factor, !prefix->binary, number))
        return;
    snprintf(text, sizeof(text), "%s%s%s%s", number, prefix->text, unit->print == PRINT_SPACED ? " " : "", unit->text);
    if (!buf[0] || strlen(text) < strlen(buf))
        memcpy(buf, text, sizeof(text));
}

static bool may_print(const struct unit *unit, const struct prefix *prefix)
{
    if (prefix->factor == 1)
        return true;
    return prefix->printed && (unit->prefixes == PREFIX_BINARY || (unit->prefixes == PREFIX_DECIMAL && !prefix->binary));
}

const char *promise_format_value(enum promise_metric metric, uint64_t value, char buf[static PROMISE_TEXT_MAX])
{
    buf[0] = 0;
    for (size_t i = 0; i < promise_n_units; i++) {
        const struct unit *unit = &promise_units[i];
        if (unit->metric != metric || unit->print == PRINT_NEVER)
            continue;
        for (size_t j = 0; j < promise_n_prefixes; j++)
            if (may_print(unit, &promise_prefixes[j]))
                keep_shorter(unit, &promise_prefixes[j], value, buf);
    }
    if (strcmp(buf, "1 cores") == 0)
        strcpy(buf, "1 core");
    return buf;
}

const char *promise_format(const struct promise *p, char buf[static PROMISE_TEXT_MAX])
{
    char value[PROMISE_TEXT_MAX];
    if (p->kind == PROMISE_WEIGHT) {
        snprintf(buf, PROMISE_TEXT_MAX, "weight: %" PRIu64, p->value);
        return buf;
    }
    promise_format_value(p->metric, p->value, value);
    if (p->metric != PROMISE_LATENCY)
        snprintf(buf, PROMISE_TEXT_MAX, "%s: %.40s", promise_kind_names[p->kind], value);
    else if (p->per_mille % 10)
        snprintf(buf, PROMISE_TEXT_MAX, "latency: p%u.%u < %.30s", p->per_mille / 10, p->per_mille % 10, value);
    else
        snprintf(buf, PROMISE_TEXT_MAX, "latency: p%u < %.30s", p->per_mille / 10, value);
    return buf;
}

// Values of the same key stand in one entry: in a YAML mapping a key may stand but once.
static bool same_key(const struct promise *a, const struct promise *b)
{
    return a->kind == b->kind && a->metric != PROMISE_LATENCY && b->metric != PROMISE_LATENCY;
}

const char *promise_set_format(const struct promise_set *set, char buf[static PROMISE_SET_TEXT_MAX])
{
    size_t used = 0;
    buf[0] = 0;
    for (unsigned i = 0; i < set->n; i++) {
        char text[PROMISE_TEXT_MAX];
        const bool more = i && same_key(&set->list[i - 1], &set->list[i]);
        if (more)
            promise_format_value(set->list[i].metric, set->list[i].value, text);
        else
            promise_format(&set->list[i], text);
        const int n = snprintf(buf + used, PROMISE_SET_TEXT_MAX - used, "%s%s", more ? " and " : i ? ", " : "", text);
        used += (size_t)n;
    }
    return buf;
}
