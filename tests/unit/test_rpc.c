// JSON-RPC: calls both ways, descriptors, errors, notifications, time limits, bad peers. Real sockets, two threads.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rpc.h"

struct service {
    struct loop *loop;
    struct rpc_request *held;
    unsigned opened, closed, notified;
    char path[64];
};

static void do_add(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg;
    json_int_t sum = json_integer_value(json_object_get(params, "a")) + json_integer_value(json_object_get(params, "b"));
    rpc_reply(req, json_pack("{s:I}", "sum", sum));
}

static void do_fail(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg, (void)params;
    struct tv_error err;
    tv_error_set(&err, -ENOSPC, "disk 'db': full");
    rpc_reply_error(req, RPC_FAILED, &err);
}

// Writes to the first descriptor, reports how many there were.
static void do_write(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg;
    int first = rpc_request_take_fd(req, 0), second = rpc_request_take_fd(req, 1);
    const char *text = json_string_value(json_object_get(params, "text"));
    ssize_t n = first >= 0 ? write(first, text, strlen(text)) : -1;
    if (first >= 0)
        close(first);
    if (second >= 0)
        close(second);
    rpc_reply(req, json_pack("{s:i,s:b}", "written", (int)n, "second", second >= 0));
}

static void do_hold(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    struct service *s = arg;
    rpc_reply(s->held, NULL);
    s->held = req; // never answered: the caller's time limit, or the end of the connection
}

static void do_note(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    struct service *s = arg;
    assert_null(req);
    s->notified++;
}

static void do_answer_late(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    struct service *s = arg;
    struct rpc_conn *conn = rpc_request_conn(req);
    rpc_reply(s->held, json_pack("{s:s}", "which", "late"));
    s->held = NULL;
    rpc_notify(conn, "note", NULL);
    rpc_reply(req, json_pack("{s:s}", "which", "now"));
    rpc_notify(conn, "note", NULL);
}

static void do_long(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg, (void)params;
    const size_t len = RPC_LINE_MAX;
    char *text = malloc(len);
    memset(text, 'x', len);
    rpc_reply(req, json_pack("{s:s#}", "text", text, (int)len));
    free(text);
}

static void do_bytes(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg, (void)params;
    struct tv_error err;
    tv_error_set(&err, -ENOENT, "\xff\xfe.raw: no such file");
    rpc_reply_error(req, RPC_FAILED, &err);
}

static void do_quit(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    struct service *s = arg;
    rpc_reply(s->held, NULL); // its connection may be gone
    s->held = NULL;
    rpc_reply(req, NULL);
    loop_stop(s->loop);
}

static void opened(void *arg, struct rpc_conn *conn)
{
    struct service *s = arg;
    s->opened++;
    rpc_notify(conn, "hello", NULL); // a client that only calls skips it
}

static void closed(void *arg, struct rpc_conn *conn)
{
    (void)conn;
    struct service *s = arg;
    s->closed++;
}

static const struct rpc_method methods[] = {{"add", do_add},     {"fail", do_fail}, {"write", do_write},      {"hold", do_hold},
                                            {"note", do_note},   {"quit", do_quit}, {"late", do_answer_late}, {"long", do_long},
                                            {"bytes", do_bytes}, {NULL, NULL}};

static void *serve(void *arg)
{
    struct service *s = arg;
    loop_run(s->loop);
    return NULL;
}

struct fixture {
    struct service service;
    struct rpc_server *server;
    pthread_t thread;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct tv_error err = {0};
    snprintf(f->service.path, sizeof(f->service.path), "/tmp/test-rpc-%d.sock", getpid());
    f->service.loop = loop_create(&err);
    int fd = rpc_listen(f->service.path, 0600, &err);
    const struct rpc_service service = {.methods = methods, .arg = &f->service, .opened = opened, .closed = closed};
    f->server = fd >= 0 ? rpc_server_create(f->service.loop, fd, &service, &err) : NULL;
    if (!f->server) {
        print_message("%s\n", err.text);
        return -1;
    }
    *state = f;
    return pthread_create(&f->thread, NULL, serve, &f->service);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    json_t *result;
    int fd = rpc_connect(f->service.path, NULL);
    rpc_call(fd, "quit", NULL, NULL, 0, 5000, &result, NULL);
    json_decref(result);
    pthread_join(f->thread, NULL);
    close(fd);
    rpc_server_destroy(f->server);
    loop_destroy(f->service.loop);
    unlink(f->service.path);
    bool balanced = f->service.opened == f->service.closed;
    free(f);
    return balanced ? 0 : -1;
}

static int dial(struct fixture *f)
{
    struct tv_error err;
    int fd = rpc_connect(f->service.path, &err);
    assert_true(fd >= 0);
    return fd;
}

static void test_call(void **state)
{
    int fd = dial(*state);
    struct tv_error err = {0};
    json_t *result;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(rpc_call(fd, "add", json_pack("{s:i,s:i}", "a", i, "b", 2), NULL, 0, 5000, &result, &err), 0);
        assert_int_equal(json_integer_value(json_object_get(result, "sum")), i + 2);
        json_decref(result);
    }
    close(fd);
}

static void test_errors(void **state)
{
    int fd = dial(*state);
    struct tv_error err = {0};
    json_t *result;
    assert_int_equal(rpc_call(fd, "fail", NULL, NULL, 0, 5000, &result, &err), -ENOSPC);
    assert_string_equal(err.text, "disk 'db': full");
    assert_int_equal(rpc_call(fd, "nothing", NULL, NULL, 0, 5000, &result, &err), -ENOSYS);
    assert_non_null(strstr(err.text, "nothing"));
    assert_int_equal(rpc_call(fd, "hold", NULL, NULL, 0, 50, &result, &err), -ETIMEDOUT);
    close(fd);
}

static void test_descriptors(void **state)
{
    int fd = dial(*state), ends[2];
    struct tv_error err = {0};
    json_t *result;
    char buf[16] = "";
    assert_int_equal(pipe(ends), 0);
    const int fds[] = {ends[1], ends[0]};
    assert_int_equal(rpc_call(fd, "write", json_pack("{s:s}", "text", "hello"), fds, 2, 5000, &result, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(result, "written")), 5);
    assert_true(json_is_true(json_object_get(result, "second")));
    json_decref(result);
    assert_int_equal(read(ends[0], buf, sizeof(buf)), 5);
    assert_string_equal(buf, "hello");
    assert_int_equal(rpc_call(fd, "write", json_pack("{s:s}", "text", "x"), NULL, 0, 5000, &result, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(result, "written")), -1);
    json_decref(result);
    close(ends[0]);
    close(ends[1]);
    close(fd);
}

// The far end hangs up on nonsense, and serves the next one.
static void test_bad_peers(void **state)
{
    static const char *const lines[] = {"nonsense\n", "[1,2]\n", "{\"method\":", "\"x\"\n", "{\"a\":1,\"a\":2}\n"};
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        int fd = dial(*state);
        char buf[4096];
        assert_int_equal(write(fd, lines[i], strlen(lines[i])), (ssize_t)strlen(lines[i]));
        shutdown(fd, SHUT_WR);
        while (read(fd, buf, sizeof(buf)) > 0)
            continue;
        close(fd);
    }
    test_call(state);
}

struct answers {
    struct loop *loop;
    unsigned n, timeouts, cancelled, resets;
};

static void count_answer(void *arg, const json_t *result, const struct tv_error *err)
{
    struct answers *a = arg;
    a->n += result != NULL;
    a->timeouts += err->code == -ETIMEDOUT;
    a->cancelled += err->code == -ECANCELED;
    a->resets += err->code == -ECONNRESET;
}

static void test_async(void **state)
{
    struct answers a = {.loop = loop_create(NULL)};
    struct rpc_conn *conn = rpc_conn_create(a.loop, dial(*state), NULL, NULL);
    assert_non_null(conn);
    for (int i = 0; i < 50; i++)
        assert_int_equal(rpc_call_async(conn, "add", NULL, NULL, 0, 5000, count_answer, &a), 0);
    assert_int_equal(rpc_call_async(conn, "hold", NULL, NULL, 0, 20, count_answer, &a), 0);
    while (a.n < 50 || a.timeouts < 1)
        assert_true(loop_run_once(a.loop, 5000) > 0);
    assert_int_equal(rpc_call_async(conn, "hold", NULL, NULL, 0, 0, count_answer, &a), 0);
    assert_int_equal(rpc_notify(conn, "note", NULL), 0);
    rpc_conn_destroy(conn);
    assert_int_equal(a.cancelled, 1);
    loop_destroy(a.loop);
}

// The answer to a call that ran out of time is not taken for the next one's, and what stands behind an answer is not lost.
static void test_call_reads_line_by_line(void **state)
{
    int fd = dial(*state);
    struct tv_error err = {0};
    json_t *result;
    assert_int_equal(rpc_call(fd, "hold", NULL, NULL, 0, 20, &result, &err), -ETIMEDOUT);
    assert_null(result);
    assert_int_equal(rpc_call(fd, "late", NULL, NULL, 0, 5000, &result, &err), 0);
    assert_string_equal(json_string_value(json_object_get(result, "which")), "now");
    json_decref(result);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(rpc_call(fd, "add", NULL, NULL, 0, 5000, &result, &err), 0);
        json_decref(result);
    }
    close(fd);
}

static void test_answers_that_cannot_be_sent_as_they_are(void **state)
{
    int fd = dial(*state);
    struct tv_error err = {0};
    json_t *result;
    assert_int_equal(rpc_call(fd, "long", NULL, NULL, 0, 20000, &result, &err), -EINVAL);
    assert_non_null(strstr(err.text, "longer than a line"));
    assert_int_equal(rpc_call(fd, "bytes", NULL, NULL, 0, 5000, &result, &err), -ENOENT);
    assert_string_equal(err.text, "??.raw: no such file");
    close(fd);
}

static void read_line(int fd, char *line, size_t size)
{
    size_t len = 0;
    do {
        assert_true(len < size - 1);
        assert_int_equal(read(fd, line + len, 1), 1);
    } while (line[len++] != '\n');
    line[len] = 0;
}

static void test_codes_on_the_wire(void **state)
{
    static const struct {
        const char *line, *expected;
    } cases[] = {
        {"{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":{\"a\":1,\"b\":2},\"id\":\"x\"}\n", "\"sum\":3"},
        {"{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":1}\n", "-32602"},
        {"{\"jsonrpc\":\"2.0\",\"method\":\"no\",\"id\":1}\n", "-32601"},
        {"{\"jsonrpc\":\"1.0\",\"method\":\"add\",\"id\":1}\n", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"id\":{}}\n", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"fds\":1,\"id\":1}\n", "-32600"},
        {"{\"jsonrpc\":\"2.0\",\"what\":1}\n", "-32600"},
        {"{\"jsonrpc\":\n", "-32700"},
        {"[]\n", "-32700"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char answer[4096];
        int fd = dial(*state);
        const char *line = cases[i].line;
        read_line(fd, answer, sizeof(answer)); // the hello
        assert_int_equal(write(fd, line, strlen(line)), (ssize_t)strlen(line));
        read_line(fd, answer, sizeof(answer));
        if (!strstr(answer, cases[i].expected))
            print_message("%s answered by %s", line, answer);
        assert_non_null(strstr(answer, cases[i].expected));
        close(fd);
    }
}

// A descriptor that no line speaks of ends the connection.
static void test_unannounced_descriptor(void **state)
{
    int fd = dial(*state);
    char line[] = "{\"jsonrpc\":\"2.0\",\"method\":\"note\"}\n", rest[4096];
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {line, strlen(line)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    assert_int_equal(sendmsg(fd, &msg, 0), (ssize_t)strlen(line));
    while (read(fd, rest, sizeof(rest)) > 0)
        continue;
    close(fd);
}

// Who asks and never reads is hung up on; the server's memory does not grow without end.
static void test_peer_that_does_not_read(void **state)
{
    int fd = dial(*state);
    const char line[] = "{\"jsonrpc\":\"2.0\",\"method\":\"fail\",\"id\":1}\n";
    enum { LINES = 1024, LEN = sizeof(line) - 1 };
    char *block = malloc((size_t)LINES * LEN);
    assert_non_null(block);
    for (size_t i = 0; i < LINES; i++)
        memcpy(block + i * LEN, line, LEN);
    ssize_t sent;
    do
        sent = send(fd, block, (size_t)LINES * LEN, MSG_NOSIGNAL);
    while (sent > 0);
    assert_true(errno == EPIPE || errno == ECONNRESET);
    free(block);
    close(fd);
}

// The other end goes: calls fail, the connection stays its owner's until he destroys it.
static void test_owner_keeps_a_closed_connection(void **state)
{
    (void)state;
    int ends[2];
    struct answers a = {.loop = loop_create(NULL)};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct rpc_conn *conn = rpc_conn_create(a.loop, ends[0], NULL, NULL);
    assert_int_equal(rpc_call_async(conn, "x", NULL, NULL, 0, 0, count_answer, &a), 0);
    close(ends[1]);
    while (a.resets == 0)
        assert_true(loop_run_once(a.loop, 5000) >= 0);
    assert_int_equal(rpc_call_async(conn, "x", NULL, NULL, 0, 0, count_answer, &a), -ENOTCONN);
    assert_int_equal(rpc_notify(conn, "x", NULL), -ENOTCONN);
    rpc_conn_destroy(conn);
    assert_int_equal(a.resets + a.cancelled + a.n, 1);
    loop_destroy(a.loop);
}

static void destroy_in_answer(void *arg, const json_t *result, const struct tv_error *err)
{
    (void)result, (void)err;
    struct rpc_conn **conn = arg;
    rpc_conn_destroy(*conn);
    *conn = NULL;
}

static void test_destroy_in_the_answer(void **state)
{
    struct loop *loop = loop_create(NULL);
    struct rpc_conn *conn = rpc_conn_create(loop, dial(*state), NULL, NULL);
    assert_int_equal(rpc_call_async(conn, "add", NULL, NULL, 0, 5000, destroy_in_answer, &conn), 0);
    while (conn)
        assert_true(loop_run_once(loop, 5000) > 0);
    loop_destroy(loop);
}

static void count_conn(void *arg, struct rpc_conn *conn)
{
    (void)conn;
    ++*(unsigned *)arg;
}

// Without descriptors the clients wait; with descriptors again they are served.
static void test_server_without_descriptors(void **state)
{
    (void)state;
    char path[64];
    unsigned n_opened = 0;
    snprintf(path, sizeof(path), "/tmp/test-rpc-%d.full", getpid());
    struct loop *loop = loop_create(NULL);
    const struct rpc_service service = {.arg = &n_opened, .opened = count_conn};
    struct rpc_server *server = rpc_server_create(loop, rpc_listen(path, 0600, NULL), &service, NULL);
    assert_non_null(server);
    int client = rpc_connect(path, NULL);
    struct rlimit saved, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &saved), 0);
    none = saved;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_NOFILE, &none);
    const int served = loop_run_once(loop, 5000), spinning = loop_run_once(loop, 0);
    setrlimit(RLIMIT_NOFILE, &saved);
    assert_int_equal(served, 1);
    assert_int_equal(spinning, 0);
    while (n_opened == 0)
        assert_true(loop_run_once(loop, 5000) >= 0);
    rpc_server_destroy(server);
    close(client);
    loop_destroy(loop);
    unlink(path);
}

static void test_listen(void **state)
{
    struct fixture *f = *state;
    struct tv_error err = {0};
    char stale[80];
    assert_int_equal(rpc_listen(f->service.path, 0600, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, f->service.path));
    snprintf(stale, sizeof(stale), "%s.stale", f->service.path);
    for (int i = 0; i < 2; i++) { // the second time over the path that the first one left
        int fd = rpc_listen(stale, 0640, &err);
        struct stat st;
        assert_true(fd >= 0);
        assert_int_equal(stat(stale, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0640);
        close(fd);
    }
    unlink(stale);
    int file = open(stale, O_CREAT | O_WRONLY, 0600);
    close(file);
    assert_int_equal(rpc_listen(stale, 0600, &err), -EADDRINUSE); // a file that is no socket stays
    assert_int_equal(access(stale, F_OK), 0);
    unlink(stale);
    assert_int_equal(rpc_connect(stale, &err), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_call, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_peers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_async, setup, teardown),
        cmocka_unit_test_setup_teardown(test_call_reads_line_by_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers_that_cannot_be_sent_as_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(test_codes_on_the_wire, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unannounced_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_peer_that_does_not_read, setup, teardown),
        cmocka_unit_test(test_owner_keeps_a_closed_connection),
        cmocka_unit_test_setup_teardown(test_destroy_in_the_answer, setup, teardown),
        cmocka_unit_test(test_server_without_descriptors),
        cmocka_unit_test_setup_teardown(test_listen, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
