// What a volume has to do for itself, in pieces: each is done when its disk's turn comes, as if it was a request of the disk's, so
// that the promises to other disks hold meanwhile. The store's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct volume_chore {
    uint64_t len_bytes;                        // how much of the disk it is about
    void (*start)(struct volume_chore *chore); // ends by calling done(), never from inside
    void (*done)(struct volume_chore *chore);  // of whoever started it
    void *arg;                                 // of whoever started it
    struct volume_chore *next;                 // of those that wait
};

// Of one disk. A chore that was added stays where it is until its start() was called, or it was removed.
struct volume_chores {
    struct volume_chore *first, **tail;
    bool has_users;          // there is a volume that may have some
    void (*wake)(void *arg); // there is one; NULL: nobody does them now
    void *arg;
};

static inline void volume_chores_add(struct volume_chores *chores, struct volume_chore *chore)
{
    if (!chores->first)
        chores->tail = &chores->first;
    chore->next = NULL;
    *chores->tail = chore;
    chores->tail = &chore->next;
    if (chores->wake)
        chores->wake(chores->arg);
}

static inline struct volume_chore *volume_chores_take(struct volume_chores *chores) // NULL: there is none
{
    struct volume_chore *chore = chores->first;
    if (chore)
        chores->first = chore->next;
    return chore;
}

static inline void volume_chores_remove(struct volume_chores *chores, const struct volume_chore *chore) // or it is not there
{
    struct volume_chore **at = &chores->first;
    while (*at && *at != chore)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = chore->next;
    if (!*at)
        chores->tail = at;
}
