// Answers that wait for several machines: {"machines": [{"name", "state", "unproven"} or {"name", "error", "errno"}]}: see
// daemon.h.
//
// A batch is asked machine by machine, then sealed; it answers when each machine has given its result, and frees itself.
#include "control/daemon/daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct batch {
    struct rpc_request *req;
    json_t *results;
    unsigned open; // results still to come, and one until it is sealed
};

struct batch *batch_create(struct rpc_request *req)
{
    struct batch *b = calloc(1, sizeof(*b));
    if (!b)
        return NULL;
    b->req = req;
    b->results = json_array();
    b->open = 1;
    return b;
}

static void close_one(struct batch *b)
{
    if (--b->open)
        return;
    rpc_reply(b->req, json_pack("{s:o}", "machines", b->results));
    free(b);
}

void batch_seal(struct batch *b)
{
    close_one(b);
}

static json_t *result(const struct daemon_machine *m, const struct tv_error *err)
{
    json_t *json = machine_describe(m);
    if (err && err->code) {
        json_object_set_new(json, "error", json_string(err->text));
        json_object_set_new(json, "errno", json_string(strerrorname_np(-err->code)));
    }
    return json;
}

void batch_result(struct batch *b, const struct daemon_machine *m, const struct tv_error *err)
{
    json_array_append_new(b->results, result(m, err));
}

int batch_wait(struct batch *b, struct waiter **list, struct tv_error *err)
{
    struct waiter *w = calloc(1, sizeof(*w));
    if (!w)
        return tv_error_set(err, -ENOMEM, "no memory");
    w->batch = b;
    w->next = *list;
    *list = w;
    b->open++;
    return 0;
}

void batch_wake(struct waiter **list, const struct daemon_machine *m, const struct tv_error *err)
{
    struct waiter *w = *list;
    *list = NULL;
    while (w) {
        struct waiter *next = w->next;
        json_t *json = result(m, err);
        if (m->unproven && m->state == MACHINE_RUNNING) // it has just been started
            json_object_set(json, "unproven", m->unproven);
        json_array_append_new(w->batch->results, json);
        close_one(w->batch);
        free(w);
        w = next;
    }
}
