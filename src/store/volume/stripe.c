// Stripes: see stripe.h.
//
// A request goes to each volume that has a part of it, to all at the same time. What a volume has of a range lies there in one
// piece, so ranges without data are one request to each; data go stripe by stripe, since their memory is not in one piece then.
#include "store/volume/stripe.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

struct stripe {
    struct volume volume;
    struct volume *volumes[STRIPE_VOLUMES_MAX];
    unsigned n;
    uint32_t stripe_bytes;
    size_t child_context_bytes;
};

struct stripe_op;

// What one volume has to do for a request.
struct lane {
    struct volume_request child;
    struct stripe_op *op;
    struct volume *volume;
    uint64_t at_bytes; // of the request's range: where its next piece begins
};

struct stripe_op {
    struct stripe *stripe;
    struct volume_request *request;
    unsigned n_active;
    int result;
    struct lane lanes[];
};

static bool has_data(const struct volume_request *request)
{
    return request->op == VOLUME_READ || request->op == VOLUME_WRITE;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

// ---- where things are ----

static unsigned index_at(const struct stripe *s, uint64_t at_bytes)
{
    return (unsigned)(at_bytes / s->stripe_bytes % s->n);
}

static uint64_t child_offset(const struct stripe *s, uint64_t at_bytes)
{
    return at_bytes / s->stripe_bytes / s->n * s->stripe_bytes + at_bytes % s->stripe_bytes;
}

// How many bytes before at_bytes are on the index-th volume.
static uint64_t before(const struct stripe *s, unsigned index, uint64_t at_bytes)
{
    const uint64_t rounds = at_bytes / s->stripe_bytes / s->n * s->stripe_bytes;
    const unsigned at = index_at(s, at_bytes);
    return rounds + (index < at ? s->stripe_bytes : index == at ? at_bytes % s->stripe_bytes : 0);
}

// The first byte from at_bytes on that is on the index-th volume.
static uint64_t next_on(const struct stripe *s, unsigned index, uint64_t at_bytes)
{
    const unsigned at = index_at(s, at_bytes);
    if (at == index)
        return at_bytes;
    const uint64_t first = at_bytes - at_bytes % s->stripe_bytes;
    return first + (uint64_t)((index + s->n - at) % s->n) * s->stripe_bytes;
}

// ---- requests ----

static void on_done(struct volume_request *child, int result);

static void start(struct lane *lane, uint64_t offset_bytes, uint64_t len_bytes)
{
    const struct volume_request *request = lane->op->request;
    struct volume_request *child = &lane->child;
    child->op = request->op;
    child->durable = request->durable;
    child->may_unmap = request->may_unmap;
    child->only_fast = request->only_fast;
    child->offset_bytes = offset_bytes;
    child->len_bytes = len_bytes;
    child->done = on_done;
    volume_start(lane->volume, child);
}

// False: the lane's volume has no more of the range.
static bool start_piece(struct lane *lane)
{
    const struct stripe *s = lane->op->stripe;
    const struct volume_request *request = lane->op->request;
    const uint64_t end = request->offset_bytes + request->len_bytes;
    if (lane->at_bytes >= end)
        return false;
    const uint64_t at = lane->at_bytes, stripe_end = at - at % s->stripe_bytes + s->stripe_bytes;
    lane->child.data = volume_data_from(request->data, at - request->offset_bytes);
    lane->at_bytes = stripe_end + (uint64_t)(s->n - 1) * s->stripe_bytes;
    start(lane, child_offset(s, at), least(stripe_end, end) - at);
    return true;
}

static void on_done(struct volume_request *child, int result)
{
    struct lane *lane = (struct lane *)child;
    struct stripe_op *op = lane->op;
    if (result && !op->result)
        op->result = result;
    if (!op->result && has_data(op->request) && start_piece(lane))
        return;
    if (op->request->op == VOLUME_STATUS)
        op->request->extent = child->extent;
    if (--op->n_active == 0)
        volume_finish_later(op->stripe->volume.env, op->request, op->result);
}

static struct stripe_op *op_init(struct stripe *s, struct volume_request *request)
{
    struct stripe_op *op = request->context;
    uint8_t *contexts = (uint8_t *)op + VOLUME_CONTEXT_SIZE(sizeof(*op) + s->n * sizeof(op->lanes[0]));
    op->stripe = s;
    op->request = request;
    op->n_active = 0;
    op->result = 0;
    for (unsigned i = 0; i < s->n; i++) {
        op->lanes[i].op = op;
        op->lanes[i].volume = s->volumes[i];
        op->lanes[i].child.context = contexts + i * s->child_context_bytes;
        op->lanes[i].child.data = (struct volume_data){0};
    }
    return op;
}

static void start_all(struct stripe_op *op)
{
    const struct stripe *s = op->stripe;
    const struct volume_request *request = op->request;
    const uint64_t end = request->offset_bytes + request->len_bytes;
    op->n_active = s->n;
    unsigned idle = 0;
    for (unsigned i = 0; i < s->n; i++) {
        struct lane *lane = &op->lanes[i];
        const uint64_t from = before(s, i, request->offset_bytes), len = before(s, i, end) - from;
        lane->at_bytes = next_on(s, i, request->offset_bytes);
        if (request->op == VOLUME_FLUSH)
            start(lane, 0, 0);
        else if (!len)
            idle++;
        else if (has_data(request))
            start_piece(lane);
        else
            start(lane, from, len);
    }
    op->n_active -= idle; // nobody is done before this returns
}

static void stripe_start(struct volume *volume, struct volume_request *request)
{
    struct stripe *s = (struct stripe *)volume;
    const uint64_t at = request->offset_bytes, room = s->stripe_bytes - at % s->stripe_bytes;
    if (request->op == VOLUME_ABSORB) {
        volume_finish_later(volume->env, request, -EOPNOTSUPP);
        return;
    }
    struct stripe_op *op = op_init(s, request);
    if (request->op != VOLUME_STATUS) {
        start_all(op);
        return;
    }
    op->n_active = 1;
    start(&op->lanes[index_at(s, at)], child_offset(s, at), least(room, request->len_bytes));
}

// ---- life ----

static void stripe_wait(struct volume *volume, unsigned timeout_ms)
{
    struct stripe *s = (struct stripe *)volume;
    for (unsigned i = 0; i < s->n; i++)
        if (s->volumes[i]->ops->wait)
            s->volumes[i]->ops->wait(s->volumes[i], timeout_ms / s->n);
}

static void stripe_freeze(struct volume *volume)
{
    struct stripe *s = (struct stripe *)volume;
    for (unsigned i = 0; i < s->n; i++)
        volume_freeze(s->volumes[i]);
}

static void stripe_describe(const struct volume *volume, json_t *object)
{
    const struct stripe *s = (const struct stripe *)volume;
    json_t *volumes = json_array();
    for (unsigned i = 0; i < s->n; i++)
        json_array_append_new(volumes, volume_describe(s->volumes[i]));
    json_object_set_new(object, "stripe_bytes", json_integer(s->stripe_bytes));
    json_object_set_new(object, "volumes", volumes);
}

static void stripe_destroy(struct volume *volume)
{
    struct stripe *s = (struct stripe *)volume;
    for (unsigned i = 0; i < s->n; i++)
        volume_destroy(s->volumes[i]);
    free(s);
}

static const struct volume_ops stripe_ops = {
    .kind = "stripe",
    .start = stripe_start,
    .wait = stripe_wait,
    .freeze = stripe_freeze,
    .describe = stripe_describe,
    .destroy = stripe_destroy,
};

static int check(struct volume *const *volumes, unsigned n, uint32_t stripe_bytes, struct tv_error *err)
{
    if (n < 1 || n > STRIPE_VOLUMES_MAX)
        return tv_error_set(err, -EINVAL, "%u volumes: must be 1 to %u", n, STRIPE_VOLUMES_MAX);
    if (stripe_bytes < STRIPE_BYTES_LEAST || stripe_bytes > STRIPE_BYTES_MOST || (stripe_bytes & (stripe_bytes - 1)))
        return tv_error_set(err, -EINVAL, "stripes of %u bytes: must be a power of 2 from %u to %u", stripe_bytes,
                            STRIPE_BYTES_LEAST, STRIPE_BYTES_MOST);
    for (unsigned i = 0; i < n; i++)
        if (volumes[i]->size_bytes < stripe_bytes)
            return tv_error_set(err, -EINVAL, "volume %u is smaller than a stripe of %u bytes", i, stripe_bytes);
    return 0;
}

static void take_geometry(struct stripe *s)
{
    struct volume *v = &s->volume;
    uint64_t least_bytes = UINT64_MAX;
    v->block_bytes = v->physical_bytes = 512;
    v->can_discard = true;
    for (unsigned i = 0; i < s->n; i++) {
        const struct volume *child = s->volumes[i];
        least_bytes = least(least_bytes, child->size_bytes - child->size_bytes % s->stripe_bytes);
        v->block_bytes = child->block_bytes > v->block_bytes ? child->block_bytes : v->block_bytes;
        v->physical_bytes = child->physical_bytes > v->physical_bytes ? child->physical_bytes : v->physical_bytes;
        v->read_only |= child->read_only;
        v->can_discard &= child->can_discard;
        const size_t context = VOLUME_CONTEXT_SIZE(child->context_bytes);
        s->child_context_bytes = context > s->child_context_bytes ? context : s->child_context_bytes;
    }
    v->size_bytes = least_bytes * s->n;
    v->context_bytes = VOLUME_CONTEXT_SIZE(sizeof(struct stripe_op) + s->n * sizeof(struct lane)) + s->n * s->child_context_bytes;
}

struct volume *stripe_volume_create(struct volume_env *env, struct volume *const *volumes, unsigned n, uint32_t stripe_bytes,
                                    struct tv_error *err)
{
    if (check(volumes, n, stripe_bytes, err))
        return NULL;
    struct stripe *s = calloc(1, sizeof(*s));
    if (!s) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    s->volume.ops = &stripe_ops;
    s->volume.env = env;
    s->n = n;
    s->stripe_bytes = stripe_bytes;
    for (unsigned i = 0; i < n; i++)
        s->volumes[i] = volumes[i];
    take_geometry(s);
    return &s->volume;
}
