// Lines of JSON on a Unix stream socket, descriptors beside them: what rpc.c stands on. Private to base.
#pragma once

#include "base/error.h"
#include "base/rpc.h"

#include <jansson.h>
#include <stddef.h>

struct rpc_out { // a line that waits to be sent
    struct rpc_out *next;
    char *text;
    size_t len_bytes, sent_bytes;
    int fds[RPC_FDS_MAX]; // copies, closed once sent
    size_t n_fds;
};

struct rpc_line {
    int fd; // owned
    char *in;
    size_t in_len, in_capacity, in_scanned;
    int in_fds[RPC_FDS_MAX * 2]; // arrived and not yet taken, in order
    size_t n_in_fds;
    struct rpc_out *out, **out_last;
    size_t out_bytes;
};

typedef void rpc_line_fn(void *arg, json_t *message); // borrows message

void rpc_line_init(struct rpc_line *l, int fd); // takes fd
void rpc_line_fini(struct rpc_line *l);         // closes fd unless it is -1
// -EMSGSIZE: longer than RPC_LINE_MAX; -ENOBUFS: too much waits for this reader already.
int rpc_line_put(struct rpc_line *l, const json_t *message, const int *fds, size_t n_fds);
int rpc_line_flush(struct rpc_line *l); // 1: some are left (the socket is full), 0: all sent, -errno
// Reads what is there and hands on each whole line. -errno when the connection is over: -ENOTCONN closed, -EBADMSG no JSON
// object, -EMSGSIZE too long a line, -EPROTO descriptors too many or unannounced.
int rpc_line_read(struct rpc_line *l, rpc_line_fn *fn, void *arg);
void rpc_line_take_fds(struct rpc_line *l, int *fds, size_t n);

json_t *rpc_request_message(const char *method, json_t *params, json_int_t id, size_t n_fds); // takes params; id 0: a notification
json_t *rpc_result_message(const json_t *id, json_t *result);                                 // takes result
json_t *rpc_error_message(const json_t *id, int rpc_code, const struct tv_error *err);
const json_t *rpc_answer_decode(const json_t *message, struct tv_error *err); // result, or NULL with err; borrowed
