// Volumes that fail: see fault.h.
#include "store/volume/fault.h"

#include "store/volume/fault_log.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

// In a request's context, the child's behind it.
struct fault_op {
    struct volume_request child;
    struct volume_request *request; // the caller's
    struct fault *fault;
    struct fault_op *link; // of those that are held
    bool hangs;            // until there are other rules; else until `release_at` are done
    uint64_t release_at;
    int error; // 0, or what the request fails with although the child has done it
    uint64_t number;
};

struct fault {
    struct volume volume;
    struct volume *over;
    struct fault_rules rules;
    struct fault_log log;
    struct fault_op *held, **held_tail; // in the order in which they came
    uint64_t n_done;                    // of those that the child was given
    unsigned n_under_way;               // with the child
    bool has_lost;                      // a flush failed
};

// ---- with the child ----

static void release(struct fault *fault, bool all);

static void on_done(struct volume_request *child, int result)
{
    struct fault_op *op = (struct fault_op *)((char *)child - offsetof(struct fault_op, child));
    struct fault *fault = op->fault;
    fault_log_end(&fault->log, child, op->number, result);
    fault->n_done++;
    fault->n_under_way--;
    fault->has_lost |= child->op == VOLUME_FLUSH && result;
    op->request->extent = child->extent;
    op->request->done(op->request, result ? result : op->error);
    release(fault, false);
}

static void hand_down(struct fault_op *op)
{
    struct fault *fault = op->fault;
    op->number = fault_log_begin(&fault->log, &op->child);
    fault->n_under_way++;
    volume_start(fault->over, &op->child);
}

// ---- held ----

static void hold(struct fault_op *op)
{
    struct fault *fault = op->fault;
    op->link = NULL;
    *fault->held_tail = op;
    fault->held_tail = &op->link;
}

static struct fault_op *take_all(struct fault *fault)
{
    struct fault_op *first = fault->held;
    fault->held = NULL;
    fault->held_tail = &fault->held;
    return first;
}

// Those whose time has come. When nothing is under way any more nothing else can come before the first one that is delayed.
static void release(struct fault *fault, bool all)
{
    for (struct fault_op *op = take_all(fault), *next; op; op = next) {
        next = op->link;
        if (all || (!op->hangs && (fault->n_done >= op->release_at || !fault->n_under_way)))
            hand_down(op);
        else
            hold(op);
    }
}

static void fail_those_that_hang(struct fault *fault)
{
    for (struct fault_op *op = take_all(fault), *next; op; op = next) {
        next = op->link;
        if (op->hangs)
            volume_finish_later(fault->volume.env, op->request, -EIO);
        else
            hold(op);
    }
}

// ---- requests ----

static void strike(struct fault_op *op, const struct fault_rule *rule)
{
    struct fault *fault = op->fault;
    const uint64_t part = rule->part_bytes / fault->volume.block_bytes * fault->volume.block_bytes;
    switch (rule->act) {
    case FAULT_ERROR:
        fault->has_lost |= op->child.op == VOLUME_FLUSH;
        op->error = rule->error;
        if (part && op->child.len_bytes) {
            op->child.len_bytes = part < op->child.len_bytes ? part : op->child.len_bytes;
            hand_down(op);
            return;
        }
        volume_finish_later(fault->volume.env, op->request, rule->error);
        return;
    case FAULT_DROP:
        volume_finish_later(fault->volume.env, op->request, 0);
        return;
    case FAULT_DELAY:
        op->release_at = fault->n_done + rule->delay;
        break;
    case FAULT_HANG:
        op->hangs = true;
        break;
    }
    if (op->hangs || fault->n_under_way)
        hold(op);
    else
        hand_down(op);
}

static void fault_start(struct volume *volume, struct volume_request *request)
{
    struct fault *fault = (struct fault *)volume;
    if (fault->has_lost && (request->op == VOLUME_FLUSH || request->durable)) {
        volume_finish_later(volume->env, request, -EIO);
        return;
    }
    struct fault_op *op = request->context;
    op->child = *request;
    op->child.context = (char *)op + VOLUME_CONTEXT_SIZE(sizeof(*op));
    op->child.done = on_done;
    op->request = request;
    op->fault = fault;
    op->hangs = false;
    op->error = 0;
    const struct fault_rule *rule = fault_rules_find(&fault->rules, request);
    if (rule)
        strike(op, rule);
    else
        hand_down(op);
}

// ---- life ----

static int fault_resize(struct volume *volume, uint64_t size_bytes, struct tv_error *err)
{
    struct fault *fault = (struct fault *)volume;
    int r = volume_resize(fault->over, size_bytes, err);
    volume->size_bytes = fault->over->size_bytes;
    return r;
}

static void fault_freeze(struct volume *volume)
{
    volume_freeze(((struct fault *)volume)->over);
}

static void fault_wait(struct volume *volume, unsigned timeout_ms)
{
    struct fault *fault = (struct fault *)volume;
    fail_those_that_hang(fault);
    if (fault->over->ops->wait)
        fault->over->ops->wait(fault->over, volume->env->finished ? 0 : timeout_ms);
}

static bool fault_identify(const struct volume *volume, char name[VOLUME_IDENTITY])
{
    const struct volume *over = ((const struct fault *)volume)->over;
    return over->ops->identify && over->ops->identify(over, name);
}

static int fault_set_rules(struct volume *volume, const json_t *rules, struct tv_error *err)
{
    struct fault *fault = (struct fault *)volume;
    int r = fault_rules_parse(&fault->rules, rules, err);
    if (!r)
        release(fault, true);
    return r;
}

static unsigned count_held(const struct fault *fault)
{
    unsigned n = 0;
    for (const struct fault_op *op = fault->held; op; op = op->link)
        n++;
    return n;
}

static void fault_describe(const struct volume *volume, json_t *object)
{
    const struct fault *fault = (const struct fault *)volume;
    json_object_set_new(object, "rules", fault_rules_describe(&fault->rules));
    json_object_set_new(object, "held", json_integer(count_held(fault)));
    if (fault->has_lost)
        json_object_set_new(object, "flush_failed", json_true());
    if (fault->log.has_failed)
        json_object_set_new(object, "log_failed", json_true());
    json_object_set_new(object, "over", volume_describe(fault->over));
}

static void fault_destroy(struct volume *volume)
{
    struct fault *fault = (struct fault *)volume;
    volume_destroy(fault->over);
    fault_log_fini(&fault->log);
    free(fault);
}

static const struct volume_ops fault_ops = {
    .kind = "fault",
    .start = fault_start,
    .resize = fault_resize,
    .freeze = fault_freeze,
    .wait = fault_wait,
    .identify = fault_identify,
    .set_rules = fault_set_rules,
    .describe = fault_describe,
    .destroy = fault_destroy,
};

struct volume *fault_volume_create(struct volume_env *env, struct volume *over, const struct fault_rules *rules, int log_fd,
                                   struct tv_error *err)
{
    struct fault *fault = calloc(1, sizeof(*fault));
    if (!fault) {
        tv_error_set(err, -ENOMEM, "out of memory");
        volume_destroy(over);
        if (log_fd >= 0)
            close(log_fd);
        return NULL;
    }
    fault->volume = *over;
    fault->volume.ops = &fault_ops;
    fault->volume.env = env;
    fault->volume.context_bytes = VOLUME_CONTEXT_SIZE(sizeof(struct fault_op)) + VOLUME_CONTEXT_SIZE(over->context_bytes);
    fault->over = over;
    fault->rules = *rules;
    fault->held_tail = &fault->held;
    if (!fault_log_init(&fault->log, log_fd, over->size_bytes, err))
        return &fault->volume;
    fault_destroy(&fault->volume);
    return NULL;
}
