// The parts of an overlay: overlay.c is its life, overlay_request.c what is read and changed, overlay_absorb.c what is taken over
// from its base, overlay_commit.c what makes it stable.
#pragma once

#include "store/volume/overlay.h"
#include "store/volume/overlay_map.h"
#include "store/volume/overlay_shadow.h"

struct overlay;

// A request that is more than to be passed on; in its context, the child's behind it.
struct overlay_op {
    struct overlay *overlay;
    struct volume_request *request; // the caller's
    struct volume_request child;
    void (*next_step)(struct overlay_op *op);
    uint64_t done_bytes; // of a read
    // Of a change: the blocks it touches; the whole ones among them are those from `inner` up to `inner_end`.
    uint64_t first, end, inner, inner_end;
    bool head, tail;                // a part of the first, or the last, block is to be done by itself
    bool copies_up;                 // since it needs what is in the base there
    struct overlay_op *link, *prev; // of the active, of those that wait for them, or for a commit
    struct bounce_waiter waiter;
    uint8_t *buffer;
    uint64_t edge; // the block that is being completed
    struct iovec iov;
};

struct overlay_list {
    struct overlay_op *first, **tail;
};

struct overlay {
    struct volume volume;
    struct volume *data, *base;
    struct overlay_header header;
    struct overlay_map map;
    struct overlay_shadow shadow;
    struct bounce_pool bounce;
    struct overlay_op *active; // changes under way, in no order
    struct overlay_list waiting;
    // One commit at a time; who comes meanwhile gets the next one.
    bool committing;
    bool has_lost; // a commit failed
    struct overlay_list in_commit, for_commit;
    struct volume_request store; // the commit's own
    struct iovec store_iov;
    uint64_t store_page;
    unsigned n_stored;
};

void overlay_list_add(struct overlay_list *list, struct overlay_op *op);
struct overlay_op *overlay_list_take_all(struct overlay_list *list); // linked

// overlay_request.c
void overlay_start(struct volume *volume, struct volume_request *request);
struct overlay_op *overlay_op_init(struct overlay *o, struct volume_request *request);
void overlay_op_start_child(struct overlay_op *op, struct volume *child, enum volume_op kind, uint64_t offset_bytes,
                            uint64_t len_bytes, void (*done)(struct volume_request *child, int result));
void overlay_op_finish(struct overlay_op *op, int result);
void overlay_change_end(struct overlay_op *op, int result); // of one that is active: it gives back its buffer and makes way

// overlay_absorb.c: of an active change of the blocks from `first` up to `end`, that copies up
void overlay_absorb(struct overlay_op *op);
extern const struct volume_ops overlay_ops;

// overlay_commit.c
bool overlay_is_settled(const struct overlay *o); // the map is stored
void overlay_commit(struct overlay_op *op);       // all that was done before it becomes stable; then the request is done
