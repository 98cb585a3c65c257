// Admission of promises to the store's device: see admission.h.
#include "store/admission.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct promise_capacity device = {.name = "the device", .share_max = ADMISSION_SHARE_MAX};

#define PRIOR_TIMES 2u           // a disk of which nothing is known may reach twice what the best does that is known
#define LARGE_LEAST_BYTES 65536u // the mean request of a disk that shows what bandwidth there is
#define SMALL_MOST_BYTES 8192u   // and of one that shows how many requests there are
#define HALF 500u                // of 1000
#define MILLION 1000000u

// A disk as admission sees it: without what is taken on trust and nothing is known of.
struct entry {
    char label[STORE_NAME_MAX + 8];
    char source[STORE_NAME_MAX + 32];
    const struct disk *like; // by whose requests it is counted for want of its own; NULL: by its own
    struct promise_set set;
};

static uint64_t by_the_second(uint64_t amount, uint64_t time_ns)
{
    return (uint64_t)((unsigned __int128)amount * NS_PER_S / time_ns);
}

static bool is_measured(const struct disk *disk)
{
    const struct disk_usage *u = &disk->promised.measured;
    return u->requests >= ADMISSION_REQUESTS_LEAST && u->device_ns;
}

void admission_alone(const struct disk *disk, uint64_t alone[static PROMISE_METRICS])
{
    const struct disk_usage *u = &disk->promised.measured;
    if (!is_measured(disk))
        return;
    alone[PROMISE_BANDWIDTH] = by_the_second(u->bytes, u->device_ns);
    alone[PROMISE_OPERATIONS] = by_the_second(u->requests, u->device_ns);
}

static bool needs_measure(const struct promise *p)
{
    return p->kind == PROMISE_RESERVE && (p->metric == PROMISE_BANDWIDTH || p->metric == PROMISE_OPERATIONS);
}

// Whether the device takes less than a promised latency for so many of the disk's requests; false also where it is not known.
static bool is_quick_enough(const struct disk *disk, const struct promise *p)
{
    const uint64_t ns = device_time_of(&disk->promised.device_time, p->per_mille);
    return ns && ns < p->value;
}

bool admission_is_proven(const struct disk *disk, const struct promise *p)
{
    if (p->metric == PROMISE_LATENCY)
        return is_quick_enough(disk, p);
    return !needs_measure(p) || is_measured(disk);
}

// ---- what is not known of a disk, by what is known of others ----

static bool shows(const struct disk *disk, enum promise_metric metric)
{
    const struct disk_usage *u = &disk->promised.measured;
    const uint64_t mean_bytes = is_measured(disk) ? u->bytes / u->requests : 0;
    return is_measured(disk) && (metric == PROMISE_BANDWIDTH ? mean_bytes >= LARGE_LEAST_BYTES : mean_bytes <= SMALL_MOST_BYTES);
}

// The disk that reaches most alone; NULL: none is known.
static const struct disk *best_of(const struct store *store, enum promise_metric metric, uint64_t *most)
{
    const struct disk *best = NULL;
    for (const struct disk *disk = store->disks; disk; disk = disk->next) {
        uint64_t alone[PROMISE_METRICS] = {0};
        admission_alone(disk, alone);
        if (!shows(disk, metric) || alone[metric] <= *most)
            continue;
        *most = alone[metric];
        best = disk;
    }
    return best;
}

// The disk for the quicker half of whose requests the device takes least; NULL: none is known.
static const struct disk *quickest_of(const struct store *store, uint64_t *least_ns)
{
    const struct disk *quickest = NULL;
    for (const struct disk *disk = store->disks; disk; disk = disk->next) {
        const uint64_t ns = device_time_of(&disk->promised.device_time, HALF);
        if (!ns || (quickest && ns >= *least_ns))
            continue;
        *least_ns = ns;
        quickest = disk;
    }
    return quickest;
}

static void note(json_t *unproven, const struct disk *disk, const struct promise *p, const char *because)
{
    char text[PROMISE_TEXT_MAX];
    if (unproven)
        json_array_append_new(
            unproven, json_pack("{s:s, s:s, s:s}", "name", disk->name, "promise", promise_format(p, text), "because", because));
}

// A reserve in bytes or requests. False: it counts as nothing.
static bool describe_reserve(struct promise_holder *holder, struct entry *entry, const struct disk *disk, const struct promise *p,
                             json_t *unproven)
{
    char because[256], share[PROMISE_TEXT_MAX];
    if (holder->alone[p->metric])
        return true;
    uint64_t most = 0;
    const struct disk *best = best_of(disk->store, p->metric, &most);
    if (!best) {
        note(unproven, disk, p, "what the device does with such requests is not known yet; it counts as nothing");
        return false;
    }
    holder->alone[p->metric] = most * PRIOR_TIMES;
    entry->like = best;
    const struct promise_set one = {.resource = PROMISE_DISK, .n = 1, .list = {*p}};
    const struct promise_holder alone = {
        .set = &one,
        .alone = {
            [PROMISE_BANDWIDTH] = holder->alone[PROMISE_BANDWIDTH], [PROMISE_OPERATIONS] = holder->alone[PROMISE_OPERATIONS]}};
    snprintf(because, sizeof(because),
             "what its requests take of the device is not known yet; it counts with %s of the time, as if it reached twice what "
             "disk '%s' does",
             promise_format_value(PROMISE_UTILIZATION, promise_need(&alone), share), best->name);
    note(unproven, disk, p, because);
    return true;
}

// What it takes at least: the share of the time that it has had, or, where its requests need not be done as soon as they were, as
// much less (Little's law: of as many at once, fewer are done). More may be needed, and nobody knows: whether more come when more
// are done is the guest's affair.
static uint64_t latency_need(const struct disk *disk, const struct promise *p)
{
    const struct disk_promises *d = &disk->promised;
    const uint64_t mean_ns = d->measured.requests ? d->measured.latency_ns / d->measured.requests : 0;
    if (!is_measured(disk) || !d->measured_ns)
        return 0;
    uint64_t need = (uint64_t)((unsigned __int128)d->measured.device_ns * MILLION / d->measured_ns);
    need = (need < MILLION ? need : MILLION) * ADMISSION_SHARE_MAX / MILLION; // who has all is refused beside others alone
    return mean_ns < p->value ? (uint64_t)((unsigned __int128)need * mean_ns / p->value) : need;
}

// What takes that long for every other request can be done about by nobody. What takes it for some may be due to what others do,
// and become better when they are held back: that is tried, and told.
static void note_latency(const struct disk *disk, const struct promise *p, const struct disk *quickest, uint64_t half_ns,
                         json_t *unproven)
{
    char because[256], text[PROMISE_TEXT_MAX];
    const uint64_t ns = device_time_of(&disk->promised.device_time, p->per_mille);
    if (is_quick_enough(disk, p))
        return;
    if (ns)
        snprintf(because, sizeof(because),
                 "for some of its requests the device takes %s now; others are held back as far as it helps",
                 promise_format_value(PROMISE_LATENCY, ns, text));
    else if (quickest)
        snprintf(because, sizeof(because),
                 "how long the device takes for its requests is not known yet; for half of those of disk '%s' %s", quickest->name,
                 promise_format_value(PROMISE_LATENCY, half_ns, text));
    else
        snprintf(because, sizeof(because), "how long the device takes while it is busy is not known yet");
    note(unproven, disk, p, because);
}

// `is_new`: it is promised now, and not before; what was taken once is not refused for another's sake.
static void describe_latency(struct promise_holder *holder, struct entry *entry, const struct disk *disk, const struct promise *p,
                             bool is_new, json_t *unproven)
{
    uint64_t half_ns = device_time_of(&disk->promised.device_time, HALF);
    const struct disk *quickest = half_ns ? disk : quickest_of(disk->store, &half_ns);
    holder->latency_need = latency_need(disk, p);
    holder->alone[PROMISE_LATENCY] = is_new ? half_ns : 0;
    holder->latency_source = entry->source;
    snprintf(entry->source, sizeof(entry->source), quickest == disk ? "for half of its requests" : "for half of those of disk '%s'",
             quickest ? quickest->name : "");
    note_latency(disk, p, quickest, half_ns, unproven);
}

static void describe(struct promise_holder *holder, struct entry *entry, const struct disk *disk, const struct promise_set *set,
                     bool is_new, json_t *unproven)
{
    *holder = (struct promise_holder){.name = entry->label, .set = &entry->set};
    admission_alone(disk, holder->alone);
    snprintf(entry->label, sizeof(entry->label), "disk '%s'", disk->name);
    entry->like = NULL;
    entry->set = (struct promise_set){.resource = PROMISE_DISK};
    for (unsigned i = 0; i < set->n; i++) {
        const struct promise *p = &set->list[i];
        bool counts = true;
        if (needs_measure(p))
            counts = describe_reserve(holder, entry, disk, p, unproven);
        else if (p->metric == PROMISE_LATENCY)
            describe_latency(holder, entry, disk, p, is_new, unproven);
        if (counts)
            entry->set.list[entry->set.n++] = *p;
    }
}

static const struct admission_change *change_of(const struct disk *disk, const struct admission_change *changes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (changes[i].disk == disk)
            return &changes[i];
    return NULL;
}

static bool is_tighter(const struct promise_set *after, const struct promise_set *before)
{
    const struct promise *a = promise_set_find(after, PROMISE_RESERVE, PROMISE_LATENCY);
    const struct promise *b = promise_set_find(before, PROMISE_RESERVE, PROMISE_LATENCY);
    return a && (!b || a->value < b->value || a->per_mille > b->per_mille);
}

static bool asks_for_more(const struct admission_change *change)
{
    const struct promise_set *set = &change->disk->promised.set;
    struct promise_holder before, after;
    struct entry entries[2];
    describe(&before, &entries[0], change->disk, set, false, NULL);
    describe(&after, &entries[1], change->disk, &change->set, true, NULL);
    return promise_need(&after) > promise_need(&before) || is_tighter(&change->set, set);
}

// The disks as they are to be: those that change, and the others.
static size_t list_holders(const struct store *store, const struct admission_change *changes, size_t n,
                           struct promise_holder *holders, struct entry *entries, json_t *unproven)
{
    size_t n_holders = 0;
    for (size_t i = 0; i < n; i++, n_holders++)
        describe(&holders[n_holders], &entries[n_holders], changes[i].disk, &changes[i].set,
                 is_tighter(&changes[i].set, &changes[i].disk->promised.set), unproven);
    for (const struct disk *disk = store->disks; disk; disk = disk->next)
        if (!change_of(disk, changes, n)) {
            describe(&holders[n_holders], &entries[n_holders], disk, &disk->promised.set, false, NULL);
            n_holders++;
        }
    return n_holders;
}

static size_t count_disks(const struct store *store)
{
    size_t n = 0;
    for (const struct disk *disk = store->disks; disk; disk = disk->next)
        n++;
    return n;
}

// How a disk was counted of which nothing is known.
static int explain(const struct entry *entries, size_t n, struct tv_error *err)
{
    for (size_t i = 0; err && i < n; i++) {
        const size_t used = strlen(err->text);
        if (!entries[i].like)
            continue;
        snprintf(err->text + used, sizeof(err->text) - used,
                 "; %s has done too little to be measured, and counts as if it reached "
                 "twice what disk '%s' does",
                 entries[i].label, entries[i].like->name);
        break;
    }
    return -EBUSY;
}

int admission_check(const struct store *store, const struct admission_change *changes, size_t n, json_t *unproven,
                    struct tv_error *err)
{
    const size_t most = count_disks(store) + n;
    struct promise_holder *holders = calloc(most, sizeof(*holders));
    struct entry *entries = calloc(most, sizeof(*entries));
    bool more = false;
    int r = 0;
    for (size_t i = 0; i < n; i++)
        more |= asks_for_more(&changes[i]);
    if (holders && entries) {
        const size_t n_holders = list_holders(store, changes, n, holders, entries, unproven);
        r = more ? promise_admit(&device, holders, n_holders, err) : 0;
        if (r == -EBUSY && promise_fit(&device, holders, n_holders) < MILLION)
            r = explain(entries, n, err);
    } else {
        r = tv_error_set(err, -ENOMEM, "promises: out of memory");
    }
    free(holders);
    free(entries);
    return r;
}

uint64_t admission_need(const struct store *store)
{
    uint64_t sum = 0;
    for (const struct disk *disk = store->disks; disk; disk = disk->next) {
        struct promise_holder holder;
        struct entry entry;
        describe(&holder, &entry, disk, &disk->promised.set, false, NULL);
        sum += promise_need(&holder);
    }
    return sum;
}
