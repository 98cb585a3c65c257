// A connection to an NBD server, from the socket to transmission: see nbd_private.h. All of it waits, for a time that is bounded.
#include "store/volume/nbd_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define REPLY_BYTES_MAX 16384u // of an option's reply: strings are of 4096 bytes at most
#define REPLIES_MAX 64u        // to one option

static int connect_unix(const struct nbd_way *way)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const int len = snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/%s", way->dir_fd, way->name);
    if (len < 0 || (size_t)len >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
        return fd;
    const int code = errno;
    close(fd);
    return -code;
}

static int set_timeout(int fd, unsigned timeout_s)
{
    const struct timeval t = {.tv_sec = timeout_s};
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); // fails on others, and does not matter there
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t)))
        return -errno;
    return 0;
}

static int connect_tcp(const struct nbd_way *way, unsigned timeout_s)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(way->port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(way->port)};
    const bool is_v4 = inet_pton(AF_INET, way->address, &v4.sin_addr) == 1;
    if (!is_v4 && inet_pton(AF_INET6, way->address, &v6.sin6_addr) != 1)
        return -EINVAL;
    int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    set_timeout(fd, timeout_s); // of connecting as well
    if (connect(fd, is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, is_v4 ? sizeof(v4) : sizeof(v6)) == 0)
        return fd;
    const int code = errno;
    close(fd);
    return code == EINPROGRESS ? -ETIMEDOUT : -code;
}

static int get(int fd, void *to, size_t len)
{
    for (uint8_t *at = to; len;) {
        const ssize_t n = recv(fd, at, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? -ECONNRESET : errno == EAGAIN ? -ETIMEDOUT : -errno;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

static int put(int fd, const void *from, size_t len)
{
    for (const uint8_t *at = from; len;) {
        const ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

static int wrong(struct tv_error *err, const char *what)
{
    return tv_error_set(err, -EPROTO, "the server does not speak NBD as it should: %s", what);
}

static int broke(struct tv_error *err, int code)
{
    return tv_error_set(err, code, "%s", code == -ECONNRESET ? "the server closed the connection" : strerror(-code));
}

static int greet(int fd, struct tv_error *err)
{
    uint8_t greeting[NBD_GREETING_BYTES], answer[NBD_CLIENT_FLAGS_BYTES];
    uint16_t flags;
    int r = get(fd, greeting, sizeof(greeting));
    if (r)
        return broke(err, r);
    if (nbd_get_greeting(greeting, &flags) || !(flags & NBD_FLAG_FIXED_NEWSTYLE))
        return wrong(err, "no fixed newstyle greeting");
    nbd_put_client_flags(answer, NBD_FLAG_FIXED_NEWSTYLE | (flags & NBD_FLAG_NO_ZEROES));
    r = put(fd, answer, sizeof(answer));
    return r ? broke(err, r) : 0;
}

static int ask(int fd, uint32_t option, const void *data, size_t len, struct tv_error *err)
{
    uint8_t head[NBD_OPTION_BYTES];
    nbd_put_option(head, (struct nbd_option){.type = option, .len_bytes = (uint32_t)len});
    int r = put(fd, head, sizeof(head));
    if (!r && len)
        r = put(fd, data, len);
    return r ? broke(err, r) : 0;
}

static int hear(int fd, uint32_t option, struct nbd_option_reply *reply, uint8_t data[static REPLY_BYTES_MAX], struct tv_error *err)
{
    uint8_t head[NBD_OPTION_REPLY_BYTES];
    int r = get(fd, head, sizeof(head));
    if (r)
        return broke(err, r);
    if (nbd_get_option_reply(head, reply) || reply->option != option || reply->len_bytes > REPLY_BYTES_MAX)
        return wrong(err, "a reply to an option that was not asked for, or is too long");
    r = get(fd, data, reply->len_bytes);
    return r ? broke(err, r) : 0;
}

static bool is_error(const struct nbd_option_reply *reply)
{
    return reply->type & NBD_REP_ERROR;
}

// That it is not known is fine.
static int ask_structured(int fd, struct nbd_terms *terms, struct tv_error *err)
{
    uint8_t data[REPLY_BYTES_MAX];
    struct nbd_option_reply reply = {0};
    int r = ask(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0, err);
    if (!r)
        r = hear(fd, NBD_OPT_STRUCTURED_REPLY, &reply, data, err);
    if (!r)
        terms->is_structured = reply.type == NBD_REP_ACK;
    return r;
}

static int ask_context(int fd, struct nbd_string export, struct nbd_terms *terms, struct tv_error *err)
{
    const struct nbd_string query = {NBD_CONTEXT_ALLOCATION, sizeof(NBD_CONTEXT_ALLOCATION) - 1};
    uint8_t data[REPLY_BYTES_MAX];
    struct nbd_option_reply reply = {0};
    struct nbd_string name;
    const int len = nbd_put_meta(data, sizeof(data), export, &query, 1);
    int r = len < 0 ? wrong(err, "the export's name is too long") : ask(fd, NBD_OPT_SET_META_CONTEXT, data, (size_t)len, err);
    for (unsigned i = 0; !r; i++) {
        r = hear(fd, NBD_OPT_SET_META_CONTEXT, &reply, data, err);
        if (r || reply.type == NBD_REP_ACK || is_error(&reply))
            return r;
        if (i == REPLIES_MAX || reply.type != NBD_REP_META_CONTEXT ||
            nbd_get_context(data, reply.len_bytes, &terms->context, &name) || !nbd_string_is(name, NBD_CONTEXT_ALLOCATION))
            return wrong(err, "another metadata context than was asked for");
        terms->has_context = true;
    }
    return r;
}

static int refused(const struct nbd_option_reply *reply, const uint8_t *message, struct tv_error *err)
{
    const int len = reply->len_bytes > 200 ? 200 : (int)reply->len_bytes;
    return tv_error_set(err, reply->type == NBD_REP_ERR_UNKNOWN ? -ENOENT : -EPERM, "the server refuses%s%s: %.*s",
                        reply->type == NBD_REP_ERR_UNKNOWN ? ", it has no such export" : "",
                        reply->type == NBD_REP_ERR_TLS_REQD ? " without TLS, which is not spoken here" : "", len, message);
}

static int take_info(const uint8_t *data, size_t len, struct nbd_terms *terms, bool *has_export, struct tv_error *err)
{
    struct nbd_info info;
    if (nbd_get_info(data, len, &info))
        return wrong(err, "what it tells of its export");
    if (info.type == NBD_INFO_EXPORT) {
        terms->size_bytes = info.export.size_bytes;
        terms->flags = info.export.flags;
        *has_export = true;
    } else if (info.type == NBD_INFO_BLOCK_SIZE) {
        terms->block_bytes = info.block.minimum_bytes;
        terms->payload_max_bytes = info.block.payload_max_bytes;
    }
    return 0;
}

static int go(int fd, struct nbd_string export, struct nbd_terms *terms, struct tv_error *err)
{
    static const uint16_t infos[] = {NBD_INFO_BLOCK_SIZE};
    uint8_t data[REPLY_BYTES_MAX];
    struct nbd_option_reply reply = {0};
    bool has_export = false;
    const int len = nbd_put_go(data, sizeof(data), export, infos, 1);
    int r = len < 0 ? wrong(err, "the export's name is too long") : ask(fd, NBD_OPT_GO, data, (size_t)len, err);
    for (unsigned i = 0; !r; i++) {
        r = hear(fd, NBD_OPT_GO, &reply, data, err);
        if (r)
            return r;
        if (is_error(&reply))
            return refused(&reply, data, err);
        if (reply.type == NBD_REP_ACK)
            return has_export ? 0 : wrong(err, "it does not say how large its export is");
        if (i == REPLIES_MAX || reply.type != NBD_REP_INFO)
            return wrong(err, "an endless answer");
        r = take_info(data, reply.len_bytes, terms, &has_export, err);
    }
    return r;
}

static int check(struct nbd_terms *terms, struct tv_error *err)
{
    if (!terms->size_bytes || terms->size_bytes > INT64_MAX)
        return tv_error_set(err, -EINVAL, "the export has %llu bytes", (unsigned long long)terms->size_bytes);
    if (terms->block_bytes > 4096)
        return tv_error_set(err, -EOPNOTSUPP, "the server wants blocks of %u bytes; a disk's have 4096 at most",
                            terms->block_bytes);
    if (terms->block_bytes < 512)
        terms->block_bytes = 512; // anything goes: what is asked for are multiples of this
    if (terms->size_bytes % terms->block_bytes)
        return tv_error_set(err, -EINVAL, "the export has %llu bytes, which is no multiple of %u",
                            (unsigned long long)terms->size_bytes, terms->block_bytes);
    if (!terms->payload_max_bytes || terms->payload_max_bytes > NBD_PAYLOAD_DEFAULT)
        terms->payload_max_bytes = NBD_PAYLOAD_DEFAULT;
    return 0;
}

static int negotiate(int fd, const struct nbd_way *way, struct nbd_terms *terms, struct tv_error *err)
{
    const struct nbd_string export = {way->export, (uint32_t)strlen(way->export)};
    *terms = (struct nbd_terms){0};
    int r = greet(fd, err);
    if (!r)
        r = ask_structured(fd, terms, err);
    if (!r && terms->is_structured)
        r = ask_context(fd, export, terms, err);
    if (!r)
        r = go(fd, export, terms, err);
    return r ? r : check(terms, err);
}

int nbd_client_connect(const struct nbd_way *way, unsigned timeout_s, struct nbd_terms *terms, struct tv_error *err)
{
    int fd = way->dir_fd >= 0 ? connect_unix(way) : connect_tcp(way, timeout_s);
    if (fd < 0)
        return tv_error_set(err, fd, "cannot be reached: %s", strerror(-fd));
    int r = set_timeout(fd, timeout_s);
    if (r)
        tv_error_set(err, r, "%s", strerror(-r));
    if (!r)
        r = negotiate(fd, way, terms, err);
    if (!r && fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        r = tv_error_set(err, -errno, "%s", strerror(errno));
    if (!r)
        return fd;
    close(fd);
    return r;
}
