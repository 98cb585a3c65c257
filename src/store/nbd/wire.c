// The NBD protocol's messages as bytes: see wire.h.
#include "store/nbd/wire.h"

#include <errno.h>
#include <string.h>

#define INIT_PASSWD 0x4e42444d41474943u  // "NBDMAGIC"
#define OPTION_MAGIC 0x49484156454f5054u // "IHAVEOPT"
#define OPTION_REPLY_MAGIC 0x0003e889045565a9u
#define REQUEST_MAGIC 0x25609513u
#define SIMPLE_REPLY_MAGIC 0x67446698u
#define STRUCTURED_REPLY_MAGIC 0x668e33efu

#define BLOCK_MINIMUM_MAX (1u << 16) // "Size constraints"

// ---- numbers ----

static uint8_t *put16(uint8_t *out, uint16_t value)
{
    value = __builtin_bswap16(value);
    memcpy(out, &value, sizeof(value));
    return out + sizeof(value);
}

static uint8_t *put32(uint8_t *out, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(out, &value, sizeof(value));
    return out + sizeof(value);
}

static uint8_t *put64(uint8_t *out, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(out, &value, sizeof(value));
    return out + sizeof(value);
}

static uint16_t get16(const uint8_t *in)
{
    uint16_t value;
    memcpy(&value, in, sizeof(value));
    return __builtin_bswap16(value);
}

static uint32_t get32(const uint8_t *in)
{
    uint32_t value;
    memcpy(&value, in, sizeof(value));
    return __builtin_bswap32(value);
}

static uint64_t get64(const uint8_t *in)
{
    uint64_t value;
    memcpy(&value, in, sizeof(value));
    return __builtin_bswap64(value);
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are swapped");

// ---- strings ----

bool nbd_string_is(struct nbd_string string, const char *text)
{
    return string.len_bytes == strlen(text) && !memcmp(string.text, text, string.len_bytes);
}

static uint8_t *put_bytes(uint8_t *out, struct nbd_string string)
{
    if (string.len_bytes)
        memcpy(out, string.text, string.len_bytes);
    return out + string.len_bytes;
}

static uint8_t *put_string(uint8_t *out, struct nbd_string string)
{
    return put_bytes(put32(out, string.len_bytes), string);
}

// What is left of a message that is read from its start on.
struct input {
    const uint8_t *at;
    size_t left;
};

static bool take(struct input *in, size_t len, const uint8_t **bytes)
{
    if (in->left < len)
        return false;
    *bytes = in->at;
    in->at += len;
    in->left -= len;
    return true;
}

static bool take32(struct input *in, uint32_t *value)
{
    const uint8_t *bytes;
    if (!take(in, 4, &bytes))
        return false;
    *value = get32(bytes);
    return true;
}

static bool take_text(struct input *in, size_t len, struct nbd_string *string)
{
    const uint8_t *bytes;
    if (len > NBD_STRING_MAX || !take(in, len, &bytes))
        return false;
    *string = (struct nbd_string){(const char *)bytes, (uint32_t)len};
    return true;
}

static bool take_string(struct input *in, struct nbd_string *string)
{
    uint32_t len;
    return take32(in, &len) && take_text(in, len, string);
}

// ---- handshake ----

void nbd_put_greeting(uint8_t out[static NBD_GREETING_BYTES], uint16_t flags)
{
    put16(put64(put64(out, INIT_PASSWD), OPTION_MAGIC), flags);
}

int nbd_get_greeting(const uint8_t in[static NBD_GREETING_BYTES], uint16_t *flags)
{
    *flags = get16(in + 16);
    return get64(in) == INIT_PASSWD && get64(in + 8) == OPTION_MAGIC ? 0 : -EPROTO;
}

void nbd_put_client_flags(uint8_t out[static NBD_CLIENT_FLAGS_BYTES], uint32_t flags)
{
    put32(out, flags);
}

uint32_t nbd_get_client_flags(const uint8_t in[static NBD_CLIENT_FLAGS_BYTES])
{
    return get32(in);
}

void nbd_put_option(uint8_t out[static NBD_OPTION_BYTES], struct nbd_option option)
{
    put32(put32(put64(out, OPTION_MAGIC), option.type), option.len_bytes);
}

int nbd_get_option(const uint8_t in[static NBD_OPTION_BYTES], struct nbd_option *option)
{
    *option = (struct nbd_option){.type = get32(in + 8), .len_bytes = get32(in + 12)};
    return get64(in) == OPTION_MAGIC ? 0 : -EPROTO;
}

void nbd_put_option_reply(uint8_t out[static NBD_OPTION_REPLY_BYTES], struct nbd_option_reply reply)
{
    put32(put32(put32(put64(out, OPTION_REPLY_MAGIC), reply.option), reply.type), reply.len_bytes);
}

int nbd_get_option_reply(const uint8_t in[static NBD_OPTION_REPLY_BYTES], struct nbd_option_reply *reply)
{
    *reply = (struct nbd_option_reply){.option = get32(in + 8), .type = get32(in + 12), .len_bytes = get32(in + 16)};
    return get64(in) == OPTION_REPLY_MAGIC ? 0 : -EPROTO;
}

// ---- data of options ----

int nbd_put_go(uint8_t *out, size_t room, struct nbd_string name, const uint16_t *infos, unsigned n_infos)
{
    const size_t len = 4 + (size_t)name.len_bytes + 2 + 2 * (size_t)n_infos;
    if (len > room || n_infos > UINT16_MAX)
        return -EMSGSIZE;
    out = put16(put_string(out, name), (uint16_t)n_infos);
    for (unsigned i = 0; i < n_infos; i++)
        out = put16(out, infos[i]);
    return (int)len;
}

int nbd_get_go(const uint8_t *in, size_t len, struct nbd_go *go)
{
    struct input rest = {in, len};
    const uint8_t *count;
    if (!take_string(&rest, &go->name) || !take(&rest, 2, &count))
        return -EPROTO;
    go->n_infos = get16(count);
    return take(&rest, 2 * (size_t)go->n_infos, &go->infos) && !rest.left ? 0 : -EPROTO;
}

bool nbd_go_wants(const struct nbd_go *go, uint16_t info)
{
    for (unsigned i = 0; i < go->n_infos; i++)
        if (get16(go->infos + 2 * (size_t)i) == info)
            return true;
    return false;
}

int nbd_put_meta(uint8_t *out, size_t room, struct nbd_string name, const struct nbd_string *queries, unsigned n_queries)
{
    size_t len = 4 + (size_t)name.len_bytes + 4;
    for (unsigned i = 0; i < n_queries; i++)
        len += 4 + (size_t)queries[i].len_bytes;
    if (len > room)
        return -EMSGSIZE;
    out = put32(put_string(out, name), n_queries);
    for (unsigned i = 0; i < n_queries; i++)
        out = put_string(out, queries[i]);
    return (int)len;
}

int nbd_get_meta(const uint8_t *in, size_t len, struct nbd_meta *meta)
{
    struct input rest = {in, len};
    struct nbd_string query;
    if (!take_string(&rest, &meta->name) || !take32(&rest, &meta->n_queries))
        return -EPROTO;
    meta->queries = rest.at;
    for (uint32_t i = 0; i < meta->n_queries; i++)
        if (!take_string(&rest, &query))
            return -EPROTO;
    return rest.left ? -EPROTO : 0;
}

bool nbd_meta_next(struct nbd_meta *meta, struct nbd_string *query)
{
    if (!meta->n_queries)
        return false;
    meta->n_queries--;
    *query = (struct nbd_string){(const char *)meta->queries + 4, get32(meta->queries)};
    meta->queries += 4 + (size_t)query->len_bytes;
    return true;
}

// ---- data of replies to options ----

int nbd_put_server(uint8_t *out, size_t room, struct nbd_string name)
{
    if (room < 4 + (size_t)name.len_bytes)
        return -EMSGSIZE;
    put_string(out, name);
    return (int)(4 + name.len_bytes);
}

int nbd_get_server(const uint8_t *in, size_t len, struct nbd_string *name, struct nbd_string *description)
{
    struct input rest = {in, len};
    return take_string(&rest, name) && take_text(&rest, rest.left, description) ? 0 : -EPROTO;
}

int nbd_put_context(uint8_t *out, size_t room, uint32_t id, struct nbd_string name)
{
    if (room < 4 + (size_t)name.len_bytes)
        return -EMSGSIZE;
    put_bytes(put32(out, id), name);
    return (int)(4 + name.len_bytes);
}

int nbd_get_context(const uint8_t *in, size_t len, uint32_t *id, struct nbd_string *name)
{
    struct input rest = {in, len};
    return take32(&rest, id) && take_text(&rest, rest.left, name) ? 0 : -EPROTO;
}

int nbd_put_info(uint8_t *out, size_t room, const struct nbd_info *info)
{
    size_t len = 2;
    if (info->type == NBD_INFO_EXPORT)
        len += NBD_EXPORT_BYTES;
    else if (info->type == NBD_INFO_BLOCK_SIZE)
        len += 12;
    else
        len += info->string.len_bytes;
    if (room < len)
        return -EMSGSIZE;
    out = put16(out, info->type);
    if (info->type == NBD_INFO_EXPORT)
        nbd_put_export(out, info->export);
    else if (info->type == NBD_INFO_BLOCK_SIZE)
        put32(put32(put32(out, info->block.minimum_bytes), info->block.preferred_bytes), info->block.payload_max_bytes);
    else
        put_bytes(out, info->string);
    return (int)len;
}

static bool is_power_of_2(uint32_t value)
{
    return value && !(value & (value - 1));
}

static int get_block_info(const uint8_t *in, struct nbd_block_info *block)
{
    *block = (struct nbd_block_info){get32(in), get32(in + 4), get32(in + 8)};
    if (!is_power_of_2(block->minimum_bytes) || block->minimum_bytes > BLOCK_MINIMUM_MAX)
        return -EPROTO;
    if (!is_power_of_2(block->preferred_bytes) || block->preferred_bytes < block->minimum_bytes)
        return -EPROTO;
    return block->payload_max_bytes < block->minimum_bytes ? -EPROTO : 0;
}

int nbd_get_info(const uint8_t *in, size_t len, struct nbd_info *info)
{
    struct input rest = {in, len};
    const uint8_t *type;
    if (!take(&rest, 2, &type))
        return -EPROTO;
    *info = (struct nbd_info){.type = get16(type)};
    switch (info->type) {
    case NBD_INFO_EXPORT:
        if (rest.left != NBD_EXPORT_BYTES)
            return -EPROTO;
        nbd_get_export(rest.at, &info->export);
        return 0;
    case NBD_INFO_BLOCK_SIZE:
        return rest.left == 12 ? get_block_info(rest.at, &info->block) : -EPROTO;
    case NBD_INFO_NAME:
    case NBD_INFO_DESCRIPTION:
        return take_text(&rest, rest.left, &info->string) ? 0 : -EPROTO;
    default:
        return 0;
    }
}

void nbd_put_export(uint8_t out[static NBD_EXPORT_BYTES], struct nbd_export_info info)
{
    put16(put64(out, info.size_bytes), info.flags);
}

void nbd_get_export(const uint8_t in[static NBD_EXPORT_BYTES], struct nbd_export_info *info)
{
    *info = (struct nbd_export_info){.size_bytes = get64(in), .flags = get16(in + 8)};
}

// ---- transmission ----

void nbd_put_request(uint8_t out[static NBD_REQUEST_BYTES], const struct nbd_request *request)
{
    out = put16(put16(put32(out, REQUEST_MAGIC), request->flags), request->type);
    put32(put64(put64(out, request->cookie), request->offset_bytes), request->len_bytes);
}

int nbd_get_request(const uint8_t in[static NBD_REQUEST_BYTES], struct nbd_request *request)
{
    *request = (struct nbd_request){
        .flags = get16(in + 4),
        .type = get16(in + 6),
        .cookie = get64(in + 8),
        .offset_bytes = get64(in + 16),
        .len_bytes = get32(in + 24),
    };
    return get32(in) == REQUEST_MAGIC ? 0 : -EPROTO;
}

uint32_t nbd_error_of(int result)
{
    switch (-result) {
    case 0:
        return NBD_OK;
    case EPERM:
    case EROFS:
    case EACCES:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case EOPNOTSUPP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

int nbd_errno_of(uint32_t error)
{
    switch (error) {
    case NBD_OK:
        return 0;
    case NBD_EPERM:
        return -EPERM;
    case NBD_EIO:
        return -EIO;
    case NBD_ENOMEM:
        return -ENOMEM;
    case NBD_ENOSPC:
        return -ENOSPC;
    case NBD_EOVERFLOW:
        return -EOVERFLOW;
    case NBD_ENOTSUP:
        return -EOPNOTSUPP;
    case NBD_ESHUTDOWN:
        return -ESHUTDOWN;
    default:
        return -EINVAL; // "Error values": a client treats what it does not expect as that
    }
}

void nbd_put_simple(uint8_t out[static NBD_SIMPLE_BYTES], uint32_t error, uint64_t cookie)
{
    put64(put32(put32(out, SIMPLE_REPLY_MAGIC), error), cookie);
}

void nbd_put_chunk(uint8_t out[static NBD_CHUNK_BYTES], const struct nbd_reply *reply)
{
    out = put16(put16(put32(out, STRUCTURED_REPLY_MAGIC), reply->flags), reply->type);
    put32(put64(out, reply->cookie), reply->len_bytes);
}

int nbd_get_reply(const uint8_t *in, size_t len, struct nbd_reply *reply)
{
    if (len < 4)
        return 0;
    const uint32_t magic = get32(in);
    if (magic != SIMPLE_REPLY_MAGIC && magic != STRUCTURED_REPLY_MAGIC)
        return -EPROTO;
    const bool is_structured = magic == STRUCTURED_REPLY_MAGIC;
    const unsigned head = is_structured ? NBD_CHUNK_BYTES : NBD_SIMPLE_BYTES;
    if (len < head)
        return 0;
    *reply = (struct nbd_reply){.is_structured = is_structured, .cookie = get64(in + 8)};
    if (is_structured) {
        reply->flags = get16(in + 4);
        reply->type = get16(in + 6);
        reply->len_bytes = get32(in + 16);
    } else {
        reply->error = get32(in + 4);
    }
    return (int)head;
}

// ---- chunks ----

void nbd_put_chunk_data(uint8_t out[static NBD_CHUNK_DATA_BYTES], uint64_t offset_bytes)
{
    put64(out, offset_bytes);
}

uint64_t nbd_get_chunk_data(const uint8_t in[static NBD_CHUNK_DATA_BYTES])
{
    return get64(in);
}

void nbd_put_chunk_hole(uint8_t out[static NBD_CHUNK_HOLE_BYTES], uint64_t offset_bytes, uint32_t len_bytes)
{
    put32(put64(out, offset_bytes), len_bytes);
}

void nbd_get_chunk_hole(const uint8_t in[static NBD_CHUNK_HOLE_BYTES], uint64_t *offset_bytes, uint32_t *len_bytes)
{
    *offset_bytes = get64(in);
    *len_bytes = get32(in + 8);
}

int nbd_put_chunk_error(uint8_t *out, size_t room, uint32_t error, struct nbd_string message)
{
    const size_t len = 6 + (size_t)message.len_bytes;
    if (room < len || message.len_bytes > NBD_STRING_MAX)
        return -EMSGSIZE;
    put_bytes(put16(put32(out, error), (uint16_t)message.len_bytes), message);
    return (int)len;
}

int nbd_get_chunk_error(const uint8_t *in, size_t len, uint16_t type, uint32_t *error, struct nbd_string *message,
                        uint64_t *offset_bytes)
{
    struct input rest = {in, len};
    const uint8_t *bytes;
    if (!take32(&rest, error) || !*error || !take(&rest, 2, &bytes) || !take_text(&rest, get16(bytes), message))
        return -EPROTO;
    if (type != NBD_REPLY_TYPE_ERROR_OFFSET)
        return 0; // an error of another kind may go on with what only its kind knows
    if (!take(&rest, 8, &bytes) || rest.left)
        return -EPROTO;
    *offset_bytes = get64(bytes);
    return 0;
}

void nbd_put_chunk_status(uint8_t out[static NBD_CHUNK_STATUS_BYTES], uint32_t context)
{
    put32(out, context);
}

void nbd_put_extent(uint8_t out[static NBD_EXTENT_BYTES], struct nbd_extent extent)
{
    put32(put32(out, extent.len_bytes), extent.flags);
}

struct nbd_extent nbd_get_extent(const uint8_t *in, unsigned i)
{
    const uint8_t *at = in + NBD_CHUNK_STATUS_BYTES + NBD_EXTENT_BYTES * (size_t)i;
    return (struct nbd_extent){get32(at), get32(at + 4)};
}

int nbd_get_chunk_status(const uint8_t *in, size_t len, uint32_t *context, unsigned *n_extents)
{
    if (len < NBD_CHUNK_STATUS_BYTES + NBD_EXTENT_BYTES || (len - NBD_CHUNK_STATUS_BYTES) % NBD_EXTENT_BYTES ||
        (len - NBD_CHUNK_STATUS_BYTES) / NBD_EXTENT_BYTES > UINT32_MAX)
        return -EPROTO;
    *context = get32(in);
    *n_extents = (unsigned)((len - NBD_CHUNK_STATUS_BYTES) / NBD_EXTENT_BYTES);
    for (unsigned i = 0; i < *n_extents; i++)
        if (!nbd_get_extent(in, i).len_bytes)
            return -EPROTO;
    return 0;
}
