// A back end and front ends that do not behave: each piece of nonsense ends the connection, costs no descriptor, and the next front
// end is served. Also the parts of the protocol that our own front end does not use.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "vhost/protocol.h"
#include "vhost_rig.h"

#define USER 0x7f0000000000ull
#define RAM_BYTES 0x20000ull
#define FEATURES (1ull << 32)
#define WITH_PROTOCOL (FEATURES | 1ull << VHOST_F_PROTOCOL_FEATURES)

// The back end and a front end by hand, on one thread: what is sent is served by the same loop.
struct peer {
    struct rig_device dev;
    int listen_fd, fd, ram_fd, kick_fd, call_fd;
    uint8_t *ram;
    struct virtq_driver drv;
};

static void serve(struct peer *p)
{
    while (loop_run_once(p->dev.loop, 0) > 0)
        ;
}

static void peer_connect(struct peer *p)
{
    p->fd = rig_connect(p->listen_fd);
    while (!vhost_backend_is_connected(p->dev.be))
        assert_true(loop_run_once(p->dev.loop, 5000) > 0);
}

static void peer_open(struct peer *p)
{
    memset(p, 0, sizeof(*p));
    p->listen_fd = rig_listen();
    rig_device_open(&p->dev, p->listen_fd, false, 1);
    p->ram_fd = memfd_create("hostile", MFD_CLOEXEC);
    p->kick_fd = eventfd(0, EFD_CLOEXEC); // blocking, as a peer may have it
    p->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(ftruncate(p->ram_fd, RAM_BYTES), 0);
    p->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, p->ram_fd, 0);
    peer_connect(p);
}

static void peer_close(struct peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    rig_device_close(&p->dev);
    munmap(p->ram, RAM_BYTES);
    close(p->ram_fd);
    close(p->kick_fd);
    close(p->call_fd);
}

static void put(struct peer *p, uint32_t request, const void *payload, size_t size, int fd)
{
    assert_int_equal(vhost_send(p->fd, request, 0, payload, size, &fd, fd >= 0), 0);
    serve(p);
}

static void put_u64(struct peer *p, uint32_t request, uint64_t value, int fd)
{
    put(p, request, &value, sizeof(value), fd);
}

static void put_ring(struct peer *p, uint32_t request, uint32_t index, uint32_t num)
{
    struct vhost_ring_state state = {.index = index, .num = num};
    put(p, request, &state, sizeof(state), -1);
}

// A reply must be there, since everything sent was served.
static union vhost_payload take_reply(struct peer *p, uint32_t request)
{
    struct vhost_receiver rx;
    vhost_receiver_init(&rx);
    assert_int_equal(vhost_receive(&rx, p->fd, NULL), 1);
    assert_int_equal(rx.message.header.request, request);
    assert_true(rx.message.header.flags & VHOST_REPLY);
    union vhost_payload payload = rx.message.payload;
    vhost_message_clear(&rx);
    return payload;
}

static void set_memory(struct peer *p)
{
    struct vhost_mem_table table = {.n_regions = 1,
                                    .regions[0] = {.guest_addr = RIG_RAM, .size_bytes = RAM_BYTES, .user_addr = USER}};
    put(p, VHOST_SET_MEM_TABLE, &table, 40, p->ram_fd);
}

// One queue up to, but not including, its kick descriptor; with a request in it.
static void set_queue(struct peer *p, uint64_t features)
{
    uint64_t guest = RIG_RAM;
    virtq_driver_init(&p->drv, p->ram, guest, 16, false);
    virtq_driver_desc(&p->drv, 0, guest + 0x8000, 8, VRING_DESC_F_NEXT, 1);
    virtq_driver_desc(&p->drv, 1, guest + 0x9000, 8, VRING_DESC_F_WRITE, 0);
    struct vhost_ring_addr addr = {.index = 0,
                                   .desc = USER + (p->drv.desc_addr - guest),
                                   .avail = USER + (p->drv.avail_addr - guest),
                                   .used = USER + (p->drv.used_addr - guest)};
    put_u64(p, VHOST_SET_FEATURES, features, -1);
    set_memory(p);
    put_ring(p, VHOST_SET_VRING_NUM, 0, 16);
    put_ring(p, VHOST_SET_VRING_BASE, 0, 0);
    put(p, VHOST_SET_VRING_ADDR, &addr, sizeof(addr), -1);
    put_u64(p, VHOST_SET_VRING_CALL, 0, p->call_fd);
}

static bool answered(struct peer *p)
{
    uint32_t id = 0, len = 0;
    return virtq_driver_take(&p->drv, &id, &len) && len == 8;
}

static unsigned free_fd(void)
{
    int fd = dup(STDIN_FILENO);
    close(fd);
    return (unsigned)fd;
}

// Without VHOST_USER_F_PROTOCOL_FEATURES a ring is enabled from the start.
static void test_old_front_end(void **state)
{
    (void)state;
    struct peer p;
    const uint64_t one = 1;
    uint64_t count = 0;
    peer_open(&p);
    put(&p, VHOST_SET_OWNER, NULL, 0, -1);
    put(&p, VHOST_GET_FEATURES, NULL, 0, -1);
    assert_true(take_reply(&p, VHOST_GET_FEATURES).u64 & FEATURES);
    set_queue(&p, FEATURES);
    virtq_driver_offer(&p.drv, 0);
    serve(&p);
    assert_false(answered(&p));
    put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_true(answered(&p));
    assert_int_equal(read(p.call_fd, &count, 8), 8);
    virtq_driver_offer(&p.drv, 0);
    assert_int_equal(write(p.kick_fd, &one, 8), 8);
    serve(&p);
    assert_true(answered(&p));
    put_ring(&p, VHOST_GET_VRING_BASE, 0, 0);
    assert_int_equal(take_reply(&p, VHOST_GET_VRING_BASE).state.num, 2);
    virtq_driver_offer(&p.drv, 0);
    assert_int_equal(write(p.kick_fd, &one, 8), 8);
    serve(&p);
    assert_false(answered(&p)); // stopped
    peer_close(&p);
}

// With it, a ring waits for SET_VRING_ENABLE, and can be disabled and go on.
static void test_enable(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    set_queue(&p, WITH_PROTOCOL);
    put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    virtq_driver_offer(&p.drv, 0);
    serve(&p);
    assert_false(answered(&p));
    put_ring(&p, VHOST_SET_VRING_ENABLE, 0, 1);
    assert_true(answered(&p));
    put_ring(&p, VHOST_SET_VRING_ENABLE, 0, 0);
    virtq_driver_offer(&p.drv, 0);
    serve(&p);
    assert_false(answered(&p));
    set_memory(&p); // another table meanwhile
    put_ring(&p, VHOST_SET_VRING_ENABLE, 0, 1);
    assert_true(answered(&p));
    assert_true(vhost_backend_is_connected(p.dev.be));
    peer_close(&p);
}

static void test_polling(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    set_queue(&p, FEATURES);
    put_u64(&p, VHOST_SET_VRING_KICK, VHOST_VRING_NO_FD, -1);
    virtq_driver_offer(&p.drv, 0); // nobody tells
    bool done = false;
    for (uint64_t deadline_ns = clock_now_ns() + 10 * NS_PER_S; !done && clock_now_ns() < deadline_ns; done = answered(&p))
        loop_run_once(p.dev.loop, 1000);
    assert_true(done);
    peer_close(&p);
}

// The file is cut while its rings are in use: this front end goes, the process does not.
static void test_memory_cut(void **state)
{
    (void)state;
    struct peer p;
    const uint64_t one = 1;
    peer_open(&p); // installs the SIGBUS guard, in front of cmocka's own handler
    set_queue(&p, FEATURES);
    put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_int_equal(ftruncate(p.ram_fd, 0), 0);
    assert_int_equal(write(p.kick_fd, &one, 8), 8);
    serve(&p);
    assert_false(vhost_backend_is_connected(p.dev.be));
    assert_int_equal(p.dev.n_started, p.dev.n_stopped);
    close(p.fd);
    assert_int_equal(ftruncate(p.ram_fd, RAM_BYTES), 0);
    peer_connect(&p);
    set_queue(&p, FEATURES);
    virtq_driver_offer(&p.drv, 0);
    put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_true(answered(&p));
    peer_close(&p);
}

#define LOG_BYTES ((RIG_RAM + RAM_BYTES) / 4096 / 8) // the least that covers the memory
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
    put(p, VHOST_SET_LOG_BASE, &where, sizeof(where), log->fd);
}

static void set_log(struct peer *p, const struct log *log)
{
    send_log(p, log, LOG_BYTES, 0);
    assert_int_equal(take_reply(p, VHOST_SET_LOG_BASE).u64, 0);
    put(p, VHOST_SET_LOG_FD, NULL, 0, log->news_fd);
}

static struct vhost_ring_addr ring_addr(const struct peer *p, uint32_t flags, uint64_t log)
{
    return (struct vhost_ring_addr){.flags = flags,
                                    .desc = USER + (p->drv.desc_addr - RIG_RAM),
                                    .avail = USER + (p->drv.avail_addr - RIG_RAM),
                                    .used = USER + (p->drv.used_addr - RIG_RAM),
                                    .log = log};
}

static void log_ring(struct peer *p, uint32_t flags, uint64_t log)
{
    const struct vhost_ring_addr addr = ring_addr(p, flags, log);
    put(p, VHOST_SET_VRING_ADDR, &addr, sizeof(addr), -1);
}

static bool ask(struct peer *p)
{
    const uint64_t one = 1;
    virtq_driver_offer(&p->drv, 0);
    assert_int_equal(write(p->kick_fd, &one, 8), 8);
    serve(p);
    return answered(p);
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
    const uint64_t features = FEATURES | (packed ? 1ull << 34 : 0);
    const uint8_t ring = packed ? 1 : 0; // the descriptors that are used are written where they lie
    peer_open(&p);
    log_open(&log);
    put_u64(&p, VHOST_SET_PROTOCOL_FEATURES, 1ull << VHOST_PROTOCOL_LOG_SHMFD, -1);
    set_queue(&p, features);
    if (packed) {
        virtq_driver_init_packed(&p.drv, p.ram, RIG_RAM, 16, false);
        virtq_driver_desc(&p.drv, 0, RIG_RAM + 0x8000, 8, VRING_DESC_F_NEXT, 1);
        virtq_driver_desc(&p.drv, 1, RIG_RAM + 0x9000, 8, VRING_DESC_F_WRITE, 0);
        log_ring(&p, 0, 0);
        put_ring(&p, VHOST_SET_VRING_BASE, 0, VIRTQ_BASE_PACKED_NEW);
    }
    put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_true(ask(&p));
    set_log(&p, &log);
    assert_true(ask(&p));
    expect_log(&log, 0, 0);
    assert_false(p.dev.logs);
    put_u64(&p, VHOST_SET_FEATURES, features | LOG_ALL, -1);
    assert_true(p.dev.logs);
    assert_true(ask(&p));
    expect_log(&log, 0, 2);
    log_ring(&p, VHOST_VRING_F_LOG, RIG_RAM + 0x3000);
    assert_true(ask(&p));
    expect_log(&log, 8 | ring, 2);
    put_u64(&p, VHOST_SET_FEATURES, features, -1);
    assert_true(ask(&p));
    expect_log(&log, 8 | ring, 0);
    log_ring(&p, 0, RIG_RAM + 0x3000);
    assert_true(ask(&p));
    expect_log(&log, 0, 0);
    assert_int_equal(p.dev.n_stopped, 0);
    put_u64(&p, VHOST_SET_FEATURES, features | LOG_ALL, -1);
    log_ring(&p, VHOST_VRING_F_LOG, RIG_RAM + 0x3000);
    send_log(&p, &log, LOG_BYTES, LOG_BYTES); // another one, in the same file
    take_reply(&p, VHOST_SET_LOG_BASE);
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
        put_u64(&p, VHOST_SET_PROTOCOL_FEATURES, 1ull << VHOST_PROTOCOL_LOG_SHMFD, -1);
        set_queue(&p, FEATURES | (by_ring ? 0 : LOG_ALL));
        if (by_ring)
            log_ring(&p, VHOST_VRING_F_LOG, RIG_RAM);
        put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
        assert_false(ask(&p));
        set_log(&p, &log);
        assert_true(answered(&p));
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
        put_u64(&p, VHOST_SET_PROTOCOL_FEATURES, 1ull << VHOST_PROTOCOL_LOG_SHMFD, -1);
        if (i == BEFORE_MEMORY || i == USED_AT_START) {
            send_log(&p, &log, i == USED_AT_START ? LOG_BYTES : LOG_BYTES - 1, 0);
            take_reply(&p, VHOST_SET_LOG_BASE);
        }
        if (i == BEFORE_MEMORY)
            put_u64(&p, VHOST_SET_FEATURES, FEATURES | LOG_ALL, -1);
        if (i == BEFORE_MEMORY)
            set_memory(&p);
        else
            set_queue(&p, FEATURES);
        if (i == USED_AT_START)
            log_ring(&p, VHOST_VRING_F_LOG, RIG_RAM + RAM_BYTES - 4);
        else if (i == USED_BEYOND || i == USED_WRAPS)
            log_ring(&p, VHOST_VRING_F_LOG, i == USED_WRAPS ? UINT64_MAX - 3 : RIG_RAM + RAM_BYTES - 4);
        if (i == USED_BEYOND || i == USED_WRAPS)
            put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
        if (i == SIZE_0 || i == SIZE_SHORT || i == SIZE_HUGE)
            send_log(&p, &log, i == SIZE_0 ? 0 : i == SIZE_SHORT ? LOG_BYTES - 1 : UINT64_MAX, 0);
        else if (i == OFFSET)
            send_log(&p, &log, LOG_BYTES, 2 * LOG_BYTES - 1);
        else if (i == SOCKET)
            put(&p, VHOST_SET_LOG_FD, NULL, 0, p.fd);
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
    put_u64(&p, VHOST_SET_PROTOCOL_FEATURES, 1ull << VHOST_PROTOCOL_LOG_SHMFD, -1);
    set_queue(&p, FEATURES);
    set_log(&p, &log);
    put_u64(&p, VHOST_SET_FEATURES, FEATURES | LOG_ALL, -1);
    put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_true(ask(&p));
    assert_int_equal(ftruncate(log.fd, 0), 0);
    virtq_driver_offer(&p.drv, 0);
    assert_int_equal(write(p.kick_fd, &one, 8), 8);
    serve(&p);
    assert_false(vhost_backend_is_connected(p.dev.be));
    peer_close(&p);
    log_close(&log);
}

static void test_broken_ring_is_told(void **state)
{
    (void)state;
    struct peer p;
    uint64_t count = 0;
    int err_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    peer_open(&p);
    set_queue(&p, FEATURES);
    put_u64(&p, VHOST_SET_VRING_ERR, 0, err_fd);
    virtq_driver_desc(&p.drv, 0, 0xdead0000, 8, 0, 0);
    virtq_driver_offer(&p.drv, 0);
    put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_int_equal(read(err_fd, &count, 8), 8);
    assert_true(vhost_backend_is_connected(p.dev.be)); // its driver's fault, not the front end's
    put_ring(&p, VHOST_GET_VRING_BASE, 0, 0);
    peer_close(&p);
    close(err_fd);
}

struct nonsense {
    uint32_t request, size;
    int n_fds;
    union vhost_payload payload;
};

static const struct nonsense nonsense[] = {
    {.request = 0},
    {.request = 47},
    {.request = UINT32_MAX},
    {.request = VHOST_SET_FEATURES, .size = 4},
    {.request = VHOST_SET_FEATURES, .size = 8, .payload.u64 = 1ull << 35},
    {.request = VHOST_SET_PROTOCOL_FEATURES, .size = 8, .payload.u64 = 1ull << 2},
    {.request = VHOST_SET_LOG_BASE, .size = 16, .n_fds = 1, .payload.log = {.mmap_size = 4096}}, // not negotiated
    {.request = VHOST_SET_LOG_FD, .n_fds = 1},                                                   // a socket
    {.request = VHOST_GET_FEATURES, .n_fds = 1},
    {.request = VHOST_GET_CONFIG, .size = 12}, // its feature was not negotiated
    {.request = VHOST_SET_MEM_TABLE, .size = 8, .payload.memory = {.n_regions = 1}},
    {.request = VHOST_SET_MEM_TABLE, .size = 264, .n_fds = 8, .payload.memory = {.n_regions = 9}},
    {.request = VHOST_SET_MEM_TABLE, .size = 40, .n_fds = 0, .payload.memory = {.n_regions = 1}},
    {.request = VHOST_SET_MEM_TABLE,
     .size = 40,
     .n_fds = 1,
     .payload.memory = {.n_regions = 1, .regions[0] = {.size_bytes = UINT64_MAX, .user_addr = 1}}},
    {.request = VHOST_SET_VRING_NUM, .size = 8, .payload.state = {.index = RIG_QUEUES, .num = 16}},
    {.request = VHOST_SET_VRING_NUM, .size = 8, .payload.state = {.num = 17}},
    {.request = VHOST_SET_VRING_NUM, .size = 8, .payload.state = {.num = 1u << 20}},
    {.request = VHOST_SET_VRING_BASE, .size = 8, .payload.state = {.num = 65536}},
    {.request = VHOST_SET_VRING_ADDR, .size = 40, .payload.addr = {.desc = USER, .avail = USER, .used = USER}},
    {.request = VHOST_SET_VRING_KICK, .size = 8, .n_fds = 2},
    {.request = VHOST_SET_VRING_KICK, .size = 8, .n_fds = 1, .payload.u64 = VHOST_VRING_NO_FD},
    {.request = VHOST_SET_VRING_KICK, .size = 8, .n_fds = 1}, // a socket
    {.request = VHOST_SET_VRING_CALL, .size = 8, .n_fds = 1},
    {.request = VHOST_SET_VRING_ERR, .size = 8, .n_fds = 1},
    {.request = VHOST_SET_VRING_CALL, .size = 8, .payload.u64 = VHOST_VRING_NO_FD | 200},
    {.request = VHOST_SET_VRING_ENABLE, .size = 8, .payload.state = {.num = 2}},
};

static void test_nonsense(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    close(p.fd);
    serve(&p);
    unsigned before = free_fd();
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        const struct nonsense *n = &nonsense[i];
        int fds[VHOST_FDS_MAX];
        peer_connect(&p);
        for (int f = 0; f < n->n_fds; f++)
            fds[f] = p.fd;
        assert_int_equal(vhost_send(p.fd, n->request, 0, &n->payload, n->size, fds, (unsigned)n->n_fds), 0);
        serve(&p);
        if (vhost_backend_is_connected(p.dev.be))
            fail_msg("case %zu (%s) was accepted", i, vhost_request_name(n->request));
        close(p.fd);
        assert_int_equal(free_fd(), before);
    }
    peer_connect(&p);
    struct vhost_header header = {.request = VHOST_SET_FEATURES, .flags = VHOST_VERSION, .size_bytes = UINT32_MAX};
    assert_int_equal(send(p.fd, &header, sizeof(header), 0), sizeof(header));
    serve(&p);
    assert_false(vhost_backend_is_connected(p.dev.be));
    close(p.fd);
    peer_connect(&p);
    header = (struct vhost_header){.request = VHOST_GET_FEATURES, .flags = 2};
    assert_int_equal(send(p.fd, &header, sizeof(header), 0), sizeof(header));
    serve(&p);
    assert_false(vhost_backend_is_connected(p.dev.be));
    close(p.fd);
    peer_connect(&p); // and the next one finds everything in order
    set_queue(&p, FEATURES);
    virtq_driver_offer(&p.drv, 0);
    put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_true(answered(&p));
    peer_close(&p);
}

// A sparse file costs its owner nothing, but the address space is everybody's.
static void test_too_much_memory(void **state)
{
    (void)state;
    struct peer p;
    struct vhost_mem_table table = {.n_regions = 1, .regions[0] = {.size_bytes = 1ull << 40, .user_addr = USER}};
    peer_open(&p);
    assert_int_equal(ftruncate(p.ram_fd, 3ll << 40), 0);
    put(&p, VHOST_SET_MEM_TABLE, &table, 40, p.ram_fd);
    assert_true(vhost_backend_is_connected(p.dev.be));
    table.regions[0].size_bytes = 3ull << 40;
    put(&p, VHOST_SET_MEM_TABLE, &table, 40, p.ram_fd);
    assert_false(vhost_backend_is_connected(p.dev.be));
    peer_close(&p);
}

// A message in many pieces is one message.
static void test_pieces(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    const struct vhost_header header = {VHOST_SET_FEATURES, VHOST_VERSION, 8};
    const uint64_t features = FEATURES;
    uint8_t message[sizeof(header) + sizeof(features)];
    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), &features, sizeof(features));
    for (size_t i = 0; i < sizeof(message); i++) {
        assert_int_equal(send(p.fd, message + i, 1, 0), 1);
        serve(&p);
    }
    put(&p, VHOST_GET_FEATURES, NULL, 0, -1);
    assert_true(take_reply(&p, VHOST_GET_FEATURES).u64 & FEATURES);
    peer_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_old_front_end),       cmocka_unit_test(test_enable),    cmocka_unit_test(test_polling),
        cmocka_unit_test(test_memory_cut),          cmocka_unit_test(test_dirty_log), cmocka_unit_test(test_waits_for_the_log),
        cmocka_unit_test(test_log_too_small),       cmocka_unit_test(test_log_cut),   cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_broken_ring_is_told), cmocka_unit_test(test_pieces),    cmocka_unit_test(test_too_much_memory),
    };
    log_configure(LOG_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
