// A disk as an NBD export: the front end, and its connections' batches: see nbd_private.h.
#include "store/front/nbd_private.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// ---- connections ----

int nbd_export_join(struct nbd_export *export, struct nbd_conn *c)
{
    if (export->is_closing || export->n_conns == NBD_CONNECTIONS_MAX)
        return -EBUSY;
    int r = nbd_conn_make_arena(c);
    if (r)
        return r;
    nbd_server_forget(c);
    nbd_conn_link(c, &export->conns);
    export->n_conns++;
    c->export = export;
    c->phase = NBD_TRANSMISSION;
    log_event(LOG_INFO, "store", "nbd client connected", LOG_STR("disk", export->front.disk->name),
              LOG_STR("listener", c->listener->name), LOG_STR("tls", c->stream.session ? "on" : "off"));
    return 0;
}

static void leave(struct nbd_conn *c)
{
    struct nbd_export *export = c->export;
    nbd_conn_unlink(c);
    export->n_conns--;
    nbd_conn_free(c);
    log_event(LOG_INFO, "store", "nbd client gone", LOG_STR("disk", export->front.disk->name));
}

void nbd_export_mark(struct nbd_conn *c)
{
    struct nbd_export *export = c->export;
    if (c->is_marked)
        return;
    c->is_marked = true;
    c->next_marked = export->marked;
    export->marked = c;
    store_mark(&export->front);
}

// ---- batches ----

// What could not be taken before may be answered at once, so that there is more to send.
static void settle(struct nbd_conn *c)
{
    nbd_send(c);
    while (!c->is_dead && c->is_paused && !c->is_blocked && c->free) {
        nbd_receive_more(c);
        const bool any = c->out;
        nbd_send(c);
        if (!any)
            break;
    }
    nbd_conn_watch(c);
}

static bool front_end_batch(struct disk_front *front)
{
    struct nbd_export *export = (struct nbd_export *)front;
    struct nbd_conn *c = export->marked;
    export->marked = NULL;
    for (struct nbd_conn *next; c; c = next) {
        next = c->next_marked;
        if (!c->is_dead)
            settle(c);
        c->is_marked = false; // only now: what is settled marks nothing anew
        if (c->is_dead && !c->in_flight)
            leave(c);
    }
    return false;
}

// A client that sends much needs no event to be read from.
static bool front_poll(struct disk_front *front)
{
    struct nbd_export *export = (struct nbd_export *)front;
    bool any = false;
    for (struct nbd_conn *c = export->conns; c; c = c->next)
        if (nbd_receive(c)) {
            nbd_export_mark(c);
            any = true;
        }
    if (any) {
        store_heat(front);
        store_end_batch(front->disk->store);
    }
    return any;
}

// The events stay: they cost a client nothing.
static bool front_set_kicks(struct disk_front *front, bool wanted)
{
    (void)front;
    (void)wanted;
    return false;
}

// ---- the front end ----

static void front_resized(struct disk_front *front)
{
    struct nbd_export *export = (struct nbd_export *)front;
    // The protocol has no word for it: a client learns the size when it connects. What it asks for is checked against the new one.
    for (struct nbd_conn *c = export->conns; c; c = c->next) {
        c->terms.size_bytes = front->disk->volume->size_bytes;
        c->data_end = c->data_from = 0;
    }
}

static void front_describe(const struct disk_front *front, json_t *object)
{
    const struct nbd_export *export = (const struct nbd_export *)front;
    json_object_set_new(object, "nbd", json_pack("{s:i}", "connections", (int)export->n_conns));
}

static void front_destroy(struct disk_front *front)
{
    struct nbd_export *export = (struct nbd_export *)front;
    export->is_closing = true;
    store_drain(front->disk, &export->in_flight);
    while (export->conns) {
        struct nbd_conn *c = export->conns;
        nbd_conn_fail(c);
        leave(c);
    }
    disk_detach(front);
    free(export);
}

static const struct disk_front_ops front_ops = {
    .end_batch = front_end_batch,
    .poll = front_poll,
    .set_kicks = front_set_kicks,
    .resized = front_resized,
    .describe = front_describe,
    .destroy = front_destroy,
};

int nbd_export_create(struct disk *disk, struct tv_error *err)
{
    static uint64_t n_made;
    struct nbd_export *export = calloc(1, sizeof(*export));
    if (!export)
        return tv_error_set(err, -ENOMEM, "disk '%s': out of memory", disk->name);
    export->front.ops = &front_ops;
    export->id = ++n_made;
    disk_attach(disk, &export->front);
    return 0;
}

struct nbd_export *nbd_export_of(const struct disk *disk)
{
    struct disk_front *front = disk->fronts;
    while (front && front->ops != &front_ops)
        front = front->next;
    return (struct nbd_export *)front;
}

struct nbd_export *nbd_export_find(const struct nbd_listener *listener, struct nbd_string name)
{
    struct nbd_export *found = NULL;
    for (const struct disk *disk = listener->server->store->disks; disk; disk = disk->next) {
        struct nbd_export *export = nbd_export_of(disk);
        if (!export || !nbd_listener_shows(listener, disk))
            continue;
        if (nbd_string_is(name, disk->name))
            return export;
        if (!name.len_bytes && found)
            return NULL;
        found = name.len_bytes ? NULL : export;
    }
    return found;
}
