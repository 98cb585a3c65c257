// The dirty log of a back end: what it writes is marked, and nothing else; what it could not mark it does not write. Logs that are
// too small, or are cut while they are in use. And a front end's, with our own back end.
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "vhost_peer.h"

#define LOG_BYTES ((RIG_RAM + PEER_RAM_BYTES) / 4096 / 8) // the least that covers the memory
#define LOG_ALL (1ull << VHOST_F_LOG_ALL)

// A log shared with the back end. `bits` is its part for the memory.
struct log {
    int fd, news_fd;
    uint8_t *all, *bits;
};

static void log_open(struct log *log)
{
    log->fd = memfd_create("log", MFD_CLOEXEC);
    log->news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(ftruncate(log->fd, 2 * (off_t)LOG_BYTES), 0);
    log->all = mmap(NULL, 2 * LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, log->fd, 0);
    log->bits = log->all + RIG_RAM / 4096 / 8;
}

static void log_close(struct log *log)
{
    munmap(log->all, 2 * LOG_BYTES);
    close(log->fd);
    close(log->news_fd);
}

static void send_log(struct peer *p, const struct log *log, uint64_t size, uint64_t offset)
{
    const struct vhost_log where = {.mmap_size = size, .mmap_offset = offset};
    peer_put(p, VHOST_SET_LOG_BASE, &where, sizeof(where), log->fd);
}

static void set_log(struct peer *p, const struct log *log)
{
    send_log(p, log, LOG_BYTES, 0);
    assert_int_equal(peer_take_reply(p, VHOST_SET_LOG_BASE).u64, 0);
    peer_put(p, VHOST_SET_LOG_FD, NULL, 0, log->news_fd);
}

static struct vhost_ring_addr ring_addr(const struct peer *p, uint32_t flags, uint64_t log)
{
    return (struct vhost_ring_addr){.flags = flags,
                                    .desc = PEER_USER + (p->drv.desc_addr - RIG_RAM),
                                    .avail = PEER_USER + (p->drv.avail_addr - RIG_RAM),
                                    .used = PEER_USER + (p->drv.used_addr - RIG_RAM),
                                    .log = log};
}

static void log_ring(struct peer *p, uint32_t flags, uint64_t log)
{
    const struct vhost_ring_addr addr = ring_addr(p, flags, log);
    peer_put(p, VHOST_SET_VRING_ADDR, &addr, sizeof(addr), -1);
}

static bool ask(struct peer *p)
{
    const uint64_t one = 1;
    virtq_driver_offer(&p->drv, 0);
    assert_int_equal(write(p->kick_fd, &one, 8), 8);
    peer_serve(p);
    return peer_is_answered(p);
}

// Just these bytes of the log are so, counted from the bits of the memory on; and it starts afresh.
static void expect_log(struct log *log, uint8_t first, uint8_t second)
{
    uint64_t count = 0;
    assert_int_equal(log->bits[0], first);
    assert_int_equal(log->bits[1], second);
    log->bits[0] = log->bits[1] = 0;
    for (uint64_t i = 0; i < 2 * LOG_BYTES; i++)
        assert_int_equal(log->all[i], 0);
    assert_int_equal(read(log->news_fd, &count, 8), first || second ? 8 : -1);
}

// "log[page / 8] |= 1 << page % 8" of what is written, and no other: data by the feature, the used ring by its flag and at its
// address. Page 0 has the rings, page 8 is read, page 9 is written. The device goes on while they are switched.
static void run_dirty_log(bool packed)
{
    struct peer p;
    struct log log;
    const uint64_t features = PEER_FEATURES | (packed ? 1ull << 34 : 0);
    const uint8_t ring = packed ? 1 : 0; // the descriptors that are used are written where they lie
    peer_open(&p);
    log_open(&log);
    peer_put_u64(&p, VHOST_SET_PROTOCOL_FEATURES, 1ull << VHOST_PROTOCOL_LOG_SHMFD, -1);
    peer_set_queue(&p, features);
    if (packed) {
        virtq_driver_init_packed(&p.drv, p.ram, RIG_RAM, 16, false);
        virtq_driver_desc(&p.drv, 0, RIG_RAM + 0x8000, 8, VRING_DESC_F_NEXT, 1);
        virtq_driver_desc(&p.drv, 1, RIG_RAM + 0x9000, 8, VRING_DESC_F_WRITE, 0);
        log_ring(&p, 0, 0);
        peer_put_ring(&p, VHOST_SET_VRING_BASE, 0, VIRTQ_BASE_PACKED_NEW);
    }
    peer_put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_true(ask(&p));
    set_log(&p, &log);
    assert_true(ask(&p));
    expect_log(&log, 0, 0);
    assert_false(p.dev.logs);
    peer_put_u64(&p, VHOST_SET_FEATURES, features | LOG_ALL, -1);
    assert_true(p.dev.logs);
    assert_true(ask(&p));
    expect_log(&log, 0, 2);
    log_ring(&p, VHOST_VRING_F_LOG, RIG_RAM + 0x3000);
    assert_true(ask(&p));
    expect_log(&log, 8 | ring, 2);
    peer_put_u64(&p, VHOST_SET_FEATURES, features, -1);
    assert_true(ask(&p));
    expect_log(&log, 8 | ring, 0);
    log_ring(&p, 0, RIG_RAM + 0x3000);
    assert_true(ask(&p));
    expect_log(&log, 0, 0);
    assert_int_equal(p.dev.n_stopped, 0);
    peer_put_u64(&p, VHOST_SET_FEATURES, features | LOG_ALL, -1);
    log_ring(&p, VHOST_VRING_F_LOG, RIG_RAM + 0x3000);
    send_log(&p, &log, LOG_BYTES, LOG_BYTES); // another one, in the same file
    peer_take_reply(&p, VHOST_SET_LOG_BASE);
    assert_true(ask(&p));
    assert_int_equal(log.bits[LOG_BYTES + 1], 2);
    assert_int_equal(log.bits[1], 0);
    assert_true(vhost_backend_is_connected(p.dev.be));
    peer_close(&p);
    log_close(&log);
}

static void test_dirty_log(void **state)
{
    (void)state;
    run_dirty_log(false);
    run_dirty_log(true);
}

// What would be written without a trace is not written: nothing runs until the log is there.
static void test_waits_for_the_log(void **state)
{
    (void)state;
    struct peer p;
    struct log log;
    for (unsigned by_ring = 0; by_ring < 2; by_ring++) {
        peer_open(&p);
        log_open(&log);
        peer_put_u64(&p, VHOST_SET_PROTOCOL_FEATURES, 1ull << VHOST_PROTOCOL_LOG_SHMFD, -1);
        peer_set_queue(&p, PEER_FEATURES | (by_ring ? 0 : LOG_ALL));
        if (by_ring)
            log_ring(&p, VHOST_VRING_F_LOG, RIG_RAM);
        peer_put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
        assert_false(ask(&p));
        set_log(&p, &log);
        assert_true(peer_is_answered(&p));
        assert_int_equal(log.bits[1], by_ring ? 0 : 2);
        assert_int_equal(log.bits[0], by_ring ? 1 : 0);
        peer_close(&p);
        log_close(&log);
    }
}

// A log that has no place for what would be written ends the connection before anything is written.
static void test_log_too_small(void **state)
{
    (void)state;
    enum { SIZE_0, SIZE_SHORT, SIZE_HUGE, OFFSET, BEFORE_MEMORY, USED_BEYOND, USED_WRAPS, USED_AT_START, SOCKET, N_CASES };
    for (unsigned i = 0; i < N_CASES; i++) {
        struct peer p;
        struct log log;
        peer_open(&p);
        log_open(&log);
        peer_put_u64(&p, VHOST_SET_PROTOCOL_FEATURES, 1ull << VHOST_PROTOCOL_LOG_SHMFD, -1);
        if (i == BEFORE_MEMORY || i == USED_AT_START) {
            send_log(&p, &log, i == USED_AT_START ? LOG_BYTES : LOG_BYTES - 1, 0);
            peer_take_reply(&p, VHOST_SET_LOG_BASE);
        }
        if (i == BEFORE_MEMORY)
            peer_put_u64(&p, VHOST_SET_FEATURES, PEER_FEATURES | LOG_ALL, -1);
        if (i == BEFORE_MEMORY)
            peer_set_memory(&p);
        else
            peer_set_queue(&p, PEER_FEATURES);
        if (i == USED_AT_START)
            log_ring(&p, VHOST_VRING_F_LOG, RIG_RAM + PEER_RAM_BYTES - 4);
        else if (i == USED_BEYOND || i == USED_WRAPS)
            log_ring(&p, VHOST_VRING_F_LOG, i == USED_WRAPS ? UINT64_MAX - 3 : RIG_RAM + PEER_RAM_BYTES - 4);
        if (i == USED_BEYOND || i == USED_WRAPS)
            peer_put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
        if (i == SIZE_0 || i == SIZE_SHORT || i == SIZE_HUGE)
            send_log(&p, &log, i == SIZE_0 ? 0 : i == SIZE_SHORT ? LOG_BYTES - 1 : UINT64_MAX, 0);
        else if (i == OFFSET)
            send_log(&p, &log, LOG_BYTES, 2 * LOG_BYTES - 1);
        else if (i == SOCKET)
            peer_put(&p, VHOST_SET_LOG_FD, NULL, 0, p.fd);
        else if (i == USED_BEYOND || i == USED_WRAPS)
            set_log(&p, &log); // the ring that waits for it does not start
        if (i == USED_BEYOND || i == USED_WRAPS)
            assert_false(ask(&p));
        else if (vhost_backend_is_connected(p.dev.be))
            fail_msg("case %u was accepted", i);
        for (uint64_t at = 0; at < 2 * LOG_BYTES; at++)
            assert_int_equal(log.all[at], 0);
        peer_close(&p);
        log_close(&log);
    }
}

// Cut while bits are set in it: as with the memory itself.
static void test_log_cut(void **state)
{
    (void)state;
    struct peer p;
    struct log log;
    const uint64_t one = 1;
    peer_open(&p);
    log_open(&log);
    peer_put_u64(&p, VHOST_SET_PROTOCOL_FEATURES, 1ull << VHOST_PROTOCOL_LOG_SHMFD, -1);
    peer_set_queue(&p, PEER_FEATURES);
    set_log(&p, &log);
    peer_put_u64(&p, VHOST_SET_FEATURES, PEER_FEATURES | LOG_ALL, -1);
    peer_put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_true(ask(&p));
    assert_int_equal(ftruncate(log.fd, 0), 0);
    virtq_driver_offer(&p.drv, 0);
    assert_int_equal(write(p.kick_fd, &one, 8), 8);
    peer_serve(&p);
    assert_false(vhost_backend_is_connected(p.dev.be));
    peer_close(&p);
    log_close(&log);
}

// ---- the front end's end ----

#define PAGES (RIG_RAM_BYTES / 4096)

static void attach(struct rig_machine *m, int listen_fd)
{
    struct tv_error err = {0};
    if (vhost_frontend_attach(m->fe, rig_connect(listen_fd), &err) < 0)
        fail_msg("%s", err.text);
}

static void run_requests(struct rig_machine *m, uint64_t n)
{
    const uint64_t until = m->next_number + n;
    while (m->n_answered < until) {
        rig_machine_offer(m, until);
        assert_true(rig_machine_await(m, m->n_answered + 1));
    }
    assert_int_equal(m->n_wrong, 0);
}

static void set_page(uint64_t *pages, uint64_t guest_addr)
{
    const uint64_t page = (guest_addr - RIG_RAM) / 4096;
    pages[page / 64] |= 1ull << page % 64;
}

// Of the only region's pages those with data, or none of them, are marked, those that rings are written to, and no others. A ring
// may be written to at any time while it runs, to say whether kicks are wanted.
static void expect_pages(struct rig_machine *m, bool rings, bool data)
{
    uint64_t got[PAGES / 64] = {0}, of_rings[PAGES / 64] = {0}, of_data[PAGES / 64] = {0};
    for (unsigned i = 0; i < RIG_QUEUES; i++) {
        const struct virtq_driver *drv = &m->queues[i].drv;
        set_page(of_rings, drv->used_addr);
        if (drv->packed)
            set_page(of_rings, drv->desc_addr);
        set_page(of_data, RIG_RAM + i * 0x10000 + 0x8000);
    }
    assert_int_equal(vhost_frontend_take_log(m->fe, 0, got, PAGES / 64), 0);
    for (unsigned i = 0; i < PAGES / 64; i++) {
        assert_int_equal(got[i] & ~of_rings[i], data ? of_data[i] : 0);
        assert_true(!rings || (got[i] & of_rings[i]) == of_rings[i]);
    }
}

static void kill_device(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

// Logging begins and ends while requests are served, and goes on over the death of a back end.
static void run_machine_log(uint64_t features)
{
    struct rig_machine m;
    uint64_t bitmap[PAGES / 64] = {0};
    const int listen_fd = rig_listen();
    pid_t pid = rig_device_spawn(listen_fd, false, 1);
    rig_machine_open(&m, 1);
    attach(&m, listen_fd);
    rig_machine_start(&m, features);
    run_requests(&m, 100);
    assert_int_equal(vhost_frontend_take_log(m.fe, 0, bitmap, PAGES / 64), -EINVAL);
    assert_int_equal(vhost_frontend_start_log(m.fe, NULL), 0);
    assert_int_equal(vhost_frontend_start_log(m.fe, NULL), 0); // again is fine
    assert_int_equal(vhost_frontend_take_log(m.fe, 1, bitmap, PAGES / 64), -EINVAL);
    assert_int_equal(vhost_frontend_take_log(m.fe, 0, bitmap, PAGES / 64 - 1), -EINVAL);
    run_requests(&m, 200);
    expect_pages(&m, true, true);
    expect_pages(&m, false, false);
    kill_device(pid);
    while (vhost_frontend_is_attached(m.fe))
        loop_run_once(m.loop, 100);
    expect_pages(&m, true, false); // it could have written there and not marked it
    pid = rig_device_spawn(listen_fd, false, 1);
    attach(&m, listen_fd);
    run_requests(&m, 100);
    expect_pages(&m, true, true);
    for (unsigned i = 0; i < RIG_QUEUES; i++)
        assert_int_equal(vhost_frontend_stop_queue(m.fe, i), 0);
    expect_pages(&m, false, false);
    assert_int_equal(vhost_frontend_take_log(m.fe, 0, bitmap, PAGES / 64), 0);
    for (unsigned i = 0; i < PAGES / 64; i++) // nobody writes any more
        assert_int_equal(bitmap[i], 0);
    vhost_frontend_reset(m.fe);
    rig_machine_start(&m, features); // a driver that begins anew meanwhile
    run_requests(&m, 100);
    expect_pages(&m, true, true);
    vhost_frontend_stop_log(m.fe);
    run_requests(&m, 100);
    assert_int_equal(vhost_frontend_start_log(m.fe, NULL), 0);
    run_requests(&m, 100);
    expect_pages(&m, true, true);
    assert_true(vhost_frontend_is_attached(m.fe));
    rig_machine_close(&m);
    kill_device(pid);
    close(listen_fd);
}

static void test_machine_log(void **state)
{
    (void)state;
    run_machine_log(PEER_FEATURES);
    run_machine_log(PEER_FEATURES | 1ull << 34 | 1ull << 29); // packed, and events
}

// Logging was asked for while no back end was there.
static void test_machine_log_before(void **state)
{
    (void)state;
    struct rig_machine m;
    const int listen_fd = rig_listen();
    const pid_t pid = rig_device_spawn(listen_fd, false, 1);
    rig_machine_open(&m, 1);
    assert_int_equal(vhost_frontend_start_log(m.fe, NULL), 0);
    attach(&m, listen_fd);
    rig_machine_start(&m, PEER_FEATURES);
    run_requests(&m, 100);
    expect_pages(&m, true, true);
    rig_machine_close(&m);
    kill_device(pid);
    close(listen_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dirty_log), cmocka_unit_test(test_waits_for_the_log), cmocka_unit_test(test_log_too_small),
        cmocka_unit_test(test_log_cut),   cmocka_unit_test(test_machine_log),       cmocka_unit_test(test_machine_log_before),
    };
    log_configure(LOG_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
