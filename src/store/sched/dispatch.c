// What the schedulers share: their list, and the check of terms. See dispatch.h.
#include "store/sched/dispatch.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

const struct dispatch_terms dispatch_no_terms = {.weight = DISPATCH_WEIGHT_DEFAULT};

static const struct dispatch_ops *const all[] = {&dispatch_fifo, &dispatch_sfq, &dispatch_drr, &dispatch_mclock, &dispatch_oios};
const char dispatch_names[] = "fifo, sfq, drr, mclock, oios";

const struct dispatch_ops *dispatch_find(const char *name)
{
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (!strcmp(all[i]->name, name))
            return all[i];
    return NULL;
}

const struct dispatch_ops *dispatch_parse(const char *text, unsigned *window)
{
    char name[16];
    const char *colon = strchr(text, ':');
    char *end = NULL;
    if (!colon)
        return dispatch_find(text);
    const unsigned long depth = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end || !depth || depth > *window || (size_t)(colon - text) >= sizeof(name))
        return NULL;
    memcpy(name, text, (size_t)(colon - text));
    name[colon - text] = 0;
    const struct dispatch_ops *ops = dispatch_find(name);
    if (!ops || ops == &dispatch_oios)
        return NULL;
    *window = (unsigned)depth;
    return ops;
}

uint64_t dispatch_never_wakes(const struct dispatcher *d)
{
    (void)d;
    return UINT64_MAX;
}

static int check_pair(const char *unit, uint64_t reserve, uint64_t limit, struct tv_error *err)
{
    if (limit && reserve > limit)
        return tv_error_set(err, -EINVAL, "a reservation of %llu %s is above the limit of %llu; lower it, or raise the limit",
                            (unsigned long long)reserve, unit, (unsigned long long)limit);
    return 0;
}

static int check_meaning(const struct dispatch_terms *terms, struct tv_error *err)
{
    const struct dispatch_rates *reserve = &terms->reserve, *limit = &terms->limit;
    if (!terms->weight || terms->weight > DISPATCH_WEIGHT_MAX)
        return tv_error_set(err, -EINVAL, "weight %u: must be 1 to %u", terms->weight, DISPATCH_WEIGHT_MAX);
    if (reserve->device_ppm > 1000000 || limit->device_ppm > 1000000)
        return tv_error_set(err, -EINVAL, "more than the whole device is promised to one disk; at most 1000000 ppm can be");
    if (terms->latency_ns && (!terms->latency_permille || terms->latency_permille > 999))
        return tv_error_set(err, -EINVAL, "latency at %u of 1000 requests: must be 1 to 999", terms->latency_permille);
    int r = check_pair("bytes/s", reserve->bytes_per_s, limit->bytes_per_s, err);
    if (!r)
        r = check_pair("requests/s", reserve->ops_per_s, limit->ops_per_s, err);
    return r ? r : check_pair("ppm of the device", reserve->device_ppm, limit->device_ppm, err);
}

int dispatch_check_terms(const struct dispatch_ops *ops, const struct dispatch_terms *terms, unsigned known, struct tv_error *err)
{
    const struct dispatch_rates *reserve = &terms->reserve, *limit = &terms->limit;
    const char *what = NULL;
    int r = check_meaning(terms, err);
    if (r)
        return r;
    if (!(known & DISPATCH_KNOWS_WEIGHT) && terms->weight != DISPATCH_WEIGHT_DEFAULT)
        what = "weights";
    if (!(known & DISPATCH_KNOWS_RATES) && (reserve->bytes_per_s || reserve->ops_per_s || limit->bytes_per_s || limit->ops_per_s))
        what = "reservations and limits";
    if (!(known & DISPATCH_KNOWS_DEVICE) && (reserve->device_ppm || limit->device_ppm))
        what = "shares of the device's time";
    if (!(known & DISPATCH_KNOWS_LATENCY) && terms->latency_ns)
        what = "latencies";
    if (what)
        return tv_error_set(err, -EOPNOTSUPP, "the scheduler '%s' holds no %s; 'oios' does", ops->name, what);
    return 0;
}
