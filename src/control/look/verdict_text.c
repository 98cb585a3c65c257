// Verdicts in words: see verdict_text.h.
#include "control/look/verdict_text.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static void format_value(const json_t *verdict, const char *key, char value[static 32])
{
    const char *unit = text(verdict, "unit");
    const double number = json_number_value(json_object_get(verdict, key));
    if (strcmp(unit, "bytes/s") == 0)
        snprintf(value, 32, "%.1fMB/s", number / 1e6);
    else if (strcmp(unit, "requests/s") == 0)
        snprintf(value, 32, "%.0f iops", number);
    else if (strcmp(unit, "bits/s") == 0)
        snprintf(value, 32, "%.1fMbit/s", number / 1e6);
    else if (strcmp(unit, "packets/s") == 0)
        snprintf(value, 32, "%.0f pps", number);
    else
        snprintf(value, 32, "%.1f%%%s", number / 1e4, strcmp(unit, "ppm of requests") == 0 ? " late" : "");
}

static void format_time(const json_t *object, const char *key, char value[static 32])
{
    const json_int_t s = json_integer_value(json_object_get(object, key)) / 1000;
    if (s < 120)
        snprintf(value, 32, "%llds", (long long)s);
    else if (s < 7200)
        snprintf(value, 32, "%lldm", (long long)s / 60);
    else
        snprintf(value, 32, "%lldh", (long long)s / 3600);
}

static void format_verdict(const json_t *v, char value[static 48])
{
    if (!json_is_true(json_object_get(v, "kept")))
        snprintf(value, 48, "BROKEN by %.1f%%", json_number_value(json_object_get(v, "lack_ppm")) / 1e4);
    else
        snprintf(value, 48, "%s%s", json_is_true(json_object_get(v, "owed")) ? "kept" : "kept, idle",
                 json_is_false(json_object_get(v, "proven")) ? ", on trust" : "");
}

// Rounded down: what was broken at all is not 100 %.
static void format_share(const json_t *verdict, const char *key, char value[static 48])
{
    const json_t *ppm = json_object_get(json_object_get(verdict, key), "kept_ppm");
    snprintf(value, 48, "-");
    if (json_is_integer(ppm))
        snprintf(value, 48, "%lld.%02lld%%", json_integer_value(ppm) / 10000, json_integer_value(ppm) % 10000 / 100);
}

static const char *holder_of(const json_t *object)
{
    if (json_is_true(json_object_get(object, "by_device")))
        return "the device itself";
    return text(object, "held_by")[0] ? text(object, "held_by") : "nobody";
}

static void format_last(const json_t *v, struct verdict_text *t)
{
    char ago[32], lasted[32];
    const json_t *last = json_object_get(v, "last_broken");
    snprintf(t->last, sizeof(t->last), "%s", t->who);
    if (!json_is_true(json_object_get(v, "kept")) || !json_is_object(last))
        return;
    format_time(last, "ago_ms", ago);
    format_time(last, "broken_ms", lasted);
    snprintf(t->last, sizeof(t->last), "%s ago, for %s by %.1f%%: %.64s", ago, lasted,
             json_number_value(json_object_get(last, "lack_ppm")) / 1e4, holder_of(last));
}

void verdict_format(const json_t *v, struct verdict_text *t)
{
    format_value(v, "achieved", t->achieved);
    format_value(v, "goal", t->goal);
    format_time(v, "for_ms", t->since);
    format_share(v, "hour", t->hour);
    format_share(v, "day", t->day);
    format_verdict(v, t->verdict);
    if (json_is_true(json_object_get(v, "kept")))
        snprintf(t->who, sizeof(t->who), "-");
    else if (json_is_true(json_object_get(v, "by_device")))
        snprintf(t->who, sizeof(t->who), "%s", holder_of(v));
    else
        snprintf(t->who, sizeof(t->who), "%s (%.1f%% of the time)", holder_of(v),
                 json_number_value(json_object_get(v, "held_ppm")) / 1e4);
    format_last(v, t);
}
