// The log as its reader sees it: standard error is a pipe, lines are read back.
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/log.h"

static int saved_stderr, reader;

static int capture(void **state)
{
    (void)state;
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -1;
    saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
    reader = fds[0];
    log_configure(LOG_INFO, false);
    return 0;
}

static int release(void **state)
{
    (void)state;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(reader);
    return 0;
}

// All that stands in the pipe now.
static size_t read_lines(char *buf, size_t size)
{
    fcntl(reader, F_SETFL, O_NONBLOCK);
    ssize_t n = read(reader, buf, size - 1);
    buf[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static void test_text(void **state)
{
    (void)state;
    char out[8192];
    log_event(LOG_WARN, "store", "disk attached", LOG_STR("disk", "db"), LOG_U64("size_bytes", 4096), LOG_I64("delta", -5),
              LOG_HEX("at", 0xff), LOG_STR("why", "two words"), LOG_STR("evil", "a\nb=\"\x1b"), LOG_STR("none", ""));
    read_lines(out, sizeof(out));
    unsigned year, month, day, hour, minute, second, us;
    assert_int_equal(sscanf(out, "%4u-%2u-%2uT%2u:%2u:%2u.%6uZ ", &year, &month, &day, &hour, &minute, &second, &us), 7);
    assert_true(year >= 2024 && month >= 1 && month <= 12 && day >= 1 && day <= 31);
    assert_string_equal(out + 28, "warn  store: disk attached disk=db size_bytes=4096 delta=-5 at=0xff why=\"two words\" "
                                  "evil=\"a\\nb=\\\"\\u001b\" none=\"\"\n");
}

static void test_date_is_that_of_the_system(void **state)
{
    (void)state;
    char out[1024], before[64], after[64];
    time_t now = time(NULL);
    strftime(before, sizeof(before), "%Y-%m-%dT%H:%M:", gmtime(&now));
    log_event(LOG_INFO, "a", "b");
    now = time(NULL);
    strftime(after, sizeof(after), "%Y-%m-%dT%H:%M:", gmtime(&now));
    read_lines(out, sizeof(out));
    assert_true(strncmp(out, before, strlen(before)) == 0 || strncmp(out, after, strlen(after)) == 0);
}

static void test_level(void **state)
{
    (void)state;
    char out[1024];
    assert_false(log_enabled(LOG_DEBUG));
    log_event(LOG_DEBUG, "a", "b");
    assert_int_equal(read_lines(out, sizeof(out)), 0);
    log_configure(LOG_DEBUG, false);
    log_event(LOG_DEBUG, "a", "b");
    assert_true(read_lines(out, sizeof(out)) > 0);
}

static void test_json(void **state)
{
    (void)state;
    char out[8192];
    log_configure(LOG_INFO, true);
    log_event(LOG_ERROR, "vhost", "bad \"ring\"\n", LOG_STR("bytes", "\xff\xc3\xa9\xed\xa0\x80\x01"), LOG_HEX("at", 16),
              LOG_I64("n", INT64_MIN));
    read_lines(out, sizeof(out));
    json_error_t error;
    json_t *line = json_loads(out, 0, &error);
    assert_non_null(line);
    assert_string_equal(json_string_value(json_object_get(line, "level")), "error");
    assert_string_equal(json_string_value(json_object_get(line, "module")), "vhost");
    assert_string_equal(json_string_value(json_object_get(line, "message")), "bad \"ring\"\n");
    const char *fffd = "\xef\xbf\xbd";
    char expected[64];
    snprintf(expected, sizeof(expected), "%s\xc3\xa9%s%s%s\x01", fffd, fffd, fffd, fffd);
    assert_string_equal(json_string_value(json_object_get(line, "bytes")), expected);
    assert_string_equal(json_string_value(json_object_get(line, "at")), "0x10");
    assert_true(json_integer_value(json_object_get(line, "n")) == INT64_MIN);
    json_decref(line);
}

static void test_long_values_keep_the_line_whole(void **state)
{
    (void)state;
    char out[8192], value[5000];
    memset(value, '\\', sizeof(value) - 1);
    value[sizeof(value) - 1] = 0;
    log_configure(LOG_INFO, true);
    log_event(LOG_INFO, "m", value, LOG_STR("a", value), LOG_STR("b", value), LOG_U64("c", 1));
    const size_t len = read_lines(out, sizeof(out));
    assert_true(len <= 4096);
    json_t *line = json_loads(out, 0, NULL);
    assert_non_null(line);
    assert_true(json_is_true(json_object_get(line, "cut")));
    json_decref(line);
}

static void test_nobody_reads(void **state)
{
    (void)state;
    // Fills the pipe; the lines that find no room are counted and told by the next that gets through.
    fcntl(STDERR_FILENO, F_SETPIPE_SZ, 4096);
    char value[1000];
    memset(value, 'x', sizeof(value) - 1);
    value[sizeof(value) - 1] = 0;
    for (int i = 0; i < 3; i++)
        log_event(LOG_INFO, "m", "line", LOG_STR("a", value), LOG_STR("b", value));
    char out[8192];
    read_lines(out, sizeof(out));
    assert_null(strstr(out, "dropped"));
    log_event(LOG_INFO, "m", "after");
    read_lines(out, sizeof(out));
    assert_non_null(strstr(out, "m: after dropped="));
    log_event(LOG_INFO, "m", "later");
    read_lines(out, sizeof(out));
    assert_null(strstr(out, "dropped"));
}

enum { THREADS = 4, LINES = 200 };

static void *writer(void *arg)
{
    for (int i = 0; i < LINES; i++)
        log_event(LOG_INFO, "thread", "line", LOG_STR("who", arg), LOG_I64("i", i));
    return NULL;
}

static void test_threads_do_not_mix(void **state)
{
    (void)state;
    fcntl(STDERR_FILENO, F_SETPIPE_SZ, 1 << 20);
    pthread_t threads[THREADS];
    char who[] = "abcdefghijklmnopqrstuvwxyz";
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, writer, who), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    const size_t size = 1 << 20;
    char *out = malloc(size);
    assert_non_null(out);
    read_lines(out, size);
    int lines = 0;
    for (char *rest = out, *line; (line = strsep(&rest, "\n")) && *line; lines++)
        assert_non_null(strstr(line, "Z info  thread: line who=abcdefghijklmnopqrstuvwxyz i="));
    assert_int_equal(lines, THREADS * LINES);
    free(out);
}

// What a guest can cause at will does not fill the disk.
static void test_limit(void **state)
{
    struct log_limit limit = {0};
    uint64_t now = 1000, let_through = 0;
    char out[1024];
    (void)state;
    for (unsigned i = 0; i < 1000; i++)
        let_through += log_limit_pass(&limit, "vhost", now);
    assert_int_equal(let_through, LOG_LIMIT_BURST);
    assert_int_equal(read_lines(out, sizeof(out)), 0);
    assert_false(log_limit_pass(&limit, "vhost", now + LOG_LIMIT_EVERY_NS - 1));
    assert_true(log_limit_pass(&limit, "vhost", now + LOG_LIMIT_EVERY_NS));
    read_lines(out, sizeof(out));
    assert_string_equal(out + 28, "warn  vhost: lines held back: too many of the like lines=991\n");
    assert_false(log_limit_pass(&limit, "vhost", now + LOG_LIMIT_EVERY_NS));
    now += 1000 * LOG_LIMIT_EVERY_NS; // a long quiet time is worth no more than the first
    let_through = 0;
    for (unsigned i = 0; i < 100; i++)
        let_through += log_limit_pass(&limit, "vhost", now);
    assert_int_equal(let_through, LOG_LIMIT_BURST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_text, capture, release),
        cmocka_unit_test_setup_teardown(test_date_is_that_of_the_system, capture, release),
        cmocka_unit_test_setup_teardown(test_level, capture, release),
        cmocka_unit_test_setup_teardown(test_json, capture, release),
        cmocka_unit_test_setup_teardown(test_long_values_keep_the_line_whole, capture, release),
        cmocka_unit_test_setup_teardown(test_nobody_reads, capture, release),
        cmocka_unit_test_setup_teardown(test_threads_do_not_mix, capture, release),
        cmocka_unit_test_setup_teardown(test_limit, capture, release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
