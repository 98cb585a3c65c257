// What makes an overlay stable: see overlay_private.h.
//
// A commit puts aside the pages of the map as they are, has the data volume flushed, which makes stable what they tell of, and only
// then stores them: one page durably, several by another flush.
#include "store/volume/overlay_private.h"

#include <errno.h>
#include <stddef.h>

#define STORE_PAGES_MOST 64u // at once

void overlay_list_add(struct overlay_list *list, struct overlay_op *op)
{
    if (!list->first)
        list->tail = &list->first;
    op->link = NULL;
    *list->tail = op;
    list->tail = &op->link;
}

struct overlay_op *overlay_list_take_all(struct overlay_list *list)
{
    struct overlay_op *first = list->first;
    list->first = NULL;
    return first;
}

bool overlay_is_settled(const struct overlay *o)
{
    return !o->map.n_dirty && !o->committing;
}

static struct overlay *overlay_of(struct volume_request *store)
{
    return (struct overlay *)((char *)store - offsetof(struct overlay, store));
}

static void start(struct overlay *o);

static void end(struct overlay *o, int result)
{
    overlay_map_unstage(&o->map, !result);
    o->has_lost |= result != 0;
    o->committing = false;
    for (struct overlay_op *op = overlay_list_take_all(&o->in_commit), *next; op; op = next) {
        next = op->link;
        overlay_op_finish(op, result);
    }
    if (o->for_commit.first && !o->committing)
        start(o);
}

static void submit(struct overlay *o, enum volume_op kind, void (*done)(struct volume_request *, int))
{
    o->store.op = kind;
    o->store.done = done;
    volume_start(o->data, &o->store);
}

static void on_stored_flushed(struct volume_request *store, int result)
{
    end(overlay_of(store), result);
}

static void store_on(struct overlay *o);

static void on_stored(struct volume_request *store, int result)
{
    struct overlay *o = overlay_of(store);
    if (result)
        end(o, result);
    else
        store_on(o);
}

// The next pages. If they are all there are, they are written durably, and that is it.
static void store_on(struct overlay *o)
{
    uint64_t page = o->store_page, n = overlay_map_next_staged(&o->map, &page, STORE_PAGES_MOST);
    if (!n) {
        o->store.offset_bytes = o->store.len_bytes = 0;
        o->store.durable = false;
        submit(o, VOLUME_FLUSH, on_stored_flushed);
        return;
    }
    uint64_t after = page + n;
    const bool is_all = !o->n_stored++ && !overlay_map_next_staged(&o->map, &after, 1);
    o->store_page = page + n;
    o->store_iov = (struct iovec){.iov_base = o->map.stage + page * OVERLAY_BLOCK, .iov_len = n * OVERLAY_BLOCK};
    o->store.offset_bytes = o->header.capacity_bytes + page * OVERLAY_BLOCK;
    o->store.len_bytes = n * OVERLAY_BLOCK;
    o->store.durable = is_all;
    o->store.data = (struct volume_data){.iov = &o->store_iov, .n_iov = 1};
    submit(o, VOLUME_WRITE, is_all ? on_stored_flushed : on_stored);
}

static void on_data_flushed(struct volume_request *store, int result)
{
    struct overlay *o = overlay_of(store);
    uint64_t page = 0;
    if (result || !overlay_map_next_staged(&o->map, &page, 1))
        end(o, result);
    else
        store_on(o);
}

static void start(struct overlay *o)
{
    o->committing = true;
    o->in_commit.first = NULL;
    for (struct overlay_op *op = overlay_list_take_all(&o->for_commit), *next; op; op = next) {
        next = op->link;
        overlay_list_add(&o->in_commit, op);
    }
    overlay_map_stage(&o->map);
    o->store_page = o->n_stored = 0;
    o->store.offset_bytes = o->store.len_bytes = 0;
    o->store.durable = false;
    submit(o, VOLUME_FLUSH, on_data_flushed);
}

void overlay_commit(struct overlay_op *op)
{
    struct overlay *o = op->overlay;
    if (o->has_lost) {
        overlay_op_finish(op, -EIO);
        return;
    }
    overlay_list_add(&o->for_commit, op);
    if (!o->committing)
        start(o);
}
