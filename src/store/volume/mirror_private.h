// The parts of a mirror: mirror.c is its life, mirror_assemble.c which legs make it up, mirror_request.c what is read and changed,
// mirror_commit.c what its legs are told of each other, mirror_copy.c how they become equal again.
#pragma once

#include "store/volume/mirror.h"

#define MIRROR_COPIES 2u // regions that are made equal at the same time

struct mirror;

// ---- which legs make it up: pure logic ----

enum mirror_state {
    MIRROR_IN_SYNC,
    MIRROR_SYNCING, // is written to, and not read
    MIRROR_OUT,     // failed
};

struct mirror_found { // of one volume
    bool has_header;
    struct mirror_header header;
    uint64_t leg_bytes;
    char problem[128]; // why it has none
};

struct mirror_plan {
    struct mirror_header header; // what counts
    struct {
        unsigned index;
        enum mirror_state state;
    } legs[MIRROR_LEGS_MAX];
    bool syncs_all; // one of them needs everything, not only what the map says
};

int mirror_assemble(const struct mirror_found *found, unsigned n, const struct mirror_options *options, struct mirror_plan *plan,
                    struct tv_error *err);

// ---- the mirror ----

struct mirror_leg {
    struct mirror *mirror;
    struct volume *volume;
    unsigned index; // its number in the set
    enum mirror_state state;
    unsigned n_reading, n_read_errors;
    uint64_t read_end_bytes;    // of the last one that was started
    struct volume_request meta; // of the commit
    struct iovec meta_iov;
    uint8_t *page; // its header
    int meta_result;
};

struct mirror_lane {
    struct volume_request child;
    struct mirror_op *op;
    bool used;
    int result;
};

// A request, in its context; the lanes' contexts behind it.
struct mirror_op {
    struct mirror *mirror;
    struct volume_request *request;
    struct mirror_op *next, *prev;                       // of the active
    struct mirror_op *link;                              // of those that wait
    void (*next_step)(struct mirror_op *op, int result); // after a commit
    unsigned n_pending;
    unsigned tried; // bits of legs that could not be read
    int result;
    struct mirror_lane lanes[];
};

struct mirror_list {
    struct mirror_op *first, **tail;
};

// One region that is made equal, piece by piece.
struct mirror_copy {
    struct volume_chore chore;
    struct mirror *mirror;
    bool is_active, is_locked; // locked: no write to the piece is started
    bool is_spoiled;           // the region is not equal when it is done: it could not be read, or a write failed meanwhile
    uint64_t region, at_bytes, len_bytes;
    unsigned n_before; // writes to the piece that were under way before
    unsigned source, tried, n_pending;
    uint8_t *buffer; // BOUNCE_BYTES
    struct iovec iov;
    struct mirror_piece {
        struct volume_request request;
        struct mirror_copy *copy;
        int result;
    } pieces[MIRROR_LEGS_MAX];
};

struct mirror {
    struct volume volume;
    struct mirror_leg legs[MIRROR_LEGS_MAX];
    unsigned n;
    struct mirror_header header; // as the legs have it, or will after the commit
    size_t child_context_bytes;
    uint8_t *contexts, *pages, *buffers; // of its own requests, of the legs' headers, of the copies
    unsigned next_read;                  // whose turn it is
    // Bits of regions. `stored`: is in the legs' maps. `wanted`: is to be. `unsynced`: legs may differ. `touched`: was written to
    // since the last look. `clearing`: is to go from the maps.
    uint64_t n_regions, n_unsynced, n_wanted;
    uint64_t *stored, *wanted, *unsynced, *touched, *clearing;
    unsigned dirty_pages;       // bits: pages of the map that differ from what the legs have
    uint8_t *map;               // pages as they are being written
    struct mirror_op *active;   // changes under way, in no order
    struct mirror_list waiting; // for a copy to end
    // One commit at a time; who comes meanwhile gets the next one.
    bool committing, wants_commit, wants_join, header_is_dirty, tells_header, cleans;
    unsigned joining, told; // bits of legs: to be in sync after it; of the step under way
    unsigned told_pages, n_telling;
    void (*after_told)(struct mirror *m, bool good);
    struct mirror_list in_commit, for_commit;
    struct loop_source *timer;
    bool is_ticking, stops;
    struct volume_chores *chores;
    struct mirror_copy copies[MIRROR_COPIES];
    uint64_t cursor; // regions before it are equal, are being made so, or cannot be
    // Regions that cannot be made equal now, for want of room say, are tried again by one of them, each in turn.
    bool is_probing, told_unequal;
    uint64_t next_probe;
};

unsigned mirror_attached(const struct mirror *m);       // bits of legs that are written to
unsigned mirror_in_sync(const struct mirror *m);        // and read
unsigned mirror_primary(const struct mirror *m);        // the first in sync: there always is one
bool mirror_headers_are_stable(const struct mirror *m); // they tell who is in sync
bool mirror_is_whole(const struct mirror *m);           // all legs of the set are here and in sync
// It is left out; the commit that is to follow makes it so. False: nobody else is in sync, and it stays.
bool mirror_leg_fail(struct mirror *m, unsigned leg, int result);

// Bits from `first` up to `end`.
bool mirror_bits_all(const uint64_t *bits, uint64_t first, uint64_t end);
uint64_t mirror_bits_set(uint64_t *bits, uint64_t first, uint64_t end); // how many were not
uint64_t mirror_bits_next(const uint64_t *bits, uint64_t first, uint64_t end);
static inline uint64_t mirror_first_region(const struct mirror *m, const struct volume_request *request)
{
    return request->offset_bytes / m->header.region_bytes;
}
static inline uint64_t mirror_end_region(const struct mirror *m, const struct volume_request *request)
{
    return (request->offset_bytes + request->len_bytes - 1) / m->header.region_bytes + 1;
}

// mirror_request.c
void mirror_start(struct volume *volume, struct volume_request *request);
void mirror_go_on(struct mirror *m); // a copy has ended: who waited for it
void mirror_list_add(struct mirror_list *list, struct mirror_op *op);
struct mirror_op *mirror_list_take_all(struct mirror_list *list);

// mirror_commit.c
// The maps have all that is wanted, and the headers who is in sync, durably; then op->next_step(). NULL: nobody waits.
void mirror_commit(struct mirror *m, struct mirror_op *op);
void mirror_clean(struct mirror *m); // what is not touched any more goes from the maps, as far as it is stable
void mirror_tick(struct mirror *m);  // have mirror_clean() and mirror_copy_again() called in a while
int mirror_load_map(struct mirror *m, unsigned leg, uint8_t *buffer); // adds to what is wanted

// mirror_copy.c
void mirror_mark_unsynced(struct mirror *m, uint64_t first, uint64_t end);
void mirror_copy_on(struct mirror *m);    // starts what is to be done
void mirror_copy_again(struct mirror *m); // tries what could not be done
bool mirror_copy_locks(const struct mirror *m, const struct volume_request *request);
void mirror_copy_passed(struct mirror *m, const struct volume_request *request); // one that was active is done
void mirror_copy_stop(struct mirror *m);                                         // what has not begun
bool mirror_copy_is_on(const struct mirror *m);                                  // something has begun and not ended
