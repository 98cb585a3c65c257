// A peer that sends anything, with descriptors anywhere: the server answers or hangs up, and no descriptor stays open.
//
// Input: chunks, each a head byte (low 5 bits: how many descriptors go with it) and bytes up to the next 0.
#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/rpc.h"

enum { CHUNK_MAX = 8192, FDS_MAX = 31, ROUNDS_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct rpc_request *held;

static void echo(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg;
    assert(json_is_object(params));
    rpc_reply(req, json_deep_copy(params));
}

static void take(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg, (void)params;
    int fd = req ? rpc_request_take_fd(req, 0) : -1;
    if (fd >= 0)
        close(fd);
    rpc_reply(req, NULL);
}

static void hold(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg, (void)params;
    rpc_reply(held, NULL);
    held = req;
}

static void end(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    rpc_reply(req, NULL);
    rpc_conn_destroy(*(struct rpc_conn **)arg);
    *(struct rpc_conn **)arg = NULL;
}

static void closed(void *arg, struct rpc_conn *conn)
{
    assert(conn == *(struct rpc_conn **)arg);
    *(struct rpc_conn **)arg = NULL;
}

static void answered(void *arg, const json_t *result, const struct tv_error *err)
{
    assert((result != NULL) == (err->code == 0));
    ++*(unsigned *)arg;
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

// Sends what fits: a full socket is the peer's own trouble.
static void send_chunk(int fd, const uint8_t *bytes, size_t len, unsigned n_fds)
{
    static int null_fd = -1;
    if (null_fd < 0)
        null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int) * FDS_MAX)];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)bytes, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds) {
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int) * n_fds)};
        for (unsigned i = 0; i < n_fds; i++)
            memcpy(CMSG_DATA(c) + i * sizeof(int), &null_fd, sizeof(int));
    }
    if (len)
        sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void feed(struct loop *loop, int peer, const uint8_t *data, size_t size, struct rpc_conn *const *conn)
{
    for (unsigned round = 0; size && *conn && round < ROUNDS_MAX; round++) {
        const uint8_t *bytes = data + 1, *stop = memchr(bytes, 0, size - 1);
        size_t len = stop ? (size_t)(stop - bytes) : size - 1;
        if (len > CHUNK_MAX)
            len = CHUNK_MAX;
        send_chunk(peer, bytes, len, data[0] % (FDS_MAX + 1));
        while (loop_run_once(loop, 0) > 0)
            ;
        const size_t used = 1 + len + (stop && (size_t)(stop - bytes) == len);
        data += used;
        size -= used;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct rpc_method methods[] = {{"echo", echo}, {"take", take}, {"hold", hold}, {"end", end}, {NULL, NULL}};
    static struct loop *loop;
    int ends[2];
    struct rpc_conn *conn = NULL;
    if (!loop) {
        loop = loop_create(NULL);
        send_chunk(-1, data, 0, 0); // opens what the harness itself keeps
    }
    const unsigned descriptors = open_descriptors(); // between two runs the fuzzer may have opened some of its own
    const struct rpc_service service = {.methods = methods, .arg = &conn, .closed = closed};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        abort();
    conn = rpc_conn_create(loop, ends[0], &service, NULL);
    unsigned n_answers = 0;
    const int called = rpc_call_async(conn, "hello", NULL, NULL, 0, 0, answered, &n_answers);
    feed(loop, ends[1], data, size, &conn);
    close(ends[1]);
    while (loop_run_once(loop, 0) > 0)
        ;
    assert(!conn); // the loop has seen that the peer is gone
    assert(called == 0 && n_answers == 1);
    rpc_reply(held, NULL);
    held = NULL;
    assert(open_descriptors() == descriptors);
    return 0;
}
