// The front end against the back end: what a driver sets up works, survives the death of either side at any point, and no request
// is lost or answered twice, in whatever order they are completed.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "vhost_rig.h"

#define VERSION_1 (1ull << 32)
#define EVENT_IDX (1ull << 29)
#define PACKED (1ull << 34)
#define FEATURES (VERSION_1 | EVENT_IDX | RIG_FEATURE)

// Stepping is slow, and sanitizers make many instructions of one.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEP_STRIDE 29
#else
#define STEP_STRIDE 1
#endif

static unsigned count_fds(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void kill_device(pid_t pid)
{
    int status = 0;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status)); // it had not died by itself
}

static bool await_count(struct rig_machine *m, const unsigned *count, unsigned at_least)
{
    uint64_t deadline_ns = clock_now_ns() + 10 * NS_PER_S;
    while (*count < at_least && clock_now_ns() < deadline_ns)
        loop_run_once(m->loop, 100);
    return *count >= at_least;
}

static void attach(struct rig_machine *m, int listen_fd)
{
    struct tv_error err = {0};
    if (vhost_frontend_attach(m->fe, rig_connect(listen_fd), &err) < 0)
        fail_msg("%s", err.text);
}

static void run_requests(struct rig_machine *m, uint64_t n)
{
    uint64_t until = m->next_number + n;
    while (m->n_answered < until) {
        rig_machine_offer(m, until);
        assert_true(rig_machine_await(m, m->n_answered + 1));
    }
    assert_int_equal(m->n_wrong, 0);
    assert_int_equal(rig_machine_outstanding(m), 0);
}

static void *device_thread(void *arg)
{
    struct rig_device *dev = arg;
    loop_run(dev->loop);
    return NULL;
}

// More than a queue can hold; in a packed one a buffer of nothing.
static void break_rules(struct virtq_driver *drv)
{
    if (!drv->packed) {
        drv->avail->idx += 2 * RIG_QUEUE_SIZE;
        return;
    }
    virtq_driver_desc(drv, 0, drv->desc_addr, 0, 0, 0);
    virtq_driver_offer(drv, 0);
}

// Both ends in one process, a thread each: all calls, from the first to the last.
static void run_in_thread(unsigned n_regions, uint64_t features)
{
    unsigned fds = count_fds();
    struct rig_device dev;
    struct rig_machine m;
    pthread_t thread;
    int listen_fd = rig_listen();
    rig_device_open(&dev, listen_fd, false, 1);
    assert_int_equal(pthread_create(&thread, NULL, device_thread, &dev), 0);
    rig_machine_open(&m, n_regions);
    assert_false(vhost_frontend_is_attached(m.fe));
    attach(&m, listen_fd);
    assert_true(vhost_frontend_is_attached(m.fe));
    assert_int_equal(vhost_frontend_features(m.fe), VERSION_1 | EVENT_IDX | PACKED | 1ull << 28 | RIG_FEATURE);
    assert_int_equal(vhost_frontend_max_queues(m.fe), RIG_QUEUES);
    char text[RIG_CONFIG_BYTES] = {0};
    assert_int_equal(vhost_frontend_config_read(m.fe, 3, text, 6), 0);
    assert_string_equal(text, "figura");
    assert_int_equal(vhost_frontend_config_read(m.fe, 10, text, 7), -EINVAL);
    assert_int_equal(vhost_frontend_config_write(m.fe, 0, "KON", 3), 0);
    assert_true(await_count(&m, &m.n_config_changed, 1));
    assert_int_equal(vhost_frontend_config_read(m.fe, 0, text, 6), 0);
    assert_string_equal(text, "KONfig");
    rig_machine_start(&m, features);
    run_requests(&m, 5000);
    assert_int_equal(vhost_frontend_reset(m.fe), 0); // the guest reboots
    rig_machine_start(&m, features);
    run_requests(&m, 1000);
    break_rules(&m.queues[0].drv);
    const uint64_t one = 1;
    assert_int_equal(write(m.queues[0].kick_fd, &one, sizeof(one)), sizeof(one));
    assert_true(await_count(&m, &m.n_broken, 1));
    assert_int_equal(vhost_frontend_reset(m.fe), 0);
    rig_machine_start(&m, features);
    run_requests(&m, 1000);
    assert_int_equal(m.n_broken, 1);
    assert_int_equal(vhost_frontend_stop_queue(m.fe, 1), 0);
    assert_int_equal(m.n_disconnected, 0);
    rig_machine_close(&m);
    loop_stop(dev.loop);
    pthread_join(thread, NULL);
    while (dev.n_disconnected == 0)
        loop_run_once(dev.loop, 1000);
    assert_int_equal(dev.n_started, dev.n_stopped);
    rig_device_close(&dev);
    assert_int_equal(count_fds(), fds);
}

static void test_all_calls(void **state)
{
    (void)state;
    run_in_thread(1, FEATURES);
}

static void test_all_calls_packed(void **state)
{
    (void)state;
    run_in_thread(1, FEATURES | PACKED);
    run_in_thread(1, VERSION_1 | PACKED);
}

static void test_many_regions(void **state)
{
    (void)state;
    run_in_thread(20, VERSION_1); // more than a table holds
}

// The store is killed again and again while requests are in flight and are completed out of order.
static void run_kills(uint64_t features)
{
    struct rig_machine m;
    int listen_fd = rig_listen();
    unsigned fds = 0;
    rig_machine_open(&m, 1);
    pid_t pid = rig_device_spawn(listen_fd, true, 1);
    attach(&m, listen_fd);
    rig_machine_start(&m, features);
    for (unsigned round = 0; round < 60; round++) {
        uint64_t until = m.n_answered + 20 + (round * 37) % 150;
        while (m.n_answered < until) {
            rig_machine_offer(&m, UINT64_MAX);
            assert_true(rig_machine_await(&m, m.n_answered + 1));
        }
        rig_machine_offer(&m, UINT64_MAX);
        kill_device(pid);
        if (round % 2) { // notices first, and the guest goes on meanwhile
            assert_true(await_count(&m, &m.n_disconnected, 1));
            assert_false(vhost_frontend_is_attached(m.fe));
            rig_machine_offer(&m, UINT64_MAX);
            m.n_disconnected = 0;
        }
        pid = rig_device_spawn(listen_fd, true, round);
        attach(&m, listen_fd);
        if (round == 1)
            fds = count_fds();
    }
    assert_true(rig_machine_await(&m, m.next_number)); // all of them
    assert_int_equal(m.n_answered, m.next_number);
    assert_int_equal(m.n_wrong, 0);
    assert_int_equal(rig_machine_outstanding(&m), 0);
    run_requests(&m, 1000);
    assert_int_equal(count_fds(), fds);
    kill_device(pid);
    rig_machine_close(&m);
    close(listen_fd);
}

static void test_kills_event_idx(void **state)
{
    (void)state;
    run_kills(FEATURES);
}

static void test_kills_flags(void **state)
{
    (void)state;
    run_kills(VERSION_1);
}

static void test_kills_packed(void **state)
{
    (void)state;
    run_kills(FEATURES | PACKED);
    run_kills(VERSION_1 | PACKED);
}

// Killed after each single machine instruction of answering the second of three requests. The stop and kill come by ptrace.
// Returns false when the answer was complete before that many instructions.
static bool kill_after(struct rig_machine *m, int listen_fd, uint64_t features, unsigned instructions)
{
    int status = 0;
    bool complete = false;
    pid_t pid = rig_device_spawn_traced(listen_fd);
    attach(m, listen_fd);
    rig_machine_start(m, features);
    rig_machine_offer(m, m->next_number + RIG_STOP);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    for (unsigned i = 0; i < instructions && !complete; i++) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSTOPPED(status));
        complete = WSTOPSIG(status) == SIGSTOP;
    }
    kill_device(pid);
    pid = rig_device_spawn(listen_fd, false, 1);
    attach(m, listen_fd);
    assert_true(rig_machine_await(m, m->next_number));
    run_requests(m, 5);
    assert_int_equal(m->n_answered, m->next_number);
    assert_int_equal(vhost_frontend_reset(m->fe), 0);
    kill_device(pid);
    return !complete;
}

static void run_killed_at_each_instruction(uint64_t features)
{
    struct rig_machine m;
    int listen_fd = rig_listen();
    pid_t pid = fork(); // is tracing allowed here?
    if (pid == 0)
        _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 1);
    int status = 1;
    waitpid(pid, &status, 0);
    if (status != 0) {
        print_message("ptrace is not allowed here: skipped\n");
        close(listen_fd);
        skip();
    }
    rig_machine_open(&m, 1);
    unsigned instructions = 0;
    while (kill_after(&m, listen_fd, features, instructions))
        instructions += STEP_STRIDE;
    assert_true(instructions > 50); // it did step through the thing
    print_message("killed after each %d of %u instructions\n", STEP_STRIDE, instructions);
    rig_machine_close(&m);
    close(listen_fd);
}

static void test_killed_at_each_instruction(void **state)
{
    (void)state;
    run_killed_at_each_instruction(FEATURES);
}

static void test_killed_at_each_instruction_packed(void **state)
{
    (void)state;
    run_killed_at_each_instruction(FEATURES | PACKED);
}

// The machine is killed, and the next one is served by the same store. Its process offers requests and dies at once.
static void test_machine_dies(void **state)
{
    (void)state;
    int listen_fd = rig_listen();
    pid_t device = rig_device_spawn(listen_fd, true, 3);
    for (unsigned round = 0; round < 20; round++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct rig_machine m;
            struct tv_error err = {0};
            rig_machine_open(&m, 1);
            if (vhost_frontend_attach(m.fe, rig_connect(listen_fd), &err) < 0)
                _exit(1);
            rig_machine_start(&m, FEATURES);
            rig_machine_offer(&m, UINT64_MAX);
            bool answered = round % 2 == 0 || rig_machine_await(&m, 10);
            rig_machine_offer(&m, UINT64_MAX);
            if (!answered)
                _exit(1);
            raise(SIGKILL);
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
    }
    struct rig_machine m;
    rig_machine_open(&m, 1);
    attach(&m, listen_fd);
    rig_machine_start(&m, FEATURES);
    run_requests(&m, 500);
    kill_device(device);
    rig_machine_close(&m);
    close(listen_fd);
}

// All that a driver does while the back end is away reaches the next one.
static void test_set_up_while_away(void **state)
{
    (void)state;
    struct rig_machine m;
    int listen_fd = rig_listen();
    char text[RIG_CONFIG_BYTES] = {0};
    rig_machine_open(&m, 1);
    assert_int_equal(vhost_frontend_config_read(m.fe, 0, text, 4), -ENOTCONN);
    pid_t pid = rig_device_spawn(listen_fd, false, 1);
    attach(&m, listen_fd);
    kill_device(pid);
    rig_machine_start(&m, FEATURES); // the first request finds out
    assert_false(vhost_frontend_is_attached(m.fe));
    assert_int_equal(vhost_frontend_config_read(m.fe, 0, text, 4), 0);
    assert_string_equal(text, "conf");
    rig_machine_offer(&m, 50);
    assert_int_equal(vhost_frontend_reset(m.fe), 0);
    m.next_number = 0;
    rig_machine_start(&m, FEATURES);
    rig_machine_offer(&m, 40);
    pid = rig_device_spawn(listen_fd, false, 1);
    attach(&m, listen_fd);
    assert_true(rig_machine_await(&m, 40));
    run_requests(&m, 100);
    kill_device(pid);
    rig_machine_close(&m);
    close(listen_fd);
}

// Saved with requests in flight: they are done by then. Goes on in the same machine, and in another one with a copy of the memory;
// there by a back end that comes when the queues have been started, if `away`.
static void run_save_and_load(uint64_t features, bool away)
{
    struct rig_machine m, other;
    int listen_fd = rig_listen();
    pid_t pid = rig_device_spawn(listen_fd, true, 1);
    rig_machine_open(&m, 1);
    attach(&m, listen_fd);
    rig_machine_start(&m, features);
    run_requests(&m, 300);
    rig_machine_offer(&m, m.next_number + 60);
    struct state *s = state_create_save();
    void *saved = NULL;
    size_t saved_bytes = 0;
    assert_int_equal(vhost_frontend_state(m.fe, s), 0);
    assert_int_equal(state_finish(s, &saved, &saved_bytes, NULL), 0);
    state_destroy(s);
    assert_true(rig_machine_await(&m, m.next_number));
    rig_machine_open(&other, 1);
    memcpy(other.mem.regions[0].host, m.mem.regions[0].host, RIG_RAM_BYTES);
    static struct rig_queue before[RIG_QUEUES];
    memcpy(before, m.queues, sizeof(before));
    assert_int_equal(vhost_frontend_resume(m.fe, NULL), 0);
    run_requests(&m, 300);
    rig_machine_close(&m);

    attach(&other, listen_fd);
    s = state_create_load(saved, saved_bytes);
    assert_int_equal(vhost_frontend_state(other.fe, s), 0);
    assert_int_equal(state_finish(s, NULL, NULL, NULL), 0);
    state_destroy(s);
    free(saved);
    if (away)
        kill_device(pid);
    for (unsigned i = 0; i < RIG_QUEUES; i++) { // the driver's own memory came with the guest's
        struct rig_queue *queue = &other.queues[i];
        uint8_t *base = guest_memory_view(&other.mem, before[i].drv.desc_addr, 0x10000);
        queue->drv = before[i].drv;
        virtq_driver_move(&queue->drv, base);
        queue->data = (void *)(base + 0x8000);
        struct vhost_frontend_queue q = {.size = RIG_QUEUE_SIZE,
                                         .desc_addr = queue->drv.desc_addr,
                                         .avail_addr = queue->drv.avail_addr,
                                         .used_addr = queue->drv.used_addr,
                                         .kick_fd = queue->kick_fd,
                                         .call_fd = queue->call_fd};
        assert_int_equal(vhost_frontend_start_queue(other.fe, i, &q, NULL), 0);
        assert_false(virtq_driver_calls_on(&queue->drv));
    }
    if (away) {
        assert_false(vhost_frontend_is_attached(other.fe));
        pid = rig_device_spawn(listen_fd, true, 1);
        attach(&other, listen_fd);
    }
    run_requests(&other, 300);
    kill_device(pid);
    rig_machine_close(&other);
    close(listen_fd);
}

static void test_save_and_load(void **state)
{
    (void)state;
    for (int away = 0; away < 2; away++) {
        run_save_and_load(FEATURES, away);
        run_save_and_load(FEATURES | PACKED, away);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    struct rig_machine m;
    struct tv_error err = {0};
    int listen_fd = rig_listen();
    pid_t pid = rig_device_spawn(listen_fd, false, 1);
    rig_machine_open(&m, 1);
    attach(&m, listen_fd);
    assert_int_equal(vhost_frontend_set_features(m.fe, VERSION_1 | 1ull << 6, &err), -EINVAL);
    struct vhost_frontend_queue q = {.size = 64, .desc_addr = 0x1000, .avail_addr = RIG_RAM, .used_addr = RIG_RAM};
    assert_int_equal(vhost_frontend_start_queue(m.fe, 0, &q, &err), -EFAULT); // a guest's nonsense does not reach the back end
    q.desc_addr = RIG_RAM + 8;
    assert_int_equal(vhost_frontend_start_queue(m.fe, 0, &q, &err), -EINVAL);
    assert_int_equal(vhost_frontend_start_queue(m.fe, RIG_QUEUES, &q, &err), -EINVAL);
    assert_true(vhost_frontend_is_attached(m.fe));
    rig_machine_start(&m, FEATURES);
    run_requests(&m, 100);
    kill_device(pid);
    rig_machine_close(&m);
    close(listen_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_calls),
        cmocka_unit_test(test_all_calls_packed),
        cmocka_unit_test(test_many_regions),
        cmocka_unit_test(test_kills_event_idx),
        cmocka_unit_test(test_kills_flags),
        cmocka_unit_test(test_kills_packed),
        cmocka_unit_test(test_killed_at_each_instruction),
        cmocka_unit_test(test_killed_at_each_instruction_packed),
        cmocka_unit_test(test_machine_dies),
        cmocka_unit_test(test_set_up_while_away),
        cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_refusals),
    };
    signal(SIGPIPE, SIG_IGN);
    log_configure(LOG_ERROR, false); // hundreds of connections
    return cmocka_run_group_tests(tests, NULL, NULL);
}
