// NBD's messages: what one end puts the other gets, as the bytes that the protocol has; what is cut, too long or contradictory is
// refused. And what a server lets its client ask for.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "store/front/nbd_request.h"
#include "store/nbd/wire.h"

static struct nbd_string string(const char *text)
{
    return (struct nbd_string){text, (uint32_t)strlen(text)};
}

static void test_heads(void **state)
{
    (void)state;
    uint8_t bytes[64];
    uint16_t flags;
    nbd_put_greeting(bytes, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    assert_memory_equal(bytes, "NBDMAGICIHAVEOPT\0\3", NBD_GREETING_BYTES);
    assert_int_equal(nbd_get_greeting(bytes, &flags), 0);
    assert_int_equal(flags, 3);
    bytes[9] ^= 1;
    assert_int_equal(nbd_get_greeting(bytes, &flags), -EPROTO);
    nbd_put_client_flags(bytes, 0x01020304);
    assert_memory_equal(bytes, "\1\2\3\4", 4);
    assert_int_equal(nbd_get_client_flags(bytes), 0x01020304);

    struct nbd_option option;
    nbd_put_option(bytes, (struct nbd_option){NBD_OPT_GO, 0x1234});
    assert_memory_equal(bytes, "IHAVEOPT\0\0\0\7\0\0\x12\x34", NBD_OPTION_BYTES);
    assert_int_equal(nbd_get_option(bytes, &option), 0);
    assert_true(option.type == NBD_OPT_GO && option.len_bytes == 0x1234);
    bytes[0] ^= 1;
    assert_int_equal(nbd_get_option(bytes, &option), -EPROTO);

    struct nbd_option_reply reply;
    nbd_put_option_reply(bytes, (struct nbd_option_reply){NBD_OPT_LIST, NBD_REP_ERR_UNSUP, 5});
    assert_memory_equal(bytes, "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\3\x80\0\0\1\0\0\0\5", NBD_OPTION_REPLY_BYTES);
    assert_int_equal(nbd_get_option_reply(bytes, &reply), 0);
    assert_true(reply.option == NBD_OPT_LIST && reply.type == NBD_REP_ERR_UNSUP && reply.len_bytes == 5);
    bytes[2] ^= 1;
    assert_int_equal(nbd_get_option_reply(bytes, &reply), -EPROTO);
}

static void test_go(void **state)
{
    (void)state;
    uint8_t bytes[64];
    const uint16_t infos[] = {NBD_INFO_NAME, NBD_INFO_BLOCK_SIZE};
    struct nbd_go go;
    const int len = nbd_put_go(bytes, sizeof(bytes), string("disk"), infos, 2);
    assert_int_equal(len, 4 + 4 + 2 + 4);
    assert_memory_equal(bytes, "\0\0\0\4disk\0\2\0\1\0\3", 14);
    assert_int_equal(nbd_get_go(bytes, (size_t)len, &go), 0);
    assert_true(nbd_string_is(go.name, "disk") && go.n_infos == 2);
    assert_true(nbd_go_wants(&go, NBD_INFO_BLOCK_SIZE) && nbd_go_wants(&go, NBD_INFO_NAME) && !nbd_go_wants(&go, NBD_INFO_EXPORT));
    for (int cut = 0; cut < len; cut++) {
        assert_int_equal(nbd_get_go(bytes, (size_t)cut, &go), -EPROTO);
        assert_int_equal(nbd_put_go(bytes, (size_t)cut, string("disk"), infos, 2), -EMSGSIZE);
    }
    assert_int_equal(nbd_get_go(bytes, (size_t)len + 1, &go), -EPROTO);
    memset(bytes, 0xff, 4);
    assert_int_equal(nbd_get_go(bytes, (size_t)len, &go), -EPROTO);
}

static void test_meta(void **state)
{
    (void)state;
    uint8_t bytes[64];
    const struct nbd_string queries[] = {string("base:"), string(""), string(NBD_CONTEXT_ALLOCATION)};
    struct nbd_meta meta;
    struct nbd_string query;
    const int len = nbd_put_meta(bytes, sizeof(bytes), string("d"), queries, 3);
    assert_true(len > 0);
    for (int cut = 0; cut < len; cut++)
        assert_int_equal(nbd_get_meta(bytes, (size_t)cut, &meta), -EPROTO);
    assert_int_equal(nbd_get_meta(bytes, (size_t)len + 1, &meta), -EPROTO);
    assert_int_equal(nbd_get_meta(bytes, (size_t)len, &meta), 0);
    assert_true(nbd_string_is(meta.name, "d"));
    for (unsigned i = 0; i < 3; i++) {
        assert_true(nbd_meta_next(&meta, &query));
        assert_int_equal(query.len_bytes, queries[i].len_bytes);
        assert_memory_equal(query.text, queries[i].text, query.len_bytes);
    }
    assert_false(nbd_meta_next(&meta, &query));
    assert_int_equal(nbd_put_meta(bytes, (size_t)len - 1, string("d"), queries, 3), -EMSGSIZE);
    memcpy(bytes + 5, "\xff\xff\xff\xff", 4); // queries that are not there
    assert_int_equal(nbd_get_meta(bytes, (size_t)len, &meta), -EPROTO);
}

static void test_long_strings(void **state)
{
    (void)state;
    static uint8_t bytes[NBD_STRING_MAX + 64];
    static char text[NBD_STRING_MAX + 2];
    struct nbd_string name, description;
    memset(text, 'x', sizeof(text) - 1);
    struct nbd_string longest = {text, NBD_STRING_MAX}, longer = {text, NBD_STRING_MAX + 1};
    int len = nbd_put_server(bytes, sizeof(bytes), longest);
    assert_int_equal(nbd_get_server(bytes, (size_t)len, &name, &description), 0);
    assert_true(name.len_bytes == NBD_STRING_MAX && !description.len_bytes);
    len = nbd_put_server(bytes, sizeof(bytes), longer);
    assert_int_equal(nbd_get_server(bytes, (size_t)len, &name, &description), -EPROTO);
    len = nbd_put_server(bytes, sizeof(bytes), string("disk"));
    memcpy(bytes + len, "for people", 10);
    assert_int_equal(nbd_get_server(bytes, (size_t)len + 10, &name, &description), 0);
    assert_true(nbd_string_is(name, "disk") && nbd_string_is(description, "for people"));
    assert_int_equal(nbd_get_server(bytes, 7, &name, &description), -EPROTO);

    uint32_t id;
    len = nbd_put_context(bytes, sizeof(bytes), 7, string(NBD_CONTEXT_ALLOCATION));
    assert_int_equal(nbd_get_context(bytes, (size_t)len, &id, &name), 0);
    assert_true(id == 7 && nbd_string_is(name, NBD_CONTEXT_ALLOCATION));
    assert_int_equal(nbd_get_context(bytes, 3, &id, &name), -EPROTO);
    assert_int_equal(nbd_put_context(bytes, 10, 7, string(NBD_CONTEXT_ALLOCATION)), -EMSGSIZE);
}

static int sizes(uint32_t minimum, uint32_t preferred, uint32_t most)
{
    uint8_t bytes[32];
    struct nbd_info info = {.type = NBD_INFO_BLOCK_SIZE, .block = {minimum, preferred, most}};
    const int len = nbd_put_info(bytes, sizeof(bytes), &info);
    assert_int_equal(len, 14);
    assert_int_equal(nbd_get_info(bytes, 13, &info), -EPROTO);
    return nbd_get_info(bytes, 14, &info);
}

static void test_infos(void **state)
{
    (void)state;
    uint8_t bytes[64];
    struct nbd_info info = {.type = NBD_INFO_EXPORT, .export = {0x0102030405060708, 0x1234}};
    int len = nbd_put_info(bytes, sizeof(bytes), &info);
    assert_int_equal(len, 12);
    assert_memory_equal(bytes, "\0\0\1\2\3\4\5\6\7\x08\x12\x34", 12);
    info = (struct nbd_info){0};
    assert_int_equal(nbd_get_info(bytes, 12, &info), 0);
    assert_true(info.export.size_bytes == 0x0102030405060708 && info.export.flags == 0x1234);
    assert_int_equal(nbd_get_info(bytes, 11, &info), -EPROTO);
    assert_int_equal(nbd_get_info(bytes, 1, &info), -EPROTO);
    assert_int_equal(nbd_put_info(bytes, 11, &info), -EMSGSIZE);

    info = (struct nbd_info){.type = NBD_INFO_NAME, .string = string("disk")};
    len = nbd_put_info(bytes, sizeof(bytes), &info);
    info.string.len_bytes = 0;
    assert_int_equal(nbd_get_info(bytes, (size_t)len, &info), 0);
    assert_true(nbd_string_is(info.string, "disk"));
    assert_int_equal(nbd_get_info((const uint8_t *)"\x77\x77zz", 4, &info), 0); // unknown, and ignored

    assert_int_equal(sizes(1, 4096, 1 << 25), 0);
    assert_int_equal(sizes(65536, 65536, UINT32_MAX), 0);
    assert_int_equal(sizes(0, 4096, 1 << 25), -EPROTO);
    assert_int_equal(sizes(3, 4096, 1 << 25), -EPROTO);
    assert_int_equal(sizes(131072, 131072, 1 << 25), -EPROTO);
    assert_int_equal(sizes(4096, 512, 1 << 25), -EPROTO);
    assert_int_equal(sizes(512, 3000, 1 << 25), -EPROTO);
    assert_int_equal(sizes(4096, 4096, 512), -EPROTO);
}

static void test_requests(void **state)
{
    (void)state;
    uint8_t bytes[NBD_REQUEST_BYTES];
    const struct nbd_request sent = {NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, 0x01020304, 0x1122334455667788, 0xa1a2a3a4a5a6a7a8};
    struct nbd_request got;
    nbd_put_request(bytes, &sent);
    assert_memory_equal(bytes, "\x25\x60\x95\x13\0\1\0\1\x11\x22\x33\x44\x55\x66\x77\x88\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8\1\2\3\4",
                        NBD_REQUEST_BYTES);
    assert_int_equal(nbd_get_request(bytes, &got), 0);
    assert_true(got.flags == sent.flags && got.type == sent.type && got.cookie == sent.cookie);
    assert_true(got.offset_bytes == sent.offset_bytes && got.len_bytes == sent.len_bytes);
    bytes[3]++;
    assert_int_equal(nbd_get_request(bytes, &got), -EPROTO);
}

static void test_replies(void **state)
{
    (void)state;
    uint8_t bytes[NBD_CHUNK_BYTES];
    struct nbd_reply reply;
    nbd_put_simple(bytes, NBD_EIO, 0x1122334455667788);
    assert_memory_equal(bytes, "\x67\x44\x66\x98\0\0\0\5\x11\x22\x33\x44\x55\x66\x77\x88", NBD_SIMPLE_BYTES);
    for (size_t len = 0; len < NBD_SIMPLE_BYTES; len++)
        assert_int_equal(nbd_get_reply(bytes, len, &reply), 0);
    assert_int_equal(nbd_get_reply(bytes, NBD_SIMPLE_BYTES, &reply), NBD_SIMPLE_BYTES);
    assert_true(!reply.is_structured && reply.error == NBD_EIO && reply.cookie == 0x1122334455667788);

    const struct nbd_reply chunk = {
        .flags = NBD_REPLY_FLAG_DONE, .type = NBD_REPLY_TYPE_OFFSET_HOLE, .len_bytes = 12, .cookie = 0x1122334455667788};
    nbd_put_chunk(bytes, &chunk);
    assert_memory_equal(bytes, "\x66\x8e\x33\xef\0\1\0\2\x11\x22\x33\x44\x55\x66\x77\x88\0\0\0\x0c", NBD_CHUNK_BYTES);
    for (size_t len = 0; len < NBD_CHUNK_BYTES; len++)
        assert_int_equal(nbd_get_reply(bytes, len, &reply), 0);
    assert_int_equal(nbd_get_reply(bytes, NBD_CHUNK_BYTES, &reply), NBD_CHUNK_BYTES);
    assert_true(reply.is_structured && reply.flags == 1 && reply.type == NBD_REPLY_TYPE_OFFSET_HOLE && reply.len_bytes == 12);
    bytes[0] ^= 0x80;
    assert_int_equal(nbd_get_reply(bytes, 4, &reply), -EPROTO);
}

static void test_chunks(void **state)
{
    (void)state;
    uint8_t bytes[64];
    uint64_t offset = 0;
    uint32_t value;
    unsigned n;
    struct nbd_string message;
    nbd_put_chunk_data(bytes, 0x1122334455667788);
    assert_true(nbd_get_chunk_data(bytes) == 0x1122334455667788);
    nbd_put_chunk_hole(bytes, 0x1122334455667788, 99);
    nbd_get_chunk_hole(bytes, &offset, &value);
    assert_true(offset == 0x1122334455667788 && value == 99);

    int len = nbd_put_chunk_error(bytes, sizeof(bytes), NBD_ENOSPC, string("full"));
    assert_int_equal(len, 10);
    assert_int_equal(nbd_put_chunk_error(bytes, 9, NBD_ENOSPC, string("full")), -EMSGSIZE);
    assert_int_equal(nbd_get_chunk_error(bytes, 10, NBD_REPLY_TYPE_ERROR, &value, &message, &offset), 0);
    assert_true(value == NBD_ENOSPC && nbd_string_is(message, "full"));
    assert_int_equal(nbd_get_chunk_error(bytes, 9, NBD_REPLY_TYPE_ERROR, &value, &message, &offset), -EPROTO);
    assert_int_equal(nbd_get_chunk_error(bytes, 10, NBD_REPLY_TYPE_ERROR_OFFSET, &value, &message, &offset), -EPROTO);
    memcpy(bytes + 10, "\0\0\0\0\0\0\x10\0", 8);
    assert_int_equal(nbd_get_chunk_error(bytes, 18, NBD_REPLY_TYPE_ERROR_OFFSET, &value, &message, &offset), 0);
    assert_int_equal(offset, 4096);
    memset(bytes, 0, 4); // an error that is none
    assert_int_equal(nbd_get_chunk_error(bytes, 10, NBD_REPLY_TYPE_ERROR, &value, &message, &offset), -EPROTO);

    nbd_put_chunk_status(bytes, 3);
    nbd_put_extent(bytes + 4, (struct nbd_extent){512, NBD_STATE_HOLE | NBD_STATE_ZERO});
    nbd_put_extent(bytes + 12, (struct nbd_extent){1024, 0});
    assert_int_equal(nbd_get_chunk_status(bytes, 20, &value, &n), 0);
    assert_true(value == 3 && n == 2);
    assert_true(nbd_get_extent(bytes, 0).flags == 3 && nbd_get_extent(bytes, 1).len_bytes == 1024);
    assert_int_equal(nbd_get_chunk_status(bytes, 19, &value, &n), -EPROTO);
    assert_int_equal(nbd_get_chunk_status(bytes, 4, &value, &n), -EPROTO);
    nbd_put_extent(bytes + 12, (struct nbd_extent){0, 0});
    assert_int_equal(nbd_get_chunk_status(bytes, 20, &value, &n), -EPROTO);
}

static void test_errors(void **state)
{
    (void)state;
    static const int same[] = {0, -EPERM, -EIO, -ENOMEM, -EINVAL, -ENOSPC, -EOVERFLOW, -EOPNOTSUPP, -ESHUTDOWN};
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        assert_int_equal(nbd_errno_of(nbd_error_of(same[i])), same[i]);
    assert_int_equal(nbd_error_of(-EDQUOT), NBD_ENOSPC);
    assert_int_equal(nbd_error_of(-EFBIG), NBD_ENOSPC);
    assert_int_equal(nbd_error_of(-EROFS), NBD_EPERM);
    assert_int_equal(nbd_error_of(-ENODATA), NBD_EIO);
    assert_int_equal(nbd_errno_of(12345), -EINVAL);
}

// ---- what a server lets its client do ----

static struct nbd_terms terms = {
    .size_bytes = 1ull << 40, .block_bytes = 512, .can_trim = true, .structured = true, .has_context = true};

static uint32_t check(uint16_t type, uint16_t flags, uint64_t offset, uint32_t len)
{
    const struct nbd_request request = {.type = type, .flags = flags, .offset_bytes = offset, .len_bytes = len};
    const char *why = NULL;
    const uint32_t error = nbd_request_check(&request, &terms, &why);
    assert_true(!error == !why);
    return error;
}

static void test_ranges(void **state)
{
    (void)state;
    const uint64_t end = terms.size_bytes;
    assert_int_equal(check(NBD_CMD_READ, 0, end - 512, 512), NBD_OK);
    assert_int_equal(check(NBD_CMD_READ, 0, end - 512, 1024), NBD_EINVAL);
    assert_int_equal(check(NBD_CMD_READ, 0, UINT64_MAX - 511, 512), NBD_EINVAL);
    assert_int_equal(check(NBD_CMD_WRITE, 0, end, 512), NBD_ENOSPC);
    assert_int_equal(check(NBD_CMD_WRITE_ZEROES, 0, UINT64_MAX - 511, 1024), NBD_ENOSPC);
    assert_int_equal(check(NBD_CMD_WRITE_ZEROES, 0, 0, UINT32_MAX - 511), NBD_OK);
    assert_int_equal(check(NBD_CMD_TRIM, 0, end, 512), NBD_EINVAL);
    assert_int_equal(check(NBD_CMD_CACHE, 0, end, 512), NBD_EINVAL);
    assert_int_equal(check(NBD_CMD_BLOCK_STATUS, 0, end, 512), NBD_EINVAL);
    assert_int_equal(check(NBD_CMD_BLOCK_STATUS, 0, 0, 0), NBD_EINVAL);
    assert_int_equal(check(NBD_CMD_READ, 0, 1, 512), NBD_EINVAL);
    assert_int_equal(check(NBD_CMD_READ, 0, 0, 511), NBD_EINVAL);
    assert_int_equal(check(NBD_CMD_READ, 0, end + 1, 0), NBD_OK);
    assert_int_equal(check(NBD_CMD_READ, 0, 0, NBD_PAYLOAD_DEFAULT), NBD_OK);
    assert_int_equal(check(NBD_CMD_READ, 0, 0, NBD_PAYLOAD_DEFAULT + 512), NBD_EINVAL);
    assert_int_equal(check(NBD_CMD_FLUSH, 0, 0, 0), NBD_OK);
    assert_int_equal(check(NBD_CMD_FLUSH, 0, 512, 0), NBD_EINVAL);
    assert_int_equal(check(8, 0, 0, 0), NBD_EINVAL);
}

static void test_flags(void **state)
{
    (void)state;
    static const uint16_t with[][2] = {
        {NBD_CMD_READ, NBD_CMD_FLAG_DF},
        {NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO},
        {NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE},
    };
    for (unsigned type = 0; type <= NBD_CMD_BLOCK_STATUS; type++) {
        uint16_t good = NBD_CMD_FLAG_FUA;
        for (size_t i = 0; i < 3; i++)
            good |= with[i][0] == type ? with[i][1] : 0;
        if (type == NBD_CMD_FLUSH || type == NBD_CMD_DISC)
            continue;
        for (unsigned bit = 0; bit < 16; bit++)
            assert_int_equal(check((uint16_t)type, (uint16_t)(1u << bit), 0, 512), good >> bit & 1 ? NBD_OK : NBD_EINVAL);
    }
    terms.structured = false;
    assert_int_equal(check(NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 512), NBD_EINVAL);
    assert_false(nbd_terms_flags(&terms) & NBD_FLAG_SEND_DF);
    terms.structured = true;
    assert_true(nbd_terms_flags(&terms) & NBD_FLAG_SEND_DF);
    terms.has_context = false;
    assert_int_equal(check(NBD_CMD_BLOCK_STATUS, 0, 0, 512), NBD_EINVAL);
    terms.has_context = true;
}

static void test_read_only(void **state)
{
    (void)state;
    terms.read_only = true;
    assert_int_equal(check(NBD_CMD_WRITE, 0, 0, 512), NBD_EPERM);
    assert_int_equal(check(NBD_CMD_TRIM, 0, 0, 512), NBD_EPERM);
    assert_int_equal(check(NBD_CMD_WRITE_ZEROES, 0, 0, 512), NBD_EPERM);
    assert_int_equal(check(NBD_CMD_READ, 0, 0, 512), NBD_OK);
    const uint16_t flags = nbd_terms_flags(&terms);
    assert_true(flags & NBD_FLAG_READ_ONLY &&
                !(flags & (NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO)));
    terms.read_only = false;
    terms.can_trim = false;
    assert_int_equal(check(NBD_CMD_TRIM, 0, 0, 512), NBD_EINVAL);
    assert_false(nbd_terms_flags(&terms) & NBD_FLAG_SEND_TRIM);
    terms.can_trim = true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads),        cmocka_unit_test(test_go),     cmocka_unit_test(test_meta),
        cmocka_unit_test(test_long_strings), cmocka_unit_test(test_infos),  cmocka_unit_test(test_requests),
        cmocka_unit_test(test_replies),      cmocka_unit_test(test_chunks), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_ranges),       cmocka_unit_test(test_flags),  cmocka_unit_test(test_read_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
