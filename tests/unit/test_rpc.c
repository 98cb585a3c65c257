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
    s->held = req; // never answered: the caller's time limit, or the end of the connection
}

static void do_note(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    struct service *s = arg;
    assert_null(req);
    s->notified++;
}

static void do_quit(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    struct service *s = arg;
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

static const struct rpc_method methods[] = {{"add", do_add},   {"fail", do_fail}, {"write", do_write}, {"hold", do_hold},
                                            {"note", do_note}, {"quit", do_quit}, {NULL, NULL}};

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
    unsigned n, timeouts, cancelled;
};

static void count_answer(void *arg, const json_t *result, const struct tv_error *err)
{
    struct answers *a = arg;
    a->n += result != NULL;
    a->timeouts += err->code == -ETIMEDOUT;
    a->cancelled += err->code == -ECANCELED;
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
        cmocka_unit_test_setup_teardown(test_listen, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
