// The NBD protocol's messages as bytes, for both ends: a server (store/front/nbd.h) and a client. Pure logic; any thread.
//
// nbd_put_X() writes a message, nbd_get_X() reads and checks one; numbers are big-endian on the wire and the host's in the structs.
// A fixed-size message has its size in the signature, and the caller has that many bytes. One of any size is given with how many
// bytes there are: put returns how long it became, or -EMSGSIZE when there is not so much room; get returns 0, or -EPROTO when what
// is there is not such a message, every byte of it. What get finds points into the caller's bytes.
//
// Sections are those of doc/proto.md of the NBD project; the extension of extended headers is not spoken.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_STRING_MAX 4096u           // "Values": of names, queries and messages
#define NBD_PAYLOAD_DEFAULT (1u << 25) // "Size constraints": what may be read or written at once when nothing was said

// A string of the protocol: UTF-8 without an end, which is not checked here to be that.
struct nbd_string {
    const char *text;
    uint32_t len_bytes;
};

bool nbd_string_is(struct nbd_string string, const char *text);

// ---- handshake ("Newstyle negotiation", "Fixed newstyle negotiation") ----

enum {
    NBD_FLAG_FIXED_NEWSTYLE = 1u << 0, // both in the server's greeting and in the client's flags
    NBD_FLAG_NO_ZEROES = 1u << 1,
};

#define NBD_GREETING_BYTES 18u
void nbd_put_greeting(uint8_t out[static NBD_GREETING_BYTES], uint16_t flags);
int nbd_get_greeting(const uint8_t in[static NBD_GREETING_BYTES], uint16_t *flags);
#define NBD_CLIENT_FLAGS_BYTES 4u
void nbd_put_client_flags(uint8_t out[static NBD_CLIENT_FLAGS_BYTES], uint32_t flags);
uint32_t nbd_get_client_flags(const uint8_t in[static NBD_CLIENT_FLAGS_BYTES]);

enum nbd_option_type {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

// What stands before an option's data.
#define NBD_OPTION_BYTES 16u
struct nbd_option {
    uint32_t type, len_bytes;
};
void nbd_put_option(uint8_t out[static NBD_OPTION_BYTES], struct nbd_option option);
int nbd_get_option(const uint8_t in[static NBD_OPTION_BYTES], struct nbd_option *option);

enum {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
    NBD_REP_META_CONTEXT = 4,
    NBD_REP_ERROR = 1u << 31, // in all of those below; their data is a message for people
    NBD_REP_ERR_UNSUP = NBD_REP_ERROR + 1u,
    NBD_REP_ERR_POLICY = NBD_REP_ERROR + 2u,
    NBD_REP_ERR_INVALID = NBD_REP_ERROR + 3u,
    NBD_REP_ERR_PLATFORM = NBD_REP_ERROR + 4u,
    NBD_REP_ERR_TLS_REQD = NBD_REP_ERROR + 5u,
    NBD_REP_ERR_UNKNOWN = NBD_REP_ERROR + 6u,
    NBD_REP_ERR_SHUTDOWN = NBD_REP_ERROR + 7u,
    NBD_REP_ERR_BLOCK_SIZE_REQD = NBD_REP_ERROR + 8u,
    NBD_REP_ERR_TOO_BIG = NBD_REP_ERROR + 9u,
};

// What stands before the data of a reply to an option.
#define NBD_OPTION_REPLY_BYTES 20u
struct nbd_option_reply {
    uint32_t option, type, len_bytes;
};
void nbd_put_option_reply(uint8_t out[static NBD_OPTION_REPLY_BYTES], struct nbd_option_reply reply);
int nbd_get_option_reply(const uint8_t in[static NBD_OPTION_REPLY_BYTES], struct nbd_option_reply *reply);

// ---- data of options and of their replies ----

enum { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

// NBD_OPT_GO and NBD_OPT_INFO.
struct nbd_go {
    struct nbd_string name;
    unsigned n_infos;
    const uint8_t *infos; // of get: for nbd_go_wants()
};
int nbd_put_go(uint8_t *out, size_t room, struct nbd_string name, const uint16_t *infos, unsigned n_infos);
int nbd_get_go(const uint8_t *in, size_t len, struct nbd_go *go);
bool nbd_go_wants(const struct nbd_go *go, uint16_t info);

// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
struct nbd_meta {
    struct nbd_string name; // of the export
    uint32_t n_queries;
    const uint8_t *queries; // of get: for nbd_meta_next(), which counts n_queries down
};
int nbd_put_meta(uint8_t *out, size_t room, struct nbd_string name, const struct nbd_string *queries, unsigned n_queries);
int nbd_get_meta(const uint8_t *in, size_t len, struct nbd_meta *meta);
bool nbd_meta_next(struct nbd_meta *meta, struct nbd_string *query); // false: there was none left

#define NBD_CONTEXT_ALLOCATION "base:allocation"
enum { NBD_STATE_HOLE = 1u << 0, NBD_STATE_ZERO = 1u << 1 };

// NBD_REP_SERVER.
int nbd_put_server(uint8_t *out, size_t room, struct nbd_string name);
int nbd_get_server(const uint8_t *in, size_t len, struct nbd_string *name, struct nbd_string *description);
// NBD_REP_META_CONTEXT.
int nbd_put_context(uint8_t *out, size_t room, uint32_t id, struct nbd_string name);
int nbd_get_context(const uint8_t *in, size_t len, uint32_t *id, struct nbd_string *name);

enum {
    NBD_FLAG_HAS_FLAGS = 1u << 0,
    NBD_FLAG_READ_ONLY = 1u << 1,
    NBD_FLAG_SEND_FLUSH = 1u << 2,
    NBD_FLAG_SEND_FUA = 1u << 3,
    NBD_FLAG_ROTATIONAL = 1u << 4,
    NBD_FLAG_SEND_TRIM = 1u << 5,
    NBD_FLAG_SEND_WRITE_ZEROES = 1u << 6,
    NBD_FLAG_SEND_DF = 1u << 7,
    NBD_FLAG_CAN_MULTI_CONN = 1u << 8,
    NBD_FLAG_SEND_CACHE = 1u << 10,
    NBD_FLAG_SEND_FAST_ZERO = 1u << 11,
};

struct nbd_export_info {
    uint64_t size_bytes;
    uint16_t flags; // transmission flags, NBD_FLAG_HAS_FLAGS and what follows
};
struct nbd_block_info {
    uint32_t minimum_bytes, preferred_bytes, payload_max_bytes;
};

// NBD_REP_INFO of any kind. A kind that is not known here is fine, and has nothing but its number.
struct nbd_info {
    uint16_t type;
    struct nbd_export_info export; // NBD_INFO_EXPORT
    struct nbd_block_info block;   // NBD_INFO_BLOCK_SIZE
    struct nbd_string string;      // NBD_INFO_NAME, NBD_INFO_DESCRIPTION
};
int nbd_put_info(uint8_t *out, size_t room, const struct nbd_info *info);
// -EPROTO also for sizes that "Size constraints" forbids.
int nbd_get_info(const uint8_t *in, size_t len, struct nbd_info *info);

// The answer to NBD_OPT_EXPORT_NAME, which is no reply to an option. Zeroes follow it unless both ends have said NO_ZEROES.
#define NBD_EXPORT_BYTES 10u
#define NBD_EXPORT_ZEROES 124u
void nbd_put_export(uint8_t out[static NBD_EXPORT_BYTES], struct nbd_export_info info);
void nbd_get_export(const uint8_t in[static NBD_EXPORT_BYTES], struct nbd_export_info *info);

// ---- transmission ("Request message" and what follows it) ----

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1, // its data follows the request
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};

enum {
    NBD_CMD_FLAG_FUA = 1u << 0,
    NBD_CMD_FLAG_NO_HOLE = 1u << 1,
    NBD_CMD_FLAG_DF = 1u << 2,
    NBD_CMD_FLAG_REQ_ONE = 1u << 3,
    NBD_CMD_FLAG_FAST_ZERO = 1u << 4,
};

#define NBD_REQUEST_BYTES 28u
struct nbd_request {
    uint16_t flags, type;
    uint32_t len_bytes;
    uint64_t cookie; // the client's: not interpreted
    uint64_t offset_bytes;
};
void nbd_put_request(uint8_t out[static NBD_REQUEST_BYTES], const struct nbd_request *request);
int nbd_get_request(const uint8_t in[static NBD_REQUEST_BYTES], struct nbd_request *request);

enum {
    NBD_OK = 0,
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};
uint32_t nbd_error_of(int result); // 0 or -errno ("Error values")
int nbd_errno_of(uint32_t error);  // 0 or -errno; what is not known is -EINVAL

enum { NBD_REPLY_FLAG_DONE = 1u << 0 };
enum {
    NBD_REPLY_TYPE_NONE = 0,
    NBD_REPLY_TYPE_OFFSET_DATA = 1,
    NBD_REPLY_TYPE_OFFSET_HOLE = 2,
    NBD_REPLY_TYPE_BLOCK_STATUS = 5,
    NBD_REPLY_TYPE_ERROR = 1u << 15 | 1u, // bit 15: one of the errors
    NBD_REPLY_TYPE_ERROR_OFFSET = 1u << 15 | 2u,
};

// The head of a simple reply, or of a chunk of a structured one. Behind it: of a simple reply to a read that has no error, the
// data; of a chunk len_bytes, as its type has it.
#define NBD_SIMPLE_BYTES 16u
#define NBD_CHUNK_BYTES 20u
struct nbd_reply {
    bool is_structured;
    uint16_t flags, type; // structured
    uint32_t len_bytes;   // structured
    uint32_t error;       // simple: NBD_E*
    uint64_t cookie;
};
void nbd_put_simple(uint8_t out[static NBD_SIMPLE_BYTES], uint32_t error, uint64_t cookie);
void nbd_put_chunk(uint8_t out[static NBD_CHUNK_BYTES], const struct nbd_reply *reply);
// How many bytes the head has; 0: more than len are needed to tell; -EPROTO.
int nbd_get_reply(const uint8_t *in, size_t len, struct nbd_reply *reply);

// What chunks begin with behind their heads.
#define NBD_CHUNK_DATA_BYTES 8u // offset; the data follows
void nbd_put_chunk_data(uint8_t out[static NBD_CHUNK_DATA_BYTES], uint64_t offset_bytes);
uint64_t nbd_get_chunk_data(const uint8_t in[static NBD_CHUNK_DATA_BYTES]);
#define NBD_CHUNK_HOLE_BYTES 12u
void nbd_put_chunk_hole(uint8_t out[static NBD_CHUNK_HOLE_BYTES], uint64_t offset_bytes, uint32_t len_bytes);
void nbd_get_chunk_hole(const uint8_t in[static NBD_CHUNK_HOLE_BYTES], uint64_t *offset_bytes, uint32_t *len_bytes);

// NBD_REPLY_TYPE_ERROR and NBD_REPLY_TYPE_ERROR_OFFSET (`offset_bytes`, which get leaves alone otherwise); put writes the former.
int nbd_put_chunk_error(uint8_t *out, size_t room, uint32_t error, struct nbd_string message);
int nbd_get_chunk_error(const uint8_t *in, size_t len, uint16_t type, uint32_t *error, struct nbd_string *message,
                        uint64_t *offset_bytes);

// NBD_REPLY_TYPE_BLOCK_STATUS: the context's number and extents.
#define NBD_CHUNK_STATUS_BYTES 4u
#define NBD_EXTENT_BYTES 8u
struct nbd_extent {
    uint32_t len_bytes, flags; // NBD_STATE_*
};
void nbd_put_chunk_status(uint8_t out[static NBD_CHUNK_STATUS_BYTES], uint32_t context);
void nbd_put_extent(uint8_t out[static NBD_EXTENT_BYTES], struct nbd_extent extent);
// 0, and how many extents there are, all of them not empty.
int nbd_get_chunk_status(const uint8_t *in, size_t len, uint32_t *context, unsigned *n_extents);
struct nbd_extent nbd_get_extent(const uint8_t *in, unsigned i); // the i-th of that chunk, in: where the chunk's payload begins
