// The blocking call, for programs without a loop: see rpc.h.
//
// Exactly one line at a time is taken from the socket, so that what follows the answer is there for the next call.
#include "base/rpc.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/rpc_line.h"

enum { CHUNK_BYTES = 64 << 10 };

// Unique in the process: a late answer to an earlier call that had run out of time is not taken for this one's. Relaxed: only the
// number counts.
static _Atomic json_int_t last_id;

struct text {
    char *bytes;
    size_t len, capacity;
};

static int wait_until(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd waiting = {.fd = fd, .events = events};
    int timeout_ms = -1;
    if (deadline_ns) {
        const uint64_t now = clock_now_ns();
        if (now >= deadline_ns)
            return -ETIMEDOUT;
        const uint64_t left_ms = (deadline_ns - now) / NS_PER_MS + 1;
        timeout_ms = left_ms < INT_MAX ? (int)left_ms : INT_MAX;
    }
    return poll(&waiting, 1, timeout_ms) < 0 && errno != EINTR ? -errno : 0;
}

static int make_room(struct text *line)
{
    if (line->capacity - line->len >= CHUNK_BYTES)
        return 0;
    if (line->len > RPC_LINE_MAX)
        return -EMSGSIZE;
    const size_t capacity = line->capacity * 2 + CHUNK_BYTES;
    char *bytes = realloc(line->bytes, capacity);
    if (!bytes)
        return -ENOMEM;
    line->bytes = bytes;
    line->capacity = capacity;
    return 0;
}

// Looks at what has come and takes it up to the end of the line. 1: the line is whole, without its newline; 0: more is to come.
// Descriptors are not asked for, so the kernel closes what comes.
static int take_some(int fd, struct text *line)
{
    int ret = make_room(line);
    if (ret < 0)
        return ret;
    char *at = line->bytes + line->len;
    const ssize_t seen = recv(fd, at, CHUNK_BYTES, MSG_PEEK | MSG_DONTWAIT);
    if (seen < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (seen == 0)
        return -ENOTCONN;
    const char *end = memchr(at, '\n', (size_t)seen);
    const size_t wanted = end ? (size_t)(end - at) + 1 : (size_t)seen;
    const ssize_t got = recv(fd, at, wanted, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    line->len += (size_t)got;
    // Fewer than wanted come when descriptors stand in between: the rest comes next time.
    const bool whole = end && (size_t)got == wanted;
    line->len -= whole;
    return whole;
}

static int flush(struct rpc_line *out, uint64_t deadline_ns)
{
    int ret;
    while ((ret = rpc_line_flush(out)) > 0)
        if ((ret = wait_until(out->fd, POLLOUT, deadline_ns)) < 0)
            break;
    return ret;
}

// 1 when this was the answer; notifications and answers to earlier calls are skipped, requests are told that nobody serves them
// here.
static int take_line(struct rpc_line *out, const struct text *line, json_int_t id, json_t **result, struct tv_error *err, int *code)
{
    json_t *message = json_loadb(line->bytes, line->len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *its_id = json_object_get(message, "id");
    int ret = message ? 0 : -EBADMSG;
    if (json_object_get(message, "method")) {
        if (its_id) {
            const struct tv_error refusal = {.code = -ENOSYS, .text = "this end serves no methods"};
            json_t *answer = rpc_error_message(its_id, RPC_NO_METHOD, &refusal);
            ret = rpc_line_put(out, answer, NULL, 0);
            json_decref(answer);
        }
    } else if (json_is_integer(its_id) && json_integer_value(its_id) == id) {
        struct tv_error said = {0};
        const json_t *got = rpc_answer_decode(message, &said);
        *result = json_deep_copy(got);
        if (!got)
            *code = tv_error_set(err, said.code, "%s", said.text);
        ret = 1;
    }
    json_decref(message);
    return ret;
}

static int exchange(struct rpc_line *out, json_int_t id, uint64_t deadline_ns, json_t **result, struct tv_error *err, int *code)
{
    struct text line = {0};
    int ret = 0;
    while (ret == 0) {
        ret = flush(out, deadline_ns);
        if (ret == 0)
            ret = wait_until(out->fd, POLLIN, deadline_ns);
        if (ret == 0)
            ret = take_some(out->fd, &line);
        if (ret == 1) {
            ret = take_line(out, &line, id, result, err, code);
            line.len = 0;
        }
    }
    free(line.bytes);
    return ret;
}

int rpc_call(int fd, const char *method, json_t *params, const int *fds, size_t n_fds, unsigned timeout_ms, json_t **result,
             struct tv_error *err)
{
    *result = NULL;
    const json_int_t id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
    json_t *message = rpc_request_message(method, params, id, n_fds);
    struct rpc_line out;
    rpc_line_init(&out, fd);
    int code = 0;
    int ret = message ? rpc_line_put(&out, message, fds, n_fds) : -ENOMEM;
    json_decref(message);
    if (ret == 0)
        ret = exchange(&out, id, timeout_ms ? clock_now_ns() + timeout_ms * NS_PER_MS : 0, result, err, &code);
    out.fd = -1; // the caller's
    rpc_line_fini(&out);
    if (ret < 0)
        return tv_error_set(err, ret, "%s: %s", method, ret == -ENOTCONN ? "the other end closed the connection" : strerror(-ret));
    return code;
}
