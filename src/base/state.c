// Saved state: see state.h.
//
// The stream is a list of records: kind (1 byte), name length (1 byte), payload length (4 bytes, little-endian), name, payload. A
// section is a record BEGIN whose payload is its version, its fields, and a record END without payload.
#include "base/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_HEAD_BYTES 6u
#define DEPTH_MAX 16u
#define NAME_MAX_BYTES 63u

enum record_kind { RECORD_BEGIN = 1, RECORD_END = 2, RECORD_FIELD = 3 };

struct state {
    bool loading;
    uint8_t *out; // saving: grows
    const uint8_t *in;
    size_t len_bytes, capacity_bytes, at;
    unsigned depth;
    char path[DEPTH_MAX][NAME_MAX_BYTES + 1]; // names of the open sections, for messages
    struct tv_error err;
};

struct state *state_create_save(void)
{
    return calloc(1, sizeof(struct state));
}

struct state *state_create_load(const void *buf, size_t len_bytes)
{
    struct state *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->loading = true;
    s->in = buf;
    s->len_bytes = len_bytes;
    return s;
}

void state_destroy(struct state *s)
{
    if (!s)
        return;
    free(s->out);
    free(s);
}

bool state_is_loading(const struct state *s)
{
    return s->loading;
}

bool state_failed(const struct state *s)
{
    return s->err.code != 0;
}

void state_fail(struct state *s, const char *format, ...)
{
    if (state_failed(s))
        return;
    char where[256] = "", what[192];
    size_t used = 0;
    for (unsigned i = 0; i < s->depth && used < sizeof(where); i++)
        used += (size_t)snprintf(where + used, sizeof(where) - used, "%s%s", i ? "." : "", s->path[i]);
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    tv_error_set(&s->err, -EINVAL, "saved state, section '%s': %s", where, what);
}

static bool reserve(struct state *s, size_t more)
{
    if (s->capacity_bytes - s->len_bytes >= more)
        return true;
    size_t capacity = s->capacity_bytes ? s->capacity_bytes * 2 : 4096;
    while (capacity - s->len_bytes < more)
        capacity *= 2;
    uint8_t *out = realloc(s->out, capacity);
    if (!out) {
        tv_error_set(&s->err, -ENOMEM, "saved state: no memory for %zu bytes", capacity);
        return false;
    }
    s->out = out;
    s->capacity_bytes = capacity;
    return true;
}

static void record_put(struct state *s, enum record_kind kind, const char *name, const void *payload, size_t len_bytes)
{
    size_t name_bytes = strlen(name);
    if (state_failed(s) || !reserve(s, RECORD_HEAD_BYTES + name_bytes + len_bytes))
        return;
    uint8_t *p = s->out + s->len_bytes;
    p[0] = (uint8_t)kind;
    p[1] = (uint8_t)name_bytes;
    for (unsigned i = 0; i < 4; i++)
        p[2 + i] = (uint8_t)(len_bytes >> (8 * i));
    memcpy(p + RECORD_HEAD_BYTES, name, name_bytes);
    if (len_bytes)
        memcpy(p + RECORD_HEAD_BYTES + name_bytes, payload, len_bytes);
    s->len_bytes += RECORD_HEAD_BYTES + name_bytes + len_bytes;
}

// The payload of the next record, which must be of this kind and name and exactly len_bytes long; NULL with the stream failed.
static const uint8_t *record_get(struct state *s, enum record_kind kind, const char *name, size_t len_bytes)
{
    if (state_failed(s))
        return NULL;
    size_t left = s->len_bytes - s->at;
    const uint8_t *p = s->in + s->at;
    if (left < RECORD_HEAD_BYTES) {
        state_fail(s, "ends before '%s'", name);
        return NULL;
    }
    size_t name_bytes = p[1], payload_bytes = 0;
    for (unsigned i = 0; i < 4; i++)
        payload_bytes |= (size_t)p[2 + i] << (8 * i);
    if (left - RECORD_HEAD_BYTES < name_bytes || left - RECORD_HEAD_BYTES - name_bytes < payload_bytes) {
        state_fail(s, "is cut off at '%s'", name);
        return NULL;
    }
    if (p[0] != kind || name_bytes != strlen(name) || memcmp(p + RECORD_HEAD_BYTES, name, name_bytes) != 0) {
        state_fail(s, "has something else where '%s' belongs", name);
        return NULL;
    }
    if (payload_bytes != len_bytes) {
        state_fail(s, "'%s' has %zu bytes, not %zu", name, payload_bytes, len_bytes);
        return NULL;
    }
    s->at += RECORD_HEAD_BYTES + name_bytes + payload_bytes;
    return p + RECORD_HEAD_BYTES + name_bytes;
}

// Little-endian, `bytes` wide, whatever the host.
static uint64_t scalar(struct state *s, enum record_kind kind, const char *name, uint64_t value, unsigned bytes)
{
    uint8_t raw[8];
    if (!s->loading) {
        for (unsigned i = 0; i < bytes; i++)
            raw[i] = (uint8_t)(value >> (8 * i));
        record_put(s, kind, name, raw, bytes);
        return value;
    }
    const uint8_t *p = record_get(s, kind, name, bytes);
    value = 0;
    for (unsigned i = 0; p && i < bytes; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

uint32_t state_section_begin(struct state *s, const char *name, uint32_t version)
{
    if (s->depth == DEPTH_MAX)
        state_fail(s, "sections nest deeper than %u", DEPTH_MAX);
    uint32_t found = (uint32_t)scalar(s, RECORD_BEGIN, name, version, 4);
    if (s->depth < DEPTH_MAX)
        snprintf(s->path[s->depth++], sizeof(s->path[0]), "%s", name);
    if (s->loading && found > version)
        state_fail(s, "is of version %u, this program knows up to %u: use the version of trivet that saved it", found, version);
    return found;
}

void state_section_end(struct state *s)
{
    if (s->loading)
        record_get(s, RECORD_END, "", 0);
    else
        record_put(s, RECORD_END, "", NULL, 0);
    if (s->depth)
        s->depth--;
}

void state_bool(struct state *s, const char *name, bool *value)
{
    uint64_t v = scalar(s, RECORD_FIELD, name, *value, 1);
    if (v > 1)
        state_fail(s, "'%s' is neither 0 nor 1", name);
    *value = v == 1;
}

void state_u8(struct state *s, const char *name, uint8_t *value)
{
    *value = (uint8_t)scalar(s, RECORD_FIELD, name, *value, 1);
}

void state_u16(struct state *s, const char *name, uint16_t *value)
{
    *value = (uint16_t)scalar(s, RECORD_FIELD, name, *value, 2);
}

void state_u32(struct state *s, const char *name, uint32_t *value)
{
    *value = (uint32_t)scalar(s, RECORD_FIELD, name, *value, 4);
}

void state_u64(struct state *s, const char *name, uint64_t *value)
{
    *value = scalar(s, RECORD_FIELD, name, *value, 8);
}

void state_bytes(struct state *s, const char *name, void *buf, size_t len_bytes)
{
    if (!s->loading) {
        record_put(s, RECORD_FIELD, name, buf, len_bytes);
        return;
    }
    const uint8_t *p = record_get(s, RECORD_FIELD, name, len_bytes);
    if (p && len_bytes)
        memcpy(buf, p, len_bytes);
    else if (len_bytes)
        memset(buf, 0, len_bytes);
}

void state_u64_array(struct state *s, const char *name, uint64_t *values, size_t n)
{
    state_bytes(s, name, values, n * sizeof(*values)); // hosts are little-endian (x86-64, arm64, riscv64)
}

void state_count(struct state *s, const char *name, uint32_t *count, uint32_t max)
{
    state_u32(s, name, count);
    if (s->loading && *count > max) {
        state_fail(s, "'%s' is %u, more than %u", name, *count, max);
        *count = 0;
    }
}

int state_finish(struct state *s, void **buf, size_t *len_bytes, struct tv_error *err)
{
    if (s->loading && !state_failed(s) && s->at != s->len_bytes)
        state_fail(s, "%zu bytes follow the end", s->len_bytes - s->at);
    if (state_failed(s))
        return tv_error_set(err, s->err.code, "%s", s->err.text);
    if (s->loading)
        return 0;
    *buf = s->out;
    *len_bytes = s->len_bytes;
    s->out = NULL;
    s->len_bytes = s->capacity_bytes = 0;
    return 0;
}
