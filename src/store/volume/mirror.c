// Mirrors: their life. See mirror.h.
#include "store/volume/mirror_private.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAP_WORDS ((size_t)MIRROR_INTENT_PAGES * MIRROR_PAGE_SECTORS * MIRROR_SECTOR_WORDS)
#define MAP_BYTES ((size_t)MIRROR_INTENT_PAGES * MIRROR_PAGE)

// ---- bits ----

static uint64_t word_mask(uint64_t word, uint64_t first, uint64_t end)
{
    const uint64_t from = word * 64, low = first > from ? first - from : 0, high = end - from < 64 ? end - from : 64;
    return (high == 64 ? ~0ull : (1ull << high) - 1) & ~((1ull << low) - 1);
}

bool mirror_bits_all(const uint64_t *bits, uint64_t first, uint64_t end)
{
    for (uint64_t w = first / 64; w * 64 < end; w++)
        if (~bits[w] & word_mask(w, first, end))
            return false;
    return true;
}

uint64_t mirror_bits_set(uint64_t *bits, uint64_t first, uint64_t end)
{
    uint64_t more = 0;
    for (uint64_t w = first / 64; w * 64 < end; w++) {
        more += (unsigned)__builtin_popcountll(~bits[w] & word_mask(w, first, end));
        bits[w] |= word_mask(w, first, end);
    }
    return more;
}

uint64_t mirror_bits_next(const uint64_t *bits, uint64_t first, uint64_t end)
{
    for (uint64_t w = first / 64; w * 64 < end; w++) {
        const uint64_t found = bits[w] & word_mask(w, first, end);
        if (found)
            return w * 64 + (unsigned)__builtin_ctzll(found);
    }
    return end;
}

static uint64_t count(const uint64_t *bits, uint64_t n)
{
    uint64_t set = 0;
    for (uint64_t w = 0; w * 64 < n; w++)
        set += (unsigned)__builtin_popcountll(bits[w] & word_mask(w, 0, n));
    return set;
}

// ---- legs ----

static unsigned with_state(const struct mirror *m, enum mirror_state most)
{
    unsigned legs = 0;
    for (unsigned i = 0; i < m->n; i++)
        legs |= m->legs[i].state <= most ? 1u << i : 0;
    return legs;
}

unsigned mirror_in_sync(const struct mirror *m)
{
    return with_state(m, MIRROR_IN_SYNC);
}

unsigned mirror_attached(const struct mirror *m)
{
    return with_state(m, MIRROR_SYNCING);
}

unsigned mirror_primary(const struct mirror *m)
{
    return (unsigned)__builtin_ctz(mirror_in_sync(m));
}

bool mirror_is_whole(const struct mirror *m)
{
    return (unsigned)__builtin_popcount(mirror_in_sync(m)) == m->header.n_legs;
}

static void leave(struct mirror *m, unsigned index)
{
    m->header.left[index] = m->header.generation;
    m->header.in_sync &= ~(1u << index);
    m->header_is_dirty = true;
}

bool mirror_leg_fail(struct mirror *m, unsigned leg, int result)
{
    struct mirror_leg *l = &m->legs[leg];
    const bool was_in_sync = l->state == MIRROR_IN_SYNC;
    if (l->state == MIRROR_OUT)
        return true;
    if (mirror_in_sync(m) == 1u << leg)
        return false;
    l->state = MIRROR_OUT;
    log_event(LOG_ERROR, "store", "leg of a mirror failed: it goes on without, until the disk is opened with one in its place",
              LOG_U64("leg", l->index), LOG_STR("error", strerror(-result)));
    if (was_in_sync && !m->volume.read_only)
        leave(m, l->index);
    return true;
}

// ---- opening ----

static int run(struct volume *volume, enum volume_op op, uint64_t offset_bytes, void *bytes, size_t len_bytes)
{
    struct iovec iov = {.iov_base = bytes, .iov_len = len_bytes};
    struct volume_request request = {
        .op = op, .offset_bytes = offset_bytes, .len_bytes = len_bytes, .data = {.iov = &iov, .n_iov = 1}};
    return volume_run(volume, &request);
}

// Of the two headers the newer one that is good.
static void find_header(struct volume *volume, uint8_t *page, struct mirror_found *found)
{
    *found = (struct mirror_found){.leg_bytes = volume->size_bytes};
    if (volume->size_bytes < MIRROR_META_BYTES) {
        snprintf(found->problem, sizeof(found->problem), "is too small for a leg of a mirror");
        return;
    }
    for (unsigned slot = 0; slot < 2; slot++) {
        struct tv_error err = {0};
        struct mirror_header header;
        int r = run(volume, VOLUME_READ, mirror_header_offset(volume->size_bytes, slot), page, MIRROR_PAGE);
        if (r)
            tv_error_set(&err, r, "cannot be read: %s", strerror(-r));
        else
            r = mirror_header_decode(page, volume->size_bytes, &header, &err);
        if (r)
            snprintf(found->problem, sizeof(found->problem), "%.127s", err.text);
        else if (!found->has_header || header.generation > found->header.generation)
            found->header = header;
        found->has_header |= !r;
    }
}

static int make_plan(struct volume *const *volumes, unsigned n, const struct mirror_options *options, struct mirror_plan *plan,
                     struct tv_error *err)
{
    struct mirror_found found[MIRROR_LEGS_MAX];
    uint8_t *page = aligned_alloc(MIRROR_PAGE, MIRROR_PAGE);
    if (!page)
        return tv_error_set(err, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < n; i++)
        find_header(volumes[i], page, &found[i]);
    free(page);
    return mirror_assemble(found, n, options, plan, err);
}

static void take_geometry(struct mirror *m)
{
    struct volume *v = &m->volume;
    v->size_bytes = m->header.size_bytes;
    v->block_bytes = v->physical_bytes = 512;
    v->can_discard = true;
    for (unsigned i = 0; i < m->n; i++) {
        const struct volume *leg = m->legs[i].volume;
        const size_t context = VOLUME_CONTEXT_SIZE(leg->context_bytes + !leg->context_bytes);
        v->block_bytes = leg->block_bytes > v->block_bytes ? leg->block_bytes : v->block_bytes;
        v->physical_bytes = leg->physical_bytes > v->physical_bytes ? leg->physical_bytes : v->physical_bytes;
        v->read_only |= leg->read_only;
        v->can_discard &= leg->can_discard;
        m->child_context_bytes = context > m->child_context_bytes ? context : m->child_context_bytes;
    }
    v->context_bytes =
        VOLUME_CONTEXT_SIZE(sizeof(struct mirror_op) + m->n * sizeof(struct mirror_lane)) + m->n * m->child_context_bytes;
}

static int make_memory(struct mirror *m, struct tv_error *err)
{
    uint64_t **const bits[] = {&m->stored, &m->wanted, &m->unsynced, &m->touched, &m->clearing};
    bool good = true;
    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
        good &= (*bits[i] = calloc(MAP_WORDS, sizeof(uint64_t))) != NULL;
    m->map = aligned_alloc(MIRROR_PAGE, MAP_BYTES);
    m->pages = aligned_alloc(MIRROR_PAGE, (size_t)MIRROR_LEGS_MAX * MIRROR_PAGE);
    m->buffers = aligned_alloc(MIRROR_PAGE, (size_t)MIRROR_COPIES * BOUNCE_BYTES);
    m->contexts = aligned_alloc(VOLUME_CONTEXT_ALIGN, (MIRROR_COPIES + 1) * m->n * m->child_context_bytes);
    return good && m->map && m->pages && m->buffers && m->contexts ? 0 : tv_error_set(err, -ENOMEM, "out of memory");
}

// What requests of the mirror's own need.
static void lend_memory(struct mirror *m)
{
    uint8_t *context = m->contexts;
    for (unsigned i = 0; i < m->n; i++, context += m->child_context_bytes) {
        m->legs[i].meta.context = context;
        m->legs[i].page = m->pages + (size_t)i * MIRROR_PAGE;
    }
    for (unsigned c = 0; c < MIRROR_COPIES; c++) {
        struct mirror_copy *copy = &m->copies[c];
        copy->mirror = m;
        copy->buffer = m->buffers + (size_t)c * BOUNCE_BYTES;
        for (unsigned i = 0; i < m->n; i++, context += m->child_context_bytes) {
            copy->pieces[i].copy = copy;
            copy->pieces[i].request.context = context;
        }
    }
}

// Who is not here, or has not everything, is not in sync from now on.
static void take_legs(struct mirror *m, const struct mirror_plan *plan, struct volume *const *volumes)
{
    unsigned here = 0;
    m->header = plan->header;
    for (unsigned i = 0; i < m->n; i++) {
        m->legs[i] =
            (struct mirror_leg){.mirror = m, .volume = volumes[i], .index = plan->legs[i].index, .state = plan->legs[i].state};
        here |= plan->legs[i].state == MIRROR_IN_SYNC ? 1u << plan->legs[i].index : 0;
    }
    for (unsigned index = 0; index < m->header.n_legs; index++)
        if (m->header.in_sync & ~here & 1u << index)
            leave(m, index);
}

static int load_maps(struct mirror *m, bool syncs_all, struct tv_error *err)
{
    const unsigned attached = mirror_attached(m);
    for (unsigned i = 0; i < m->n; i++) {
        int r = m->legs[i].state == MIRROR_IN_SYNC ? mirror_load_map(m, i, m->map) : 0;
        if (r)
            return tv_error_set(err, r, "volume %u: its map cannot be read: %s", i, strerror(-r));
    }
    for (uint64_t w = 0; w < MAP_WORDS; w++)
        m->wanted[w] &= w * 64 < m->n_regions ? word_mask(w, 0, m->n_regions) : 0;
    m->n_wanted = count(m->wanted, m->n_regions);
    m->cursor = m->n_regions;
    if (!(attached & (attached - 1)))
        return 0;
    memcpy(m->unsynced, m->wanted, MAP_WORDS * sizeof(uint64_t));
    if (syncs_all)
        mirror_bits_set(m->unsynced, 0, m->n_regions);
    m->n_unsynced = count(m->unsynced, m->n_regions);
    m->cursor = 0;
    return 0;
}

static void on_tick(void *arg)
{
    struct mirror *m = arg;
    m->is_ticking = false;
    mirror_clean(m);
    mirror_copy_again(m);
    if (m->n_wanted)
        mirror_tick(m);
    io_poke(m->volume.env->io);
}

// From here on the legs tell that it was opened, and by whom.
static int begin(struct mirror *m, struct tv_error *err)
{
    if (m->volume.read_only)
        return 0;
    m->header_is_dirty = true;
    m->dirty_pages = (1u << MIRROR_INTENT_PAGES) - 1;
    mirror_commit(m, NULL);
    while (m->committing)
        volume_step(&m->volume);
    if (!mirror_headers_are_stable(m) || m->dirty_pages)
        return tv_error_set(err, -EIO, "no leg's header can be written");
    mirror_copy_on(m);
    return 0;
}

// ---- life ----

// Nothing of its own is under way, and of what is equal and stable the maps say so.
static void come_to_rest(struct mirror *m)
{
    mirror_copy_stop(m);
    if (m->timer)
        loop_set_timer(m->timer, 0, 0);
    while (m->committing || mirror_copy_is_on(m))
        volume_step(&m->volume);
    if (m->volume.read_only)
        return;
    memset(m->touched, 0, MAP_WORDS * sizeof(uint64_t));
    mirror_clean(m);
    while (m->committing)
        volume_step(&m->volume);
}

static void mirror_wait(struct volume *volume, unsigned timeout_ms)
{
    struct mirror *m = (struct mirror *)volume;
    for (unsigned i = 0; i < m->n; i++)
        if (m->legs[i].volume->ops->wait)
            m->legs[i].volume->ops->wait(m->legs[i].volume, timeout_ms / m->n);
}

static void mirror_freeze(struct volume *volume)
{
    struct mirror *m = (struct mirror *)volume;
    come_to_rest(m);
    for (unsigned i = 0; i < m->n; i++)
        volume_freeze(m->legs[i].volume);
}

static bool mirror_identify(const struct volume *volume, char name[VOLUME_IDENTITY])
{
    const struct mirror *m = (const struct mirror *)volume;
    int at = sprintf(name, "mirror-");
    for (unsigned i = 0; i < sizeof(m->header.set); i++)
        at += sprintf(name + at, "%02x", m->header.set[i]);
    return true;
}

static int mirror_set_rules(struct volume *volume, const json_t *rules, struct tv_error *err)
{
    struct mirror *m = (struct mirror *)volume;
    int r = -EOPNOTSUPP;
    for (unsigned i = 0; i < m->n && r == -EOPNOTSUPP; i++)
        r = volume_set_rules(m->legs[i].volume, rules, err);
    return r;
}

static void mirror_describe(const struct volume *volume, json_t *object)
{
    static const char *const states[] = {"in sync", "resyncing", "out"};
    const struct mirror *m = (const struct mirror *)volume;
    json_t *volumes = json_array();
    for (unsigned i = 0; i < m->n; i++) {
        json_t *leg = volume_describe(m->legs[i].volume);
        json_object_set_new(leg, "leg", json_integer((json_int_t)m->legs[i].index));
        json_object_set_new(leg, "state", json_string(states[m->legs[i].state]));
        json_array_append_new(volumes, leg);
    }
    json_object_set_new(object, "volumes", volumes);
    json_object_set_new(object, "legs", json_integer(m->header.n_legs));
    json_object_set_new(object, "degraded", json_boolean(!mirror_is_whole(m)));
    json_object_set_new(object, "unsynced_bytes", json_integer((json_int_t)(m->n_unsynced * m->header.region_bytes)));
    json_object_set_new(object, "region_bytes", json_integer(m->header.region_bytes));
}

static void release(struct mirror *m)
{
    loop_remove(m->timer);
    free(m->stored);
    free(m->wanted);
    free(m->unsynced);
    free(m->touched);
    free(m->clearing);
    free(m->map);
    free(m->pages);
    free(m->buffers);
    free(m->contexts);
    free(m);
}

static void mirror_destroy(struct volume *volume)
{
    struct mirror *m = (struct mirror *)volume;
    come_to_rest(m);
    for (unsigned i = 0; i < m->n; i++)
        volume_destroy(m->legs[i].volume);
    release(m);
}

static const struct volume_ops mirror_ops = {
    .kind = "mirror",
    .start = mirror_start,
    .freeze = mirror_freeze,
    .wait = mirror_wait,
    .identify = mirror_identify,
    .set_rules = mirror_set_rules,
    .describe = mirror_describe,
    .destroy = mirror_destroy,
};

static int set_up(struct mirror *m, const struct mirror_plan *plan, struct volume *const *volumes, struct tv_error *err)
{
    take_legs(m, plan, volumes);
    take_geometry(m);
    m->n_regions = mirror_regions(&m->header);
    if (m->header.size_bytes % m->volume.block_bytes)
        return tv_error_set(err, -EINVAL, "its size of %llu bytes is no multiple of blocks of %u",
                            (unsigned long long)m->header.size_bytes, m->volume.block_bytes);
    int r = make_memory(m, err);
    if (r)
        return r;
    lend_memory(m);
    m->timer = loop_add_timer(m->volume.env->loop, on_tick, m, err);
    r = m->timer ? load_maps(m, plan->syncs_all, err) : -ENOMEM;
    return r ? r : begin(m, err);
}

struct volume *mirror_volume_create(struct volume_env *env, struct volume *const *volumes, unsigned n,
                                    const struct mirror_options *options, struct tv_error *err)
{
    struct mirror_plan plan;
    if (!n || n > MIRROR_LEGS_MAX || (options->has_rebuild && options->rebuild >= n)) {
        tv_error_set(err, -EINVAL, "%u volumes: must be 1 to %u, and \"rebuild\" the number of one, counted from 0", n,
                     MIRROR_LEGS_MAX);
        return NULL;
    }
    if (make_plan(volumes, n, options, &plan, err))
        return NULL;
    struct mirror *m = calloc(1, sizeof(*m));
    if (!m) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    m->volume = (struct volume){.ops = &mirror_ops, .env = env};
    m->n = n;
    m->chores = options->chores;
    if (m->chores)
        m->chores->has_users = true;
    if (!set_up(m, &plan, volumes, err))
        return &m->volume;
    release(m);
    return NULL;
}
