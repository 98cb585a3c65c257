// What the disks of machines do, for those who look: see daemon.h.
//
// However many look, and however often, the store is asked at most once a second for a machine: a reading serves all who come
// within a second of its beginning, and those who come while it is under way wait for the same answers. A reading carries the
// store's own time, so that rates are right whatever its age.
#include "base/clock.h"
#include "control/daemon/daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STAT_TIMEOUT_MS 1000 // whoever looks at counters does not wait longer for those of the disks

struct looker {
    struct looker *next;
    struct rpc_request *req;
};

struct disk_reading {
    struct daemon *daemon;
    struct daemon_machine *machine; // NULL: it has been removed meanwhile
    struct looker *lookers;
    pid_t pid; // the machine's process
    json_t *disks;
    size_t prefix; // of a disk's label, before its name
    unsigned open; // answers still to come, and one until all have been asked for
    uint64_t began_ns;
};

static void awake(void *arg, const json_t *result, const struct tv_error *err)
{
    struct daemon *d = arg;
    (void)result, (void)err;
    d->store_late = false;
}

void daemon_store_note_late(struct daemon *d)
{
    if (!d->store_late && d->store_control)
        d->store_late = rpc_call_async(d->store_control, "disk.list", json_object(), NULL, 0, 0, awake, d) == 0;
}

static void answer(struct looker *looker, json_t *disks, bool late)
{
    rpc_reply(looker->req, json_pack("{s:O, s:b}", "disks", disks, "late", late));
    free(looker);
}

static void close_reading(struct disk_reading *r)
{
    if (--r->open)
        return;
    const bool late = r->daemon->store_late;
    for (struct looker *next, *l = r->lookers; l; l = next) {
        next = l->next;
        answer(l, r->disks, late);
    }
    if (r->machine)
        r->machine->look.reading = NULL;
    if (r->machine && !late) {
        daemon_look_forget(r->machine);
        r->machine->look.disks = json_incref(r->disks);
        r->machine->look.pid = r->pid;
        r->machine->look.at_ns = r->began_ns;
    }
    json_decref(r->disks);
    free(r);
}

static void stat_answered(void *arg, const json_t *result, const struct tv_error *err)
{
    struct disk_reading *r = arg;
    const char *label = json_string_value(json_object_get(result, "name"));
    if (label && strlen(label) > r->prefix) {
        json_t *stat = json_deep_copy(result);
        json_object_set_new(stat, "name", json_string(label + r->prefix));
        json_array_append_new(r->disks, stat);
    }
    if (err->code == -ETIMEDOUT)
        daemon_store_note_late(r->daemon);
    close_reading(r);
}

// Takes the looker.
static void begin_reading(struct daemon_machine *m, struct disk_reading *r, struct looker *looker)
{
    struct daemon *d = m->daemon;
    *r = (struct disk_reading){
        .daemon = d,
        .machine = m,
        .lookers = looker,
        .pid = m->worker.pid,
        .disks = json_array(),
        .prefix = strlen(m->spec.name) + 1,
        .open = 1,
        .began_ns = clock_now_ns(),
    };
    m->look.reading = r;
    for (unsigned i = 0; i < m->spec.n_disks && m->worker.pid && d->store_control && !d->store_late; i++) {
        char label[128];
        daemon_store_label(m, i, label);
        r->open += rpc_call_async(d->store_control, "disk.stat", json_pack("{s:s, s:b}", "name", label, "histograms", true), NULL,
                                  0, STAT_TIMEOUT_MS, stat_answered, r) == 0;
    }
    close_reading(r);
}

static bool is_fresh(const struct daemon_machine *m)
{
    return m->look.disks && m->look.pid == m->worker.pid && clock_now_ns() - m->look.at_ns < NS_PER_S;
}

void daemon_look(struct daemon_machine *m, struct rpc_request *req)
{
    struct looker *looker = malloc(sizeof(*looker));
    struct disk_reading *r = m->look.reading || is_fresh(m) ? NULL : malloc(sizeof(*r));
    if (looker)
        *looker = (struct looker){.req = req};
    if (looker && m->look.reading) {
        looker->next = m->look.reading->lookers;
        m->look.reading->lookers = looker;
    } else if (looker && is_fresh(m)) {
        answer(looker, m->look.disks, false);
    } else if (looker && r) {
        begin_reading(m, r, looker);
    } else {
        const struct tv_error err = {.code = -ENOMEM, .text = "no memory"};
        rpc_reply_error(req, RPC_FAILED, &err);
        free(looker);
        free(r);
    }
}

void daemon_look_forget(struct daemon_machine *m)
{
    if (m->look.reading)
        m->look.reading->machine = NULL;
    m->look.reading = NULL;
    json_decref(m->look.disks);
    m->look.disks = NULL;
}
