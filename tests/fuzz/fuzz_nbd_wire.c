// Any bytes as any of NBD's messages, as a client or a server gets them: what is found lies within the bytes. Input: a byte that
// says which message, then the message.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "store/nbd/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_string(struct nbd_string string, const uint8_t *in, size_t len)
{
    const uint8_t *text = (const uint8_t *)string.text;
    assert(string.len_bytes <= NBD_STRING_MAX);
    assert(!string.len_bytes || (text >= in && string.len_bytes <= (size_t)(in + len - text)));
}

static void get_go(const uint8_t *in, size_t len)
{
    struct nbd_go go;
    if (nbd_get_go(in, len, &go))
        return;
    check_string(go.name, in, len);
    nbd_go_wants(&go, NBD_INFO_BLOCK_SIZE);
}

static void get_meta(const uint8_t *in, size_t len)
{
    struct nbd_meta meta;
    struct nbd_string query;
    if (nbd_get_meta(in, len, &meta))
        return;
    check_string(meta.name, in, len);
    while (nbd_meta_next(&meta, &query))
        check_string(query, in, len);
}

static void get_server(const uint8_t *in, size_t len)
{
    struct nbd_string name, description;
    if (nbd_get_server(in, len, &name, &description))
        return;
    check_string(name, in, len);
    check_string(description, in, len);
}

static void get_context(const uint8_t *in, size_t len)
{
    struct nbd_string name;
    uint32_t id;
    if (!nbd_get_context(in, len, &id, &name))
        check_string(name, in, len);
}

static void get_info(const uint8_t *in, size_t len)
{
    struct nbd_info info;
    if (nbd_get_info(in, len, &info))
        return;
    check_string(info.string, in, len);
    assert(info.type != NBD_INFO_BLOCK_SIZE ||
           (info.block.minimum_bytes && info.block.preferred_bytes >= info.block.minimum_bytes));
}

static void get_error(const uint8_t *in, size_t len)
{
    struct nbd_string message;
    uint32_t error;
    uint64_t offset = 0;
    for (unsigned type = NBD_REPLY_TYPE_ERROR; type <= NBD_REPLY_TYPE_ERROR_OFFSET; type++)
        if (!nbd_get_chunk_error(in, len, (uint16_t)type, &error, &message, &offset)) {
            assert(error && nbd_errno_of(error) < 0);
            check_string(message, in, len);
        }
}

static void get_status(const uint8_t *in, size_t len)
{
    uint32_t context;
    unsigned n;
    if (nbd_get_chunk_status(in, len, &context, &n))
        return;
    assert(n && NBD_CHUNK_STATUS_BYTES + n * (size_t)NBD_EXTENT_BYTES == len);
    for (unsigned i = 0; i < n; i++)
        assert(nbd_get_extent(in, i).len_bytes);
}

static void get_reply(const uint8_t *in, size_t len)
{
    struct nbd_reply reply;
    const int head = nbd_get_reply(in, len, &reply);
    assert(head <= (int)len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const gets[])(const uint8_t *, size_t) = {
        get_go, get_meta, get_server, get_context, get_info, get_error, get_status, get_reply,
    };
    if (!size)
        return 0;
    // Of their own size, so that nothing behind them can be read.
    uint8_t *in = malloc(size - 1);
    memcpy(in, data + 1, size - 1);
    gets[data[0] % (sizeof(gets) / sizeof(gets[0]))](in, size - 1);
    free(in);
    return 0;
}
