// The console: history for newcomers, several viewers, a slow one that is told what it lost, a complete log, typed input.
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "machine/console.h"

#define DEADLINE_NS (10 * NS_PER_S)

struct fixture {
    struct loop *loop;
    struct console *console;
    struct sockaddr_un addr;
    int log_fd; // our copy
    char typed[256];
    size_t typed_len, room; // what the guest took and still takes
};

static size_t guest_input(void *arg, const uint8_t *buf, size_t len)
{
    struct fixture *f = arg;
    size_t n = len < f->room ? len : f->room;
    memcpy(f->typed + f->typed_len, buf, n);
    f->typed_len += n;
    f->room -= n;
    return n;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct tv_error err = {0};
    f->loop = loop_create(&err);
    f->addr.sun_family = AF_UNIX;
    snprintf(f->addr.sun_path + 1, sizeof(f->addr.sun_path) - 1, "trivet-test-console-%d", getpid());
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&f->addr, sizeof(f->addr)), 0);
    assert_int_equal(listen(listener, 8), 0);
    f->log_fd = memfd_create("log", 0);
    f->room = sizeof(f->typed);
    struct console_config config = {
        .loop = f->loop, .listen_fd = listener, .fd = -1, .log_fd = dup(f->log_fd), .input = guest_input, .arg = f};
    f->console = console_create(&config, &err);
    assert_non_null(f->console);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    console_destroy(f->console);
    loop_destroy(f->loop);
    close(f->log_fd);
    free(f);
    return 0;
}

static int viewer(struct fixture *f)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&f->addr, sizeof(f->addr)), 0);
    loop_run_once(f->loop, 1000);
    return fd;
}

static void output(struct fixture *f, const char *text)
{
    console_write(f->console, (const uint8_t *)text, strlen(text));
}

// Serves the loop until the viewer has seen `want` at the end of what it got; keeps the last of it in buf.
static void expect(struct fixture *f, int fd, const char *want, char *buf, size_t size)
{
    size_t len = 0, want_len = strlen(want);
    uint64_t deadline = clock_now_ns() + DEADLINE_NS;
    while (len < want_len || memcmp(buf + len - want_len, want, want_len) != 0) {
        assert_true(clock_now_ns() < deadline);
        ssize_t n = read(fd, buf + len, size - len);
        if (n > 0)
            len += (size_t)n;
        else
            loop_run_once(f->loop, 10);
        if (len == size) {
            memmove(buf, buf + size / 2, size - size / 2);
            len = size - size / 2;
        }
    }
}

static void test_all_viewers_see_and_newcomers_get_history(void **state)
{
    struct fixture *f = *state;
    char buf[512];
    int a = viewer(f), b = viewer(f);
    output(f, "Linux version\n");
    expect(f, a, "Linux version\n", buf, sizeof(buf));
    expect(f, b, "Linux version\n", buf, sizeof(buf));
    output(f, "login:");
    int late = viewer(f);
    expect(f, late, "Linux version\nlogin:", buf, sizeof(buf));
    close(a);
    output(f, "x");
    expect(f, b, "login:x", buf, sizeof(buf));
    close(b);
    close(late);
}

static void test_history_is_bounded(void **state)
{
    struct fixture *f = *state;
    char line[32], *buf = malloc(1u << 20);
    for (int i = 0; i < 20000; i++) {
        snprintf(line, sizeof(line), "line %05d\n", i);
        output(f, line);
    }
    int fd = viewer(f);
    uint64_t deadline = clock_now_ns() + DEADLINE_NS;
    size_t len = 0;
    while (len < CONSOLE_HISTORY_BYTES && clock_now_ns() < deadline) {
        ssize_t n = read(fd, buf + len, (1u << 20) - len);
        if (n > 0)
            len += (size_t)n;
        else
            loop_run_once(f->loop, 10);
    }
    assert_int_equal(len, CONSOLE_HISTORY_BYTES);
    assert_memory_equal(buf + len - 11, "line 19999\n", 11);
    free(buf);
    close(fd);
}

static void test_slow_viewer_loses_and_is_told(void **state)
{
    struct fixture *f = *state;
    char line[64], buf[4096];
    struct stat st;
    int slow = viewer(f), quick = viewer(f);
    size_t written = 0;
    for (int i = 0; i < 200000; i++) { // some MB: over any socket buffer and the ring
        int n = snprintf(line, sizeof(line), "this is the line with number %d\n", i);
        output(f, line);
        written += (size_t)n;
        if (i % 64 == 0) {
            loop_run_once(f->loop, 0);
            while (read(quick, buf, sizeof(buf)) > 0)
                ;
        }
    }
    output(f, "END");
    written += 3;
    expect(f, quick, "END", buf, sizeof(buf));
    char *all = calloc(1, 16u << 20);
    expect(f, slow, "END", all, 16u << 20);
    assert_non_null(strstr(all, "this is the line with number 0\n"));
    assert_non_null(strstr(all, "bytes lost: this viewer is too slow]"));
    free(all);
    assert_int_equal(fstat(f->log_fd, &st), 0);
    assert_int_equal(st.st_size, written); // the log lost nothing
    close(slow);
    close(quick);
}

static void test_input_waits_for_the_guest(void **state)
{
    struct fixture *f = *state;
    uint64_t deadline = clock_now_ns() + DEADLINE_NS;
    f->room = 3;
    int a = viewer(f), b = viewer(f);
    assert_int_equal(write(a, "hello", 5), 5);
    while (f->typed_len < 3 && clock_now_ns() < deadline)
        loop_run_once(f->loop, 10);
    assert_memory_equal(f->typed, "hel", 3);
    f->room = 100;
    console_room(f->console);
    while (f->typed_len < 5 && clock_now_ns() < deadline)
        loop_run_once(f->loop, 10);
    assert_int_equal(write(b, "!\n", 2), 2);
    while (f->typed_len < 7 && clock_now_ns() < deadline)
        loop_run_once(f->loop, 10);
    assert_memory_equal(f->typed, "hello!\n", 7);
    close(a);
    close(b);
}

// A flood of input stops the viewers, not the memory; nothing of it is lost.
static void test_flood_of_input(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[1024], got[1024];
    uint64_t deadline = clock_now_ns() + DEADLINE_NS;
    f->room = 0;
    int fd = viewer(f);
    size_t sent = 0, received = 0;
    for (size_t i = 0; i < sizeof(buf); i++)
        buf[i] = (uint8_t)i;
    ssize_t n;
    while (sent < 65536 && (n = write(fd, buf + sent % 1024, 1024 - sent % 1024)) > 0)
        sent += (size_t)n;
    while (received < sent) {
        assert_true(clock_now_ns() < deadline);
        loop_run_once(f->loop, 1);
        size_t len = console_read(f->console, got, sizeof(got));
        for (size_t i = 0; i < len; i++)
            assert_int_equal(got[i], (uint8_t)((received + i) % 1024));
        received += len;
    }
    close(fd);
}

static void test_reader_without_keyboard_looks_on(void **state)
{
    struct fixture *f = *state;
    char buf[64];
    int fd = viewer(f);
    shutdown(fd, SHUT_WR);
    loop_run_once(f->loop, 100);
    output(f, "still here");
    expect(f, fd, "still here", buf, sizeof(buf));
    close(fd);
}

static size_t no_input(void *arg, const uint8_t *buf, size_t len)
{
    (void)arg;
    (void)buf;
    (void)len;
    return 0;
}

// What was typed before a save and not taken is the loaded guest's, the way that the guest takes it.
static void test_input_is_saved(void **state)
{
    struct fixture *f = *state;
    struct tv_error err = {0};
    void *saved;
    size_t len_bytes;
    uint8_t byte;
    assert_int_equal(console_read(f->console, &byte, 1), 0); // from now on the guest polls
    int a = viewer(f);
    assert_int_equal(write(a, "typed", 5), 5);
    loop_run_once(f->loop, 1000);
    struct state *s = state_create_save();
    console_state(f->console, s);
    assert_int_equal(state_finish(s, &saved, &len_bytes, &err), 0);
    state_destroy(s);
    struct console_config config = {.loop = f->loop, .listen_fd = -1, .fd = -1, .log_fd = -1, .input = no_input, .arg = f};
    struct console *other = console_create(&config, &err);
    assert_non_null(other);
    s = state_create_load(saved, len_bytes);
    console_state(other, s);
    assert_int_equal(state_finish(s, NULL, NULL, &err), 0);
    state_destroy(s);
    free(saved);
    while (loop_run_once(f->loop, 0) > 0)
        ;
    uint8_t got[8];
    assert_int_equal(console_read(other, got, sizeof(got)), 5);
    assert_memory_equal(got, "typed", 5);
    assert_int_equal(f->typed_len, 0);
    console_destroy(other);
    close(a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_all_viewers_see_and_newcomers_get_history),
                                       TEST(test_history_is_bounded),
                                       TEST(test_slow_viewer_loses_and_is_told),
                                       TEST(test_input_waits_for_the_guest),
                                       TEST(test_input_is_saved),
                                       TEST(test_flood_of_input),
                                       TEST(test_reader_without_keyboard_looks_on)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
