// Saved state: see state.h.
//
// The stream, integers little-endian:
//
//   "TRIVETST" u32 format
//   item*            item := u8 kind, u8 name length, name, u32 size, contents
//
// A section's beginning has its version (u32) as contents, its end has no name and no contents. A load compares kind, name and size
// of each item with what the program asks for, so a stream that was cut, reordered or made by hand is refused where it goes wrong.
#include "base/state.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = "TRIVETST";
enum { FORMAT = 1, NAME_MAX_BYTES = 63, DEPTH_MAX = 16, PATH_BYTES = 256 };
enum { FIRST_ALLOCATION = 4096 };

enum kind { K_BEGIN = 1, K_END, K_BOOL, K_U8, K_U16, K_U32, K_U64, K_BYTES, K_U64_ARRAY, K_COUNT };

static const char *const kind_names[] = {
    [K_BEGIN] = "section",   [K_END] = "end of section",
    [K_BOOL] = "bool",       [K_U8] = "u8",
    [K_U16] = "u16",         [K_U32] = "u32",
    [K_U64] = "u64",         [K_BYTES] = "bytes",
    [K_U64_ARRAY] = "u64[]", [K_COUNT] = "count",
};

// Invariants: pos <= len. While saving, out is ours and holds cap bytes of which len are used; while loading, in is the caller's.
// path is the open sections' names joined by '/'; path_end[i] is its length before section i was opened.
struct state {
    bool loading;
    unsigned char *out;
    const unsigned char *in;
    size_t len, cap, pos;
    struct tv_error error; // sticky
    unsigned depth;
    char path[PATH_BYTES];
    size_t path_end[DEPTH_MAX];
};

static void fail(struct state *s, int code, const char *text)
{
    if (s->error.code == 0)
        tv_error_set(&s->error, code, "saved state: %s%s%s", s->path, s->depth ? ": " : "", text);
}

void state_fail(struct state *s, const char *format, ...)
{
    char text[sizeof(s->error.text)];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fail(s, -EINVAL, text);
}

// ---- saving

static void put(struct state *s, const void *bytes, size_t len)
{
    if (s->error.code)
        return;
    if (len > s->cap - s->len) {
        size_t cap = s->cap ? s->cap : FIRST_ALLOCATION;
        while (cap - s->len < len && cap <= SIZE_MAX / 2)
            cap *= 2;
        unsigned char *bigger = cap - s->len < len ? NULL : realloc(s->out, cap);
        if (!bigger) {
            fail(s, -ENOMEM, "out of memory");
            return;
        }
        s->out = bigger;
        s->cap = cap;
    }
    if (len)
        memcpy(s->out + s->len, bytes, len);
    s->len += len;
}

static void put_u32(struct state *s, uint32_t value)
{
    value = htole32(value);
    put(s, &value, sizeof(value));
}

static void put_head(struct state *s, enum kind kind, const char *name, size_t size)
{
    const size_t name_len = strlen(name);
    assert(name_len <= NAME_MAX_BYTES);
    if (size > UINT32_MAX) {
        state_fail(s, "'%s' has %zu bytes; a field may have 4 GiB", name, size);
        return;
    }
    const unsigned char head[2] = {(unsigned char)kind, (unsigned char)name_len};
    put(s, head, sizeof(head));
    put(s, name, name_len);
    put_u32(s, (uint32_t)size);
}

// ---- loading

static const unsigned char *take(struct state *s, size_t len)
{
    if (s->error.code)
        return NULL;
    if (len > s->len - s->pos) {
        state_fail(s, "the stream ends at byte %zu, in the middle of an item", s->len);
        return NULL;
    }
    const unsigned char *at = s->in + s->pos;
    s->pos += len;
    return at;
}

static uint32_t get_u32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return le32toh(value);
}

// What stands in the stream is shown as far as it can be printed: it may be anything.
static void fail_mismatch(struct state *s, enum kind kind, const char *name, unsigned found_kind, const unsigned char *found,
                          size_t found_len)
{
    char shown[NAME_MAX_BYTES + 1];
    size_t n = 0;
    for (; n < found_len && n < sizeof(shown) - 1; n++)
        shown[n] = found[n] > ' ' && found[n] < 0x7f ? (char)found[n] : '?';
    shown[n] = 0;
    const char *found_kind_name =
        found_kind >= K_BEGIN && found_kind <= K_COUNT ? kind_names[found_kind] : "an unknown kind of item";
    state_fail(s, "expected %s '%s', the stream has %s '%s'", kind_names[kind], name, found_kind_name, shown);
}

// Returns the contents, `size` bytes, or NULL with the stream failed.
static const unsigned char *take_item(struct state *s, enum kind kind, const char *name, size_t size)
{
    const unsigned char *head = take(s, 2);
    if (!head)
        return NULL;
    const size_t name_len = head[1];
    const unsigned char *found = take(s, name_len);
    const unsigned char *sized = take(s, 4);
    if (!sized)
        return NULL;
    if (head[0] != kind || name_len != strlen(name) || memcmp(found, name, name_len) != 0) {
        fail_mismatch(s, kind, name, head[0], found, name_len);
        return NULL;
    }
    const uint32_t found_size = get_u32(sized);
    if (found_size != size) {
        state_fail(s, "'%s' should have %zu bytes, the stream has %u", name, size, found_size);
        return NULL;
    }
    return take(s, size);
}

// ---- creation and end

struct state *state_create_save(void)
{
    struct state *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    put(s, magic, sizeof(magic));
    put_u32(s, FORMAT);
    return s;
}

struct state *state_create_load(const void *buf, size_t len_bytes)
{
    struct state *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->loading = true;
    s->in = buf;
    s->len = len_bytes;
    if (len_bytes < sizeof(magic) + 4 || memcmp(buf, magic, sizeof(magic)) != 0) {
        state_fail(s, "this is not a saved state of trivet");
        return s;
    }
    const uint32_t format = get_u32(s->in + sizeof(magic));
    if (format != FORMAT)
        state_fail(s, "format %u is unknown; this program reads format %d", format, FORMAT);
    s->pos = sizeof(magic) + 4;
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
    return s->error.code != 0;
}

int state_finish(struct state *s, void **buf, size_t *len_bytes, struct tv_error *err)
{
    assert(s->depth == 0 || s->error.code);
    if (s->loading && s->pos != s->len)
        state_fail(s, "%zu bytes are left over at the end", s->len - s->pos);
    if (s->error.code)
        return tv_error_set(err, s->error.code, "%s", s->error.text);
    if (!s->loading) {
        assert(buf && len_bytes);
        *buf = s->out;
        *len_bytes = s->len;
        s->out = NULL;
        s->len = s->cap = 0;
        fail(s, -EINVAL, "the stream was already finished"); // a later put would begin in the middle
    }
    return 0;
}

// ---- sections

static void path_push(struct state *s, const char *name)
{
    assert(s->depth < DEPTH_MAX);
    size_t used = strlen(s->path);
    s->path_end[s->depth++] = used;
    snprintf(s->path + used, sizeof(s->path) - used, "%s%s", used ? "/" : "", name);
}

uint32_t state_section_begin(struct state *s, const char *name, uint32_t version)
{
    if (s->error.code)
        return version;
    if (!s->loading) {
        put_head(s, K_BEGIN, name, sizeof(version));
        put_u32(s, version);
        path_push(s, name);
        return version;
    }
    const unsigned char *at = take_item(s, K_BEGIN, name, sizeof(version));
    if (!at)
        return version;
    const uint32_t found = get_u32(at);
    path_push(s, name);
    if (found == 0) {
        state_fail(s, "its version is 0, and they count from 1; the file is damaged");
        return version;
    }
    if (found > version) {
        state_fail(s, "its version is %u, this program knows up to %u; load it with the newer trivet that wrote it", found,
                   version);
        return version;
    }
    return found;
}

void state_section_end(struct state *s)
{
    if (s->error.code)
        return;
    assert(s->depth > 0);
    if (s->loading)
        take_item(s, K_END, "", 0);
    else
        put_head(s, K_END, "", 0);
    if (s->error.code) // keep the path of the place where it went wrong
        return;
    s->path[s->path_end[--s->depth]] = 0;
}

// ---- fields

// The one place where a field goes either way; `bytes` is in the stream's order.
static void field(struct state *s, enum kind kind, const char *name, void *bytes, size_t size)
{
    if (!s->loading) {
        put_head(s, kind, name, size);
        put(s, bytes, size);
        return;
    }
    const unsigned char *at = take_item(s, kind, name, size);
    if (at && size)
        memcpy(bytes, at, size);
    else if (size)
        memset(bytes, 0, size);
}

void state_bool(struct state *s, const char *name, bool *value)
{
    uint8_t byte = s->loading ? 0 : *value;
    field(s, K_BOOL, name, &byte, 1);
    if (!s->loading)
        return;
    if (byte > 1)
        state_fail(s, "'%s' is %u; a bool is 0 or 1", name, byte);
    *value = byte == 1;
}

void state_u8(struct state *s, const char *name, uint8_t *value)
{
    field(s, K_U8, name, value, sizeof(*value));
}

void state_u16(struct state *s, const char *name, uint16_t *value)
{
    uint16_t le = s->loading ? 0 : htole16(*value);
    field(s, K_U16, name, &le, sizeof(le));
    if (s->loading)
        *value = le16toh(le);
}

static void field_u32(struct state *s, enum kind kind, const char *name, uint32_t *value)
{
    uint32_t le = s->loading ? 0 : htole32(*value);
    field(s, kind, name, &le, sizeof(le));
    if (s->loading)
        *value = le32toh(le);
}

void state_u32(struct state *s, const char *name, uint32_t *value)
{
    field_u32(s, K_U32, name, value);
}

void state_u64(struct state *s, const char *name, uint64_t *value)
{
    uint64_t le = s->loading ? 0 : htole64(*value);
    field(s, K_U64, name, &le, sizeof(le));
    if (s->loading)
        *value = le64toh(le);
}

void state_bytes(struct state *s, const char *name, void *buf, size_t len_bytes)
{
    field(s, K_BYTES, name, buf, len_bytes);
}

void state_u64_array(struct state *s, const char *name, uint64_t *values, size_t n)
{
    if (s->loading) {
        field(s, K_U64_ARRAY, name, values, n * sizeof(*values));
        for (size_t i = 0; i < n; i++)
            values[i] = le64toh(values[i]);
        return;
    }
    put_head(s, K_U64_ARRAY, name, n * sizeof(*values));
    for (size_t i = 0; i < n; i++) {
        const uint64_t le = htole64(values[i]);
        put(s, &le, sizeof(le));
    }
}

void state_count(struct state *s, const char *name, uint32_t *count, uint32_t max)
{
    field_u32(s, K_COUNT, name, count);
    if (*count > max) {
        state_fail(s, "'%s' is %u; at most %u are possible", name, *count, max);
        if (s->loading)
            *count = 0;
    }
}
