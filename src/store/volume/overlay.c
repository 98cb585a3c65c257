// Overlays: their life. See overlay.h.
#include "store/volume/overlay_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zlib.h>

#define BUFFERS 16u
#define LOAD_PAGES 64u // of the map, at once

// ---- reading and writing while it is opened ----

static int run(struct volume *volume, enum volume_op op, uint64_t offset_bytes, uint64_t len_bytes, void *bytes)
{
    struct iovec iov = {.iov_base = bytes, .iov_len = len_bytes};
    struct volume_request request = {
        .op = op,
        .durable = op == VOLUME_WRITE,
        .offset_bytes = offset_bytes,
        .len_bytes = len_bytes,
        .data = {.iov = &iov, .n_iov = 1},
    };
    return volume_run(volume, &request);
}

static int read_failed(int r, const char *what, struct tv_error *err)
{
    return tv_error_set(err, r, "%s cannot be read: %s", what, strerror(-r));
}

static int load_header(struct overlay *o, uint8_t *buffer, struct tv_error *err)
{
    const uint64_t size = o->data->size_bytes;
    if (size < 2 * OVERLAY_BLOCK)
        return tv_error_set(err, -EBADMSG, "is no overlay: it has %llu bytes", (unsigned long long)size);
    int r = run(o->data, VOLUME_READ, size - OVERLAY_BLOCK, OVERLAY_BLOCK, buffer);
    return r ? read_failed(r, "its header", err) : overlay_header_decode(buffer, size, &o->header, err);
}

static int store_header(struct overlay *o, const struct overlay_header *header, uint8_t *buffer)
{
    memset(buffer, 0, OVERLAY_BLOCK);
    overlay_header_encode(header, buffer);
    int r = run(o->data, VOLUME_WRITE, overlay_header_offset(header), OVERLAY_BLOCK, buffer);
    if (!r)
        o->header = *header;
    return r;
}

// What a store that was killed had in its map, if it was the last one to have it.
static int open_shadow(struct overlay *o, struct volume_env *env, struct tv_error *err)
{
    char name[VOLUME_IDENTITY];
    const uint64_t capacity = overlay_map_pages(o->header.capacity_bytes), used = overlay_map_pages(o->header.size_bytes);
    const struct overlay_shadow_config config = {
        .folder_fd = env->shadow_fd,
        .name = name,
        .n_words = overlay_map_words(capacity),
        .n_used = overlay_map_words(used),
        .session = o->header.session,
        .read_only = o->data->read_only,
    };
    if (env->shadow_fd < 0 || !o->data->ops->identify || !o->data->ops->identify(o->data, name))
        return 0;
    return overlay_shadow_open(&o->shadow, &config, &o->map.is_kept, err);
}

// From here on nobody takes an earlier shadow for what this overlay has.
static int begin_session(struct overlay *o, uint8_t *buffer, struct tv_error *err)
{
    struct overlay_header header = o->header;
    if (o->data->read_only || o->map.is_kept || (o->shadow.fd < 0 && !header.session))
        return 0;
    header.session = 0;
    while (o->shadow.fd >= 0 && !header.session)
        if (getrandom(&header.session, sizeof(header.session), 0) != sizeof(header.session))
            return tv_error_set(err, -EIO, "no random numbers are to be had");
    int r = store_header(o, &header, buffer);
    if (r)
        return tv_error_set(err, r, "its header cannot be written: %s", strerror(-r));
    if (o->shadow.fd >= 0)
        overlay_shadow_begin(&o->shadow, header.session);
    return 0;
}

static int load_map(struct overlay *o, uint8_t *buffer, struct tv_error *err)
{
    const uint64_t pages = overlay_map_pages(o->header.size_bytes);
    const bool is_kept = o->map.is_kept;
    uint64_t *words = o->shadow.fd < 0 ? NULL : overlay_shadow_words(&o->shadow);
    int r = overlay_map_init(&o->map, overlay_map_pages(o->header.capacity_bytes), words, err);
    o->map.is_kept = is_kept;
    for (uint64_t page = 0, n; page < pages && !r; page += n) {
        n = pages - page < LOAD_PAGES ? pages - page : LOAD_PAGES;
        uint32_t sector = 0;
        r = run(o->data, VOLUME_READ, o->header.capacity_bytes + page * OVERLAY_BLOCK, n * OVERLAY_BLOCK, buffer);
        if (r)
            return read_failed(r, "its map", err);
        for (uint64_t i = 0; i < n && !r; i++)
            r = overlay_map_load(&o->map, page + i, buffer + i * OVERLAY_BLOCK, &sector);
        if (r)
            return tv_error_set(err, r, "is damaged: sector %u of its map is not what was written; restore it from a copy", sector);
    }
    return r;
}

// ---- the base ----

// Where a file system changes when it is only mounted, the beginning, and samples of all the rest.
#define BASE_FIRST 16u
#define BASE_SAMPLES 64u

static int check_base(struct volume *base, uint8_t *buffer, uint32_t *check)
{
    const uint64_t blocks = base->size_bytes / OVERLAY_BLOCK;
    *check = (uint32_t)crc32_z(0, NULL, 0);
    for (uint64_t i = 0; i < BASE_SAMPLES && blocks; i++) {
        const uint64_t block = i < BASE_FIRST ? i : blocks / BASE_SAMPLES * i + blocks % BASE_SAMPLES * i / BASE_SAMPLES;
        if (block >= blocks)
            continue;
        int r = run(base, VOLUME_READ, block * OVERLAY_BLOCK, OVERLAY_BLOCK, buffer);
        if (r)
            return r;
        *check = (uint32_t)crc32_z(*check, buffer, OVERLAY_BLOCK);
    }
    return 0;
}

// One that was never written to takes whatever base it is given, and belongs to it from then on.
static int bind_base(struct overlay *o, uint8_t *buffer, struct tv_error *err)
{
    struct overlay_header header = o->header;
    if (!header.bound && o->data->read_only)
        return 0;
    int r = check_base(o->base, buffer, &header.base_check);
    if (r)
        return read_failed(r, "its base", err);
    header.base_size_bytes = o->base->size_bytes;
    if (!header.bound) {
        header.bound = true;
        r = store_header(o, &header, buffer);
        return r ? tv_error_set(err, r, "its header cannot be written: %s", strerror(-r)) : 0;
    }
    if (header.base_check != o->header.base_check || header.base_size_bytes != o->header.base_size_bytes)
        return tv_error_set(err, -ESTALE,
                            "its base is another one, or was written to, and does not fit it any more; give it the base as it was");
    return 0;
}

// ---- life ----

static int overlay_resize(struct volume *volume, uint64_t size_bytes, struct tv_error *err)
{
    struct overlay *o = (struct overlay *)volume;
    struct overlay_header header = o->header;
    uint8_t buffer[OVERLAY_BLOCK] __attribute__((aligned(OVERLAY_BLOCK)));
    if (!size_bytes || size_bytes % volume->block_bytes)
        return tv_error_set(err, -EINVAL, "a size of %llu bytes: must be a multiple of %u", (unsigned long long)size_bytes,
                            volume->block_bytes);
    if (size_bytes < header.size_bytes)
        return tv_error_set(err, -EOPNOTSUPP, "an overlay is not made smaller; it has %llu bytes",
                            (unsigned long long)header.size_bytes);
    if (size_bytes > header.capacity_bytes)
        return tv_error_set(err, -EFBIG, "this overlay can grow to %llu bytes; export it, and make a larger one",
                            (unsigned long long)header.capacity_bytes);
    const uint64_t from = overlay_map_pages(header.size_bytes), to = overlay_map_pages(size_bytes);
    header.size_bytes = size_bytes;
    int r = overlay_shadow_grow(&o->shadow, overlay_map_words(to));
    if (!r && to != from)
        r = run(o->data, VOLUME_ZERO, header.capacity_bytes + from * OVERLAY_BLOCK, (to - from) * OVERLAY_BLOCK, NULL);
    if (!r)
        r = store_header(o, &header, buffer);
    if (r)
        return tv_error_set(err, r, "the overlay cannot grow: %s", strerror(-r));
    volume->size_bytes = size_bytes;
    return 0;
}

static void overlay_wait(struct volume *volume, unsigned timeout_ms)
{
    struct overlay *o = (struct overlay *)volume;
    if (o->data->ops->wait)
        o->data->ops->wait(o->data, timeout_ms);
    if (o->base->ops->wait)
        o->base->ops->wait(o->base, o->data->ops->wait ? 0 : timeout_ms);
}

static int overlay_set_rules(struct volume *volume, const json_t *rules, struct tv_error *err)
{
    struct overlay *o = (struct overlay *)volume;
    int r = volume_set_rules(o->data, rules, err);
    return r == -EOPNOTSUPP ? volume_set_rules(o->base, rules, err) : r;
}

static void overlay_describe(const struct volume *volume, json_t *object)
{
    const struct overlay *o = (const struct overlay *)volume;
    json_object_set_new(object, "data_bytes", json_integer((json_int_t)(o->map.n_data * OVERLAY_BLOCK)));
    if (o->has_lost)
        json_object_set_new(object, "flush_failed", json_true());
    json_object_set_new(object, "data", volume_describe(o->data));
    json_object_set_new(object, "base", volume_describe(o->base));
}

static void overlay_freeze(struct volume *volume)
{
    volume_freeze(((struct overlay *)volume)->data);
}

static void release(struct overlay *o, bool keeps_shadow)
{
    overlay_shadow_close(&o->shadow, keeps_shadow);
    overlay_map_fini(&o->map);
    bounce_fini(&o->bounce);
    free(o->store.context);
    free(o);
}

static void overlay_destroy(struct volume *volume)
{
    struct overlay *o = (struct overlay *)volume;
    volume_destroy(o->data);
    volume_destroy(o->base);
    release(o, o->map.n_dirty);
}

const struct volume_ops overlay_ops = {
    .kind = "overlay",
    .absorbs = true,
    .start = overlay_start,
    .resize = overlay_resize,
    .freeze = overlay_freeze,
    .wait = overlay_wait,
    .set_rules = overlay_set_rules,
    .describe = overlay_describe,
    .destroy = overlay_destroy,
};

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static int set_up(struct overlay *o, struct volume_env *env, struct tv_error *err)
{
    const size_t data_bytes = VOLUME_CONTEXT_SIZE(o->data->context_bytes), base_bytes = VOLUME_CONTEXT_SIZE(o->base->context_bytes);
    o->volume = (struct volume){
        .ops = &overlay_ops,
        .env = env,
        .size_bytes = o->header.size_bytes,
        .block_bytes = larger(o->data->block_bytes, o->base->block_bytes),
        .physical_bytes = OVERLAY_BLOCK,
        .read_only = o->data->read_only,
        .can_discard = true,
        .context_bytes = VOLUME_CONTEXT_SIZE(sizeof(struct overlay_op)) + (data_bytes > base_bytes ? data_bytes : base_bytes),
    };
    if (o->header.size_bytes % o->volume.block_bytes)
        return tv_error_set(err, -EINVAL, "its size of %llu bytes is no multiple of blocks of %u",
                            (unsigned long long)o->header.size_bytes, o->volume.block_bytes);
    o->store.context = aligned_alloc(VOLUME_CONTEXT_ALIGN, data_bytes + VOLUME_CONTEXT_ALIGN);
    return o->store.context ? bounce_init(&o->bounce, BUFFERS, err) : tv_error_set(err, -ENOMEM, "out of memory");
}

static int open_parts(struct overlay *o, struct volume_env *env, uint8_t *buffer, struct tv_error *err)
{
    int r = load_header(o, buffer, err);
    if (!r)
        r = open_shadow(o, env, err);
    if (!r)
        r = load_map(o, buffer, err);
    if (!r)
        r = bind_base(o, buffer, err);
    if (!r)
        r = begin_session(o, buffer, err);
    return r ? r : set_up(o, env, err);
}

struct volume *overlay_volume_create(struct volume_env *env, struct volume *data, struct volume *base, struct tv_error *err)
{
    struct overlay *o = calloc(1, sizeof(*o));
    uint8_t *buffer = aligned_alloc(OVERLAY_BLOCK, LOAD_PAGES * OVERLAY_BLOCK);
    if (!o || !buffer) {
        free(o);
        free(buffer);
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    o->data = data;
    o->base = base;
    o->shadow.fd = -1;
    int r = open_parts(o, env, buffer, err);
    free(buffer);
    if (!r)
        return &o->volume;
    release(o, true);
    return NULL;
}

struct volume *overlay_volume_take_base(struct volume *overlay)
{
    struct overlay *o = (struct overlay *)overlay;
    struct volume *base = o->base;
    volume_destroy(o->data);
    release(o, false);
    return base;
}

int overlay_volume_unbind(struct volume *overlay, struct tv_error *err)
{
    struct overlay *o = (struct overlay *)overlay;
    uint8_t buffer[OVERLAY_BLOCK] __attribute__((aligned(OVERLAY_BLOCK)));
    struct overlay_header header = o->header;
    header.bound = false;
    int r = store_header(o, &header, buffer);
    return r ? tv_error_set(err, r, "its header cannot be written: %s", strerror(-r)) : 0;
}
