// Lines of JSON with descriptors: see rpc_line.h.
#include "base/rpc_line.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OUT_BYTES_MAX (4 * (size_t)RPC_LINE_MAX) // a reader that never reads is cut off

void rpc_line_init(struct rpc_line *l, int fd)
{
    *l = (struct rpc_line){.fd = fd};
    l->out_last = &l->out;
}

static void out_free(struct rpc_out *out)
{
    for (size_t i = 0; i < out->n_fds; i++)
        close(out->fds[i]);
    free(out->text);
    free(out);
}

void rpc_line_fini(struct rpc_line *l)
{
    while (l->out) {
        struct rpc_out *out = l->out;
        l->out = out->next;
        out_free(out);
    }
    for (size_t i = 0; i < l->n_in_fds; i++)
        close(l->in_fds[i]);
    free(l->in);
    if (l->fd >= 0)
        close(l->fd);
}

int rpc_line_put(struct rpc_line *l, const json_t *message, const int *fds, size_t n_fds)
{
    if (n_fds > RPC_FDS_MAX)
        return -EINVAL;
    struct rpc_out *out = calloc(1, sizeof(*out));
    char *text = json_dumps(message, JSON_COMPACT);
    if (!out || !text) {
        free(out);
        free(text);
        return -ENOMEM;
    }
    out->text = text;
    out->len_bytes = strlen(text) + 1;
    text[out->len_bytes - 1] = '\n'; // where the 0 stood: the length is kept
    int ret = 0;
    if (out->len_bytes > RPC_LINE_MAX)
        ret = -EMSGSIZE;
    else if (l->out_bytes + out->len_bytes > OUT_BYTES_MAX)
        ret = -ENOBUFS;
    for (; ret == 0 && out->n_fds < n_fds; out->n_fds++) {
        int copy = fcntl(fds[out->n_fds], F_DUPFD_CLOEXEC, 0);
        if (copy < 0) {
            ret = -errno;
            break;
        }
        out->fds[out->n_fds] = copy;
    }
    if (ret < 0) {
        out_free(out);
        return ret;
    }
    *l->out_last = out;
    l->out_last = &out->next;
    l->out_bytes += out->len_bytes;
    return 0;
}

// The descriptors go with the first byte of their line.
static ssize_t send_some(struct rpc_line *l, struct rpc_out *out)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int) * RPC_FDS_MAX)];
    } control = {0};
    struct iovec iov = {.iov_base = out->text + out->sent_bytes, .iov_len = out->len_bytes - out->sent_bytes};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (out->n_fds) {
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * out->n_fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * out->n_fds);
        memcpy(CMSG_DATA(c), out->fds, sizeof(int) * out->n_fds);
    }
    ssize_t sent = sendmsg(l->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent > 0 && out->n_fds)
        close(out->fds[--out->n_fds]);
    return sent;
}

int rpc_line_flush(struct rpc_line *l)
{
    while (l->out) {
        struct rpc_out *out = l->out;
        ssize_t sent = send_some(l, out);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN ? 1 : -errno;
        out->sent_bytes += (size_t)sent;
        l->out_bytes -= (size_t)sent;
        if (out->sent_bytes < out->len_bytes)
            continue;
        l->out = out->next;
        if (!l->out)
            l->out_last = &l->out;
        out_free(out);
    }
    return 0;
}

static int take_control(struct rpc_line *l, struct msghdr *msg)
{
    int ret = msg->msg_flags & MSG_CTRUNC ? -EPROTO : 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (l->n_in_fds == sizeof(l->in_fds) / sizeof(l->in_fds[0])) {
                close(fd);
                ret = -EPROTO;
            } else {
                l->in_fds[l->n_in_fds++] = fd;
            }
        }
    }
    return ret;
}

static int receive_some(struct rpc_line *l)
{
    if (l->in_capacity - l->in_len < 4096) {
        size_t capacity = l->in_capacity ? l->in_capacity * 2 : 8192;
        char *in = capacity <= 2 * (size_t)RPC_LINE_MAX ? realloc(l->in, capacity) : NULL;
        if (!in)
            return -EMSGSIZE;
        l->in = in;
        l->in_capacity = capacity;
    }
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int) * RPC_FDS_MAX)];
    } control;
    struct iovec iov = {.iov_base = l->in + l->in_len, .iov_len = l->in_capacity - l->in_len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
    ssize_t got;
    do
        got = recvmsg(l->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN ? 0 : -errno;
    int ret = take_control(l, &msg);
    if (ret < 0)
        return ret;
    if (got == 0)
        return -ENOTCONN;
    l->in_len += (size_t)got;
    return (int)got;
}

// One line, without its newline.
static int take_line(const char *text, size_t len, rpc_line_fn *fn, void *arg)
{
    if (len > RPC_LINE_MAX)
        return -EMSGSIZE;
    json_t *message = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(message)) {
        json_decref(message);
        return -EBADMSG;
    }
    fn(arg, message);
    json_decref(message);
    return 0;
}

static int take_lines(struct rpc_line *l, rpc_line_fn *fn, void *arg)
{
    size_t start = 0;
    const char *end;
    while ((end = memchr(l->in + l->in_scanned, '\n', l->in_len - l->in_scanned))) {
        const char *line = l->in + start;
        l->in_scanned = start = (size_t)(end - l->in) + 1;
        int ret = take_line(line, (size_t)(end - line), fn, arg);
        if (ret < 0)
            return ret;
    }
    memmove(l->in, l->in + start, l->in_len - start);
    l->in_len -= start;
    l->in_scanned = l->in_len;
    if (l->in_len > RPC_LINE_MAX)
        return -EMSGSIZE;
    if (l->in_len == 0 && l->n_in_fds)
        return -EPROTO; // descriptors that no line speaks of
    return 0;
}

int rpc_line_read(struct rpc_line *l, rpc_line_fn *fn, void *arg)
{
    int ret = receive_some(l);
    if (ret <= 0)
        return ret;
    return take_lines(l, fn, arg);
}

void rpc_line_take_fds(struct rpc_line *l, int *fds, size_t n)
{
    memcpy(fds, l->in_fds, n * sizeof(int));
    l->n_in_fds -= n;
    memmove(l->in_fds, l->in_fds + n, l->n_in_fds * sizeof(int));
}

json_t *rpc_request_message(const char *method, json_t *params, json_int_t id, size_t n_fds)
{
    json_t *message = json_pack("{s:s,s:s}", "jsonrpc", "2.0", "method", method);
    json_object_set_new(message, "params", params ? params : json_object());
    if (n_fds)
        json_object_set_new(message, "fds", json_integer((json_int_t)n_fds));
    if (id)
        json_object_set_new(message, "id", json_integer(id));
    return message;
}

static json_t *message_with_id(const json_t *id)
{
    json_t *message = json_pack("{s:s}", "jsonrpc", "2.0");
    json_object_set_new(message, "id", id ? json_deep_copy(id) : json_null());
    return message;
}

json_t *rpc_result_message(const json_t *id, json_t *result)
{
    json_t *message = message_with_id(id);
    json_object_set_new(message, "result", result ? result : json_object());
    return message;
}

// Text that may hold any bytes (a path, what a file said, a character that was cut) as a JSON string.
static json_t *string_of(const char *text)
{
    json_t *string = json_string(text);
    if (string)
        return string;
    char ascii[sizeof(((struct tv_error *)NULL)->text)];
    size_t n = 0;
    for (; n < sizeof(ascii) - 1 && text[n]; n++)
        ascii[n] = (unsigned char)text[n] < 0x80 ? text[n] : '?';
    ascii[n] = 0;
    return json_string(ascii);
}

json_t *rpc_error_message(const json_t *id, int rpc_code, const struct tv_error *err)
{
    json_t *message = message_with_id(id);
    const char *name = strerrorname_np(-err->code);
    json_object_set_new(
        message, "error",
        json_pack("{s:i,s:o,s:{s:s}}", "code", rpc_code, "message", string_of(err->text), "data", "errno", name ? name : "EIO"));
    return message;
}

static int errno_by_name(const char *name)
{
    for (int code = 1; name && code < 134; code++) {
        const char *known = strerrorname_np(code);
        if (known && strcmp(known, name) == 0)
            return -code;
    }
    return -EIO;
}

const json_t *rpc_answer_decode(const json_t *message, struct tv_error *err)
{
    const json_t *error = json_object_get(message, "error");
    const json_t *result = error ? NULL : json_object_get(message, "result");
    if (result)
        return result;
    const char *text = json_string_value(json_object_get(error, "message"));
    const char *name = json_string_value(json_object_get(json_object_get(error, "data"), "errno"));
    tv_error_set(err, errno_by_name(name), "%s", text ? text : "failed, without a message");
    return NULL;
}
