// Admission of promises to the store's device: see admission.h.
#include "store/admission.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const struct promise_capacity device = {.name = "the device", .share_max = ADMISSION_SHARE_MAX};

// A disk as admission sees it: without what is taken on trust.
struct entry {
    char label[STORE_NAME_MAX + 8];
    struct promise_set set;
};

static uint64_t by_the_second(uint64_t amount, uint64_t time_ns)
{
    return (uint64_t)((unsigned __int128)amount * NS_PER_S / time_ns);
}

void admission_alone(const struct disk *disk, uint64_t alone[static PROMISE_METRICS])
{
    const struct disk_usage *u = &disk->promised.measured;
    if (u->requests < ADMISSION_REQUESTS_LEAST || !u->device_ns)
        return;
    alone[PROMISE_BANDWIDTH] = by_the_second(u->bytes, u->device_ns);
    alone[PROMISE_OPERATIONS] = by_the_second(u->requests, u->device_ns);
}

static bool needs_measure(const struct promise *p)
{
    return p->kind == PROMISE_RESERVE && (p->metric == PROMISE_BANDWIDTH || p->metric == PROMISE_OPERATIONS);
}

bool admission_is_proven(const struct disk *disk, const struct promise *p)
{
    uint64_t alone[PROMISE_METRICS] = {0};
    admission_alone(disk, alone);
    return !needs_measure(p) || alone[p->metric];
}

static void describe(struct promise_holder *holder, struct entry *entry, const struct disk *disk, const struct promise_set *set,
                     json_t *unproven)
{
    *holder = (struct promise_holder){.name = entry->label, .set = &entry->set};
    admission_alone(disk, holder->alone);
    snprintf(entry->label, sizeof(entry->label), "disk '%s'", disk->name);
    entry->set = (struct promise_set){.resource = PROMISE_DISK};
    for (unsigned i = 0; i < set->n; i++) {
        char text[PROMISE_TEXT_MAX];
        const struct promise *p = &set->list[i];
        if (!needs_measure(p) || holder->alone[p->metric])
            entry->set.list[entry->set.n++] = *p;
        else if (unproven)
            json_array_append_new(unproven, json_pack("{s:s, s:s}", "name", disk->name, "promise", promise_format(p, text)));
    }
}

static const struct admission_change *change_of(const struct disk *disk, const struct admission_change *changes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (changes[i].disk == disk)
            return &changes[i];
    return NULL;
}

static bool asks_for_more(const struct admission_change *change)
{
    struct promise_holder before, after;
    struct entry entries[2];
    describe(&before, &entries[0], change->disk, &change->disk->promised.set, NULL);
    describe(&after, &entries[1], change->disk, &change->set, NULL);
    return promise_need(&after) > promise_need(&before);
}

// The disks as they are to be: those that change, and the others.
static size_t list_holders(const struct store *store, const struct admission_change *changes, size_t n,
                           struct promise_holder *holders, struct entry *entries, json_t *unproven)
{
    size_t n_holders = 0;
    for (size_t i = 0; i < n; i++, n_holders++)
        describe(&holders[n_holders], &entries[n_holders], changes[i].disk, &changes[i].set, unproven);
    for (const struct disk *disk = store->disks; disk; disk = disk->next)
        if (!change_of(disk, changes, n)) {
            describe(&holders[n_holders], &entries[n_holders], disk, &disk->promised.set, NULL);
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

int admission_check(const struct store *store, const struct admission_change *changes, size_t n, json_t *unproven,
                    struct tv_error *err)
{
    const size_t most = count_disks(store) + n;
    struct promise_holder *holders = calloc(most, sizeof(*holders));
    struct entry *entries = calloc(most, sizeof(*entries));
    int r = holders && entries ? 0 : tv_error_set(err, -ENOMEM, "promises: out of memory");
    bool more = false;
    for (size_t i = 0; i < n && !r; i++)
        more |= asks_for_more(&changes[i]);
    if (!r) {
        const size_t n_holders = list_holders(store, changes, n, holders, entries, unproven);
        r = more ? promise_admit(&device, holders, n_holders, err) : 0;
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
        describe(&holder, &entry, disk, &disk->promised.set, NULL);
        sum += promise_need(&holder);
    }
    return sum;
}
