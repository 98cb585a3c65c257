// The watch's own structures. Private to the folder: watch.c has the holders and windows, judge.c the arithmetic of a window,
// watch_state.c saves and loads.
#pragma once

#include "promise/record.h"
#include "promise/share.h"

#define NOBODY UINT32_MAX // no slot: the resource itself

// One promise and what has become of it. Invariant: while kept, lack, held, by_resource and good_windows are 0, and held_by is
// empty.
struct track {
    struct promise promise;
    bool kept, owed;
    uint64_t since_ns;
    uint32_t good_windows; // so many in a row, since good_ns, while it is broken
    uint64_t good_ns;      // the begin of the first of them
    uint64_t goal, achieved;
    uint32_t lack, held;
    bool by_resource;
    char held_by[PROMISE_NAME_MAX];
    struct promise_breach last;
    struct record record;
    uint32_t place; // of archive.c: where the archive has it; 0: not known
};

struct holder {
    char name[PROMISE_NAME_MAX];
    struct promise_set set;
    uint64_t begin_ns; // of its window: the watch's, or later when it joined or was changed within it
    struct promise_sample got;
    struct track tracks[]; // set.n
};

// The two holders with most of the resource's time beyond something, the larger first: one of them may be the one that lacks it.
struct excess {
    uint32_t slot[2];
    uint64_t time_ns[2];
};

struct promise_watch {
    struct promise_watch_options options;
    uint64_t begin_ns;       // of the window
    struct holder **holders; // options.holders_max; NULL: the slot is free
    // Of the window that is judged:
    struct share *shares; // by slot; `given` is 0 of who was not there all the time
    struct excess beyond_reserve, beyond_share;
    uint64_t used_ns; // by all
};

// What a window says of one promise; lack, held_by, held and by_resource mean something only when it was not kept.
struct finding {
    bool owed, kept;
    uint64_t goal, achieved;
    uint32_t lack, held_by, held;
    bool by_resource;
};

const char *name_of(const struct promise_watch *w, uint32_t slot);                              // "" of NOBODY
struct holder *holder_create(const char *name, const struct promise_set *set, uint64_t now_ns); // NULL: out of memory

// Adds up what all holders had in the window that ends now, and divides it into shares.
void judge_begin(struct promise_watch *w, uint64_t now_ns);
// Whether its window is long enough to be judged; else it goes on in the next one.
bool judge_is_due(const struct promise_watch *w, const struct holder *h, uint64_t now_ns);
struct finding judge(const struct promise_watch *w, uint32_t slot, const struct promise *p, uint64_t now_ns);
