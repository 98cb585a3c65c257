// Admission: see admit.h.
#include "promise/admit.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef unsigned __int128 u128;

enum { MILLION = 1000000, TERMS_SHOWN = 4, SUM_TEXT_MAX = 320 };

static uint64_t saturated(u128 value)
{
    return value > UINT64_MAX ? UINT64_MAX : (uint64_t)value;
}

static uint64_t need_of(const struct promise_holder *holder, const struct promise *p)
{
    const uint64_t alone = holder->alone[p->metric];
    if (p->metric == PROMISE_UTILIZATION)
        return p->value;
    if (p->metric == PROMISE_LATENCY)
        return holder->latency_need;
    return alone ? saturated(((u128)p->value * MILLION + alone - 1) / alone) : 0;
}

static bool takes_time(const struct promise_holder *holder, const struct promise *p)
{
    return p->kind == PROMISE_RESERVE && (p->metric != PROMISE_LATENCY || holder->latency_need);
}

// The reserve that needs most; NULL when there is none.
static const struct promise *decisive(const struct promise_holder *holder)
{
    const struct promise *most = NULL;
    for (unsigned i = 0; i < holder->set->n; i++) {
        const struct promise *p = &holder->set->list[i];
        if (takes_time(holder, p) && (!most || need_of(holder, p) > need_of(holder, most)))
            most = p;
    }
    return most;
}

uint64_t promise_need(const struct promise_holder *holder)
{
    const struct promise *p = decisive(holder);
    return p ? need_of(holder, p) : 0;
}

static u128 sum_of_needs(const struct promise_holder *holders, size_t n)
{
    u128 sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += promise_need(&holders[i]);
    return sum;
}

uint32_t promise_fit(const struct promise_capacity *capacity, const struct promise_holder *holders, size_t n)
{
    const u128 sum = sum_of_needs(holders, n);
    return sum <= capacity->share_max ? MILLION : (uint32_t)((u128)capacity->share_max * MILLION / sum);
}

// ---- what each promise needs by itself

static int check_holder(const struct promise_capacity *capacity, const struct promise_holder *holder, struct tv_error *err)
{
    char text[PROMISE_TEXT_MAX], floor[PROMISE_TEXT_MAX];
    for (unsigned i = 0; i < holder->set->n; i++) {
        const struct promise *p = &holder->set->list[i];
        const uint64_t alone = holder->alone[p->metric];
        if (takes_time(holder, p) && p->metric != PROMISE_UTILIZATION && p->metric != PROMISE_LATENCY && !alone)
            return tv_error_set(
                err, -ENODATA,
                "%.64s: '%s': what %.64s does in this metric is not known yet: promise a percentage, or measure it first",
                holder->name, promise_format(p, text), capacity->name);
        if (p->metric == PROMISE_LATENCY && alone >= p->value)
            return tv_error_set(err, -EBUSY, "%.64s: '%s' cannot be kept: %.64s itself takes %s%s%.64s; promise more than that",
                                holder->name, promise_format(p, text), capacity->name,
                                promise_format_value(PROMISE_LATENCY, alone, floor), holder->latency_source ? " " : "",
                                holder->latency_source ? holder->latency_source : "");
    }
    return 0;
}

// ---- what they come to, for the message

// Whether all that is reserved is reserved in one metric by holders who would reach the same, so that it can be added up in it.
static const struct promise *common_metric(const struct promise_holder *holders, size_t n, uint64_t *alone)
{
    const struct promise *common = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct promise *p = decisive(&holders[i]);
        if (!p)
            continue;
        if (common && (p->metric != common->metric || holders[i].alone[p->metric] != *alone))
            return NULL;
        common = p;
        *alone = holders[i].alone[p->metric];
    }
    return common && common->metric != PROMISE_UTILIZATION && common->metric != PROMISE_LATENCY ? common : NULL;
}

struct sum_text {
    char text[SUM_TEXT_MAX];
    size_t used;
};

static void append(struct sum_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(struct sum_text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(t->text + t->used, sizeof(t->text) - t->used, format, args);
    va_end(args);
    t->used = n < 0 || (size_t)n >= sizeof(t->text) - t->used ? sizeof(t->text) - 1 : t->used + (size_t)n;
}

static void append_term(struct sum_text *t, const struct promise_holder *holder, bool with_share)
{
    char value[PROMISE_TEXT_MAX], share[PROMISE_TEXT_MAX];
    const struct promise *p = decisive(holder);
    if (p->metric == PROMISE_LATENCY)
        promise_format(p, value);
    else
        promise_format_value(p->metric, p->value, value);
    append(t, "%s%s (%.32s", t->used ? " + " : "", value, holder->name);
    if (with_share && p->metric != PROMISE_UTILIZATION)
        append(t, ": %s", promise_format_value(PROMISE_UTILIZATION, promise_need(holder), share));
    append(t, ")");
}

// Whether a holder comes before another: it needs more, or the same and stands further ahead.
static bool before(const struct promise_holder *holders, size_t a, size_t b)
{
    const uint64_t need_a = promise_need(&holders[a]), need_b = promise_need(&holders[b]);
    return need_a > need_b || (need_a == need_b && a < b);
}

// The largest terms, largest first; the number of others.
static size_t append_terms(struct sum_text *t, const struct promise_holder *holders, size_t n, bool with_share)
{
    size_t reserving = 0, last = n;
    for (size_t i = 0; i < n; i++)
        reserving += decisive(&holders[i]) != NULL;
    const size_t shown = reserving < TERMS_SHOWN ? reserving : TERMS_SHOWN;
    for (size_t term = 0; term < shown; term++) {
        size_t next = n;
        for (size_t i = 0; i < n; i++)
            if (decisive(&holders[i]) && (last == n || before(holders, last, i)) && (next == n || before(holders, i, next)))
                next = i;
        append_term(t, &holders[next], with_share);
        last = next;
    }
    return reserving - shown;
}

static int refuse(const struct promise_capacity *capacity, const struct promise_holder *holders, size_t n, struct tv_error *err)
{
    uint64_t alone = 0;
    const struct promise *common = common_metric(holders, n, &alone);
    const enum promise_metric metric = common ? common->metric : PROMISE_UTILIZATION;
    u128 sum = common ? 0 : sum_of_needs(holders, n);
    for (size_t i = 0; common && i < n; i++)
        sum += decisive(&holders[i]) ? decisive(&holders[i])->value : 0;
    const uint64_t most = common ? saturated((u128)alone * capacity->share_max / MILLION) : capacity->share_max;

    struct sum_text terms = {.used = 0};
    char total[PROMISE_TEXT_MAX], may[PROMISE_TEXT_MAX], share[PROMISE_TEXT_MAX], all[PROMISE_TEXT_MAX], less[PROMISE_TEXT_MAX];
    const size_t others = append_terms(&terms, holders, n, !common);
    if (others)
        append(&terms, " + %zu others", others);
    promise_format_value(metric, saturated(sum), total);
    promise_format_value(metric, most, may);
    promise_format_value(metric, saturated(sum - most), less);
    promise_format_value(PROMISE_UTILIZATION, capacity->share_max, share);
    if (!common)
        return tv_error_set(err, -EBUSY, "%.64s cannot keep %s = %s of its time: %s can be promised; reserve %s less",
                            capacity->name, terms.text, total, may, less);
    return tv_error_set(err, -EBUSY, "%.64s cannot keep %s = %s: %s can be promised, %s of its %s; reserve %s less", capacity->name,
                        terms.text, total, may, share, promise_format_value(metric, alone, all), less);
}

int promise_admit(const struct promise_capacity *capacity, const struct promise_holder *holders, size_t n, struct tv_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const int rc = check_holder(capacity, &holders[i], err);
        if (rc)
            return rc;
    }
    return sum_of_needs(holders, n) <= capacity->share_max ? 0 : refuse(capacity, holders, n, err);
}
