// The event loop with real descriptors, timers, signals, children and threads.
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/loop.h"

enum { DEADLINE_MS = 20000 };

static struct loop *loop;

static int setup(void **state)
{
    (void)state;
    loop = loop_create(NULL);
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_destroy(loop);
    return 0;
}

// Runs the loop until *flag is `wanted`; fails the test after the deadline.
static void run_until(const int *flag, int wanted)
{
    const uint64_t end = clock_now_ns() + DEADLINE_MS * NS_PER_MS;
    while (*flag != wanted && clock_now_ns() < end)
        assert_true(loop_run_once(loop, DEADLINE_MS) >= 0);
    assert_int_equal(*flag, wanted);
}

static void count(void *arg)
{
    ++*(int *)arg;
}

static void count_fd(void *arg, int fd, uint32_t events)
{
    char byte;
    assert_true(events & (EPOLLIN | EPOLLHUP));
    if (read(fd, &byte, 1) == 1)
        ++*(int *)arg;
}

static void test_fd(void **state)
{
    (void)state;
    int fds[2], seen = 0;
    assert_int_equal(pipe(fds), 0);
    struct loop_source *source = loop_add_fd(loop, fds[0], EPOLLIN, count_fd, &seen, NULL);
    assert_non_null(source);
    assert_int_equal(loop_run_once(loop, 0), 0);
    assert_int_equal(write(fds[1], "ab", 2), 2);
    run_until(&seen, 2);
    // Not watched at all with no events, not even for the hang-up.
    loop_set_events(source, 0);
    close(fds[1]);
    assert_int_equal(loop_run_once(loop, 0), 0);
    loop_set_events(source, EPOLLIN);
    assert_int_equal(loop_run_once(loop, DEADLINE_MS), 1);
    loop_remove(source);
    assert_int_equal(loop_run_once(loop, 0), 0);
    close(fds[0]);
}

static void test_bad_fd(void **state)
{
    (void)state;
    struct tv_error err = {0};
    assert_null(loop_add_fd(loop, -1, EPOLLIN, count_fd, NULL, &err));
    assert_int_equal(err.code, -EBADF);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    close(fds[0]);
    close(fds[1]);
    assert_null(loop_add_fd(loop, fds[0], EPOLLIN, count_fd, NULL, &err));
    assert_int_equal(err.code, -EBADF);
    assert_non_null(strstr(err.text, "cannot be watched"));
}

// Two sources that are ready at once; whichever comes first removes both.
struct pair {
    struct loop_source *sources[2];
    int served;
};

static void remove_both(void *arg, int fd, uint32_t events)
{
    (void)fd;
    (void)events;
    struct pair *pair = arg;
    pair->served++;
    loop_remove(pair->sources[0]);
    loop_remove(pair->sources[1]);
    loop_remove(pair->sources[0]); // twice is fine within the callback: it is freed later
}

static void test_remove_in_callback(void **state)
{
    (void)state;
    int a[2], b[2];
    assert_int_equal(pipe(a) | pipe(b), 0);
    assert_int_equal(write(a[1], "x", 1) + write(b[1], "x", 1), 2);
    struct pair pair = {0};
    pair.sources[0] = loop_add_fd(loop, a[0], EPOLLIN, remove_both, &pair, NULL);
    pair.sources[1] = loop_add_fd(loop, b[0], EPOLLIN, remove_both, &pair, NULL);
    assert_int_equal(loop_run_once(loop, DEADLINE_MS), 1);
    assert_int_equal(pair.served, 1);
    assert_int_equal(loop_run_once(loop, 0), 0);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

static void test_timer(void **state)
{
    (void)state;
    int once = 0, often = 0;
    struct loop_source *a = loop_add_timer(loop, count, &once, NULL);
    struct loop_source *b = loop_add_timer(loop, count, &often, NULL);
    assert_true(a && b);
    const uint64_t begin = clock_now_ns();
    loop_set_timer(a, 5 * NS_PER_MS, 0);
    run_until(&once, 1);
    assert_true(clock_now_ns() - begin >= 5 * NS_PER_MS);
    loop_set_timer(b, 1, NS_PER_MS);
    run_until(&often, 3);
    assert_int_equal(once, 1);
    loop_set_timer(b, 0, 0);
    assert_int_equal(loop_run_once(loop, 0), 0);
    loop_remove(a);
}

struct disarm {
    struct loop_source *other;
    int served;
};

static void disarm_other(void *arg)
{
    struct disarm *d = arg;
    d->served++;
    loop_set_timer(d->other, 0, 0);
}

static void test_timer_disarmed_in_the_same_round(void **state)
{
    (void)state;
    struct disarm a = {0}, b = {0};
    b.other = loop_add_timer(loop, disarm_other, &a, NULL);
    a.other = loop_add_timer(loop, disarm_other, &b, NULL);
    const uint64_t begin = clock_now_ns();
    loop_set_timer(a.other, 1, 0);
    loop_set_timer(b.other, 1, 0);
    while (clock_now_ns() < begin + NS_PER_MS)
        ; // both have expired when the round begins
    assert_int_equal(loop_run_once(loop, DEADLINE_MS), 1);
    assert_int_equal(loop_run_once(loop, 0), 0);
    assert_int_equal(a.served + b.served, 1);
}

static void on_signal(void *arg, int signo)
{
    *(int *)arg = signo;
}

static void test_signal(void **state)
{
    (void)state;
    int got = 0;
    struct loop_source *source = loop_add_signal(loop, SIGUSR1, on_signal, &got, NULL);
    assert_non_null(source);
    kill(getpid(), SIGUSR1);
    run_until(&got, SIGUSR1);
    loop_remove(source);
    struct tv_error err = {0};
    assert_null(loop_add_signal(loop, 4711, on_signal, &got, &err));
    assert_int_equal(err.code, -EINVAL);
}

struct ended {
    int n, status;
    pid_t pid;
};

static void on_child(void *arg, pid_t pid, int wait_status)
{
    struct ended *ended = arg;
    ended->n++;
    ended->pid = pid;
    ended->status = wait_status;
}

static pid_t spawn(int exit_status, int signo)
{
    const pid_t pid = fork();
    if (pid == 0) {
        if (signo)
            raise(signo);
        _exit(exit_status);
    }
    return pid;
}

static void test_children(void **state)
{
    (void)state;
    struct ended a = {0}, b = {0};
    const pid_t first = spawn(7, 0), second = spawn(0, SIGKILL);
    assert_non_null(loop_add_child(loop, first, on_child, &a, NULL));
    assert_non_null(loop_add_child(loop, second, on_child, &b, NULL));
    run_until(&a.n, 1);
    run_until(&b.n, 1);
    assert_int_equal(a.pid, first);
    assert_true(WIFEXITED(a.status) && WEXITSTATUS(a.status) == 7);
    assert_int_equal(b.pid, second);
    assert_true(WIFSIGNALED(b.status) && WTERMSIG(b.status) == SIGKILL);
    assert_int_equal(waitpid(first, NULL, WNOHANG), -1); // reaped
    struct tv_error err = {0};
    assert_null(loop_add_child(loop, first, on_child, &a, &err));
    assert_int_equal(err.code, -ESRCH);
}

// A grandchild: alive until the pipe to it is closed, and nobody's child that we could wait for.
static void test_process_that_is_no_child(void **state)
{
    (void)state;
    int keep[2], tell[2];
    assert_int_equal(pipe(keep) | pipe(tell), 0);
    const pid_t middle = fork();
    if (middle == 0) {
        const pid_t grandchild = fork();
        if (grandchild == 0) {
            char byte;
            close(keep[1]);
            _exit(read(keep[0], &byte, 1) == 0 ? 0 : 1);
        }
        _exit(write(tell[1], &grandchild, sizeof(grandchild)) == (ssize_t)sizeof(grandchild) ? 0 : 1);
    }
    pid_t grandchild;
    assert_int_equal(read(tell[0], &grandchild, sizeof(grandchild)), sizeof(grandchild));
    assert_int_equal(waitpid(middle, NULL, 0), middle);
    struct ended ended = {0};
    assert_non_null(loop_add_child(loop, grandchild, on_child, &ended, NULL));
    assert_int_equal(loop_run_once(loop, 0), 0);
    close(keep[1]);
    run_until(&ended.n, 1);
    assert_int_equal(ended.status, LOOP_STATUS_UNKNOWN);
    close(keep[0]);
    close(tell[0]);
    close(tell[1]);
}

enum { THREADS = 4, POSTS = 5000 };

struct poster {
    pthread_t thread;
    int next; // touched by the loop's thread alone
    bool in_order;
    struct item {
        struct poster *poster;
        int i;
    } items[POSTS];
};

static int posts_done;

static void on_post(void *arg)
{
    struct item *item = arg;
    if (item->poster->next++ != item->i)
        item->poster->in_order = false;
    if (++posts_done == THREADS * POSTS)
        loop_stop(loop);
}

static void *post_all(void *arg)
{
    struct poster *p = arg;
    for (int i = 0; i < POSTS; i++) {
        p->items[i] = (struct item){p, i};
        if (loop_post(loop, on_post, &p->items[i]) != 0)
            return p;
    }
    return NULL;
}

static void test_posts_from_threads_in_order(void **state)
{
    (void)state;
    struct poster *posters = calloc(THREADS, sizeof(*posters));
    assert_non_null(posters);
    posts_done = 0;
    for (int i = 0; i < THREADS; i++) {
        posters[i].in_order = true;
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), 0);
    }
    assert_int_equal(loop_run(loop), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(posters[i].thread, &failed);
        assert_null(failed);
        assert_true(posters[i].in_order);
        assert_int_equal(posters[i].next, POSTS);
    }
    free(posters);
}

static void post_again(void *arg)
{
    ++*(int *)arg;
    loop_post(loop, post_again, arg);
}

static void test_posts_do_not_starve(void **state)
{
    (void)state;
    int posts = 0, seen = 0, fds[2];
    assert_int_equal(pipe(fds), 0);
    loop_add_fd(loop, fds[0], EPOLLIN, count_fd, &seen, NULL);
    assert_int_equal(write(fds[1], "x", 1), 1);
    loop_post(loop, post_again, &posts);
    run_until(&seen, 1);
    close(fds[0]);
    close(fds[1]);
}

static void *stopper(void *arg)
{
    loop_stop(arg);
    return NULL;
}

static void test_stop(void **state)
{
    (void)state;
    loop_stop(loop); // before the run
    assert_int_equal(loop_run(loop), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stopper, loop), 0);
    assert_int_equal(loop_run(loop), 0);
    pthread_join(thread, NULL);
}

static void round_in_round(void *arg)
{
    int *depth = arg;
    if (++*depth < 3) {
        loop_post(loop, round_in_round, arg);
        assert_true(loop_run_once(loop, DEADLINE_MS) >= 1);
    }
}

static void test_nested_round(void **state)
{
    (void)state;
    int depth = 0;
    loop_post(loop, round_in_round, &depth);
    run_until(&depth, 3);
}

static void test_clock_goes_on(void **state)
{
    (void)state;
    const uint64_t a = clock_now_ns();
    uint64_t b;
    while ((b = clock_now_ns()) == a)
        ;
    assert_true(b > a);
}

#define LOOP_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_fd),
        LOOP_TEST(test_bad_fd),
        LOOP_TEST(test_remove_in_callback),
        LOOP_TEST(test_timer),
        LOOP_TEST(test_timer_disarmed_in_the_same_round),
        LOOP_TEST(test_signal),
        LOOP_TEST(test_children),
        LOOP_TEST(test_process_that_is_no_child),
        LOOP_TEST(test_posts_from_threads_in_order),
        LOOP_TEST(test_posts_do_not_starve),
        LOOP_TEST(test_stop),
        LOOP_TEST(test_nested_round),
        LOOP_TEST(test_clock_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
