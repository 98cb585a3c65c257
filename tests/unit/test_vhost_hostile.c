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
#include "vhost_peer.h"

#define WITH_PROTOCOL (PEER_FEATURES | 1ull << VHOST_F_PROTOCOL_FEATURES)

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
    peer_put(&p, VHOST_SET_OWNER, NULL, 0, -1);
    peer_put(&p, VHOST_GET_FEATURES, NULL, 0, -1);
    assert_true(peer_take_reply(&p, VHOST_GET_FEATURES).u64 & PEER_FEATURES);
    peer_set_queue(&p, PEER_FEATURES);
    virtq_driver_offer(&p.drv, 0);
    peer_serve(&p);
    assert_false(peer_is_answered(&p));
    peer_put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_true(peer_is_answered(&p));
    assert_int_equal(read(p.call_fd, &count, 8), 8);
    virtq_driver_offer(&p.drv, 0);
    assert_int_equal(write(p.kick_fd, &one, 8), 8);
    peer_serve(&p);
    assert_true(peer_is_answered(&p));
    peer_put_ring(&p, VHOST_GET_VRING_BASE, 0, 0);
    assert_int_equal(peer_take_reply(&p, VHOST_GET_VRING_BASE).state.num, 2);
    virtq_driver_offer(&p.drv, 0);
    assert_int_equal(write(p.kick_fd, &one, 8), 8);
    peer_serve(&p);
    assert_false(peer_is_answered(&p)); // stopped
    peer_close(&p);
}

// With it, a ring waits for SET_VRING_ENABLE, and can be disabled and go on.
static void test_enable(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    peer_set_queue(&p, WITH_PROTOCOL);
    peer_put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    virtq_driver_offer(&p.drv, 0);
    peer_serve(&p);
    assert_false(peer_is_answered(&p));
    peer_put_ring(&p, VHOST_SET_VRING_ENABLE, 0, 1);
    assert_true(peer_is_answered(&p));
    peer_put_ring(&p, VHOST_SET_VRING_ENABLE, 0, 0);
    virtq_driver_offer(&p.drv, 0);
    peer_serve(&p);
    assert_false(peer_is_answered(&p));
    peer_set_memory(&p); // another table meanwhile
    peer_put_ring(&p, VHOST_SET_VRING_ENABLE, 0, 1);
    assert_true(peer_is_answered(&p));
    assert_true(vhost_backend_is_connected(p.dev.be));
    peer_close(&p);
}

static void test_polling(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    peer_set_queue(&p, PEER_FEATURES);
    peer_put_u64(&p, VHOST_SET_VRING_KICK, VHOST_VRING_NO_FD, -1);
    virtq_driver_offer(&p.drv, 0); // nobody tells
    bool done = false;
    for (uint64_t deadline_ns = clock_now_ns() + 10 * NS_PER_S; !done && clock_now_ns() < deadline_ns; done = peer_is_answered(&p))
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
    peer_set_queue(&p, PEER_FEATURES);
    peer_put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_int_equal(ftruncate(p.ram_fd, 0), 0);
    assert_int_equal(write(p.kick_fd, &one, 8), 8);
    peer_serve(&p);
    assert_false(vhost_backend_is_connected(p.dev.be));
    assert_int_equal(p.dev.n_started, p.dev.n_stopped);
    close(p.fd);
    assert_int_equal(ftruncate(p.ram_fd, PEER_RAM_BYTES), 0);
    peer_connect(&p);
    peer_set_queue(&p, PEER_FEATURES);
    virtq_driver_offer(&p.drv, 0);
    peer_put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_true(peer_is_answered(&p));
    peer_close(&p);
}
static void test_broken_ring_is_told(void **state)
{
    (void)state;
    struct peer p;
    uint64_t count = 0;
    int err_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    peer_open(&p);
    peer_set_queue(&p, PEER_FEATURES);
    peer_put_u64(&p, VHOST_SET_VRING_ERR, 0, err_fd);
    virtq_driver_desc(&p.drv, 0, 0xdead0000, 8, 0, 0);
    virtq_driver_offer(&p.drv, 0);
    peer_put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_int_equal(read(err_fd, &count, 8), 8);
    assert_true(vhost_backend_is_connected(p.dev.be)); // its driver's fault, not the front end's
    peer_put_ring(&p, VHOST_GET_VRING_BASE, 0, 0);
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
    {.request = VHOST_SET_VRING_ADDR, .size = 40, .payload.addr = {.desc = PEER_USER, .avail = PEER_USER, .used = PEER_USER}},
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
    peer_serve(&p);
    unsigned before = free_fd();
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        const struct nonsense *n = &nonsense[i];
        int fds[VHOST_FDS_MAX];
        peer_connect(&p);
        for (int f = 0; f < n->n_fds; f++)
            fds[f] = p.fd;
        assert_int_equal(vhost_send(p.fd, n->request, 0, &n->payload, n->size, fds, (unsigned)n->n_fds), 0);
        peer_serve(&p);
        if (vhost_backend_is_connected(p.dev.be))
            fail_msg("case %zu (%s) was accepted", i, vhost_request_name(n->request));
        close(p.fd);
        assert_int_equal(free_fd(), before);
    }
    peer_connect(&p);
    struct vhost_header header = {.request = VHOST_SET_FEATURES, .flags = VHOST_VERSION, .size_bytes = UINT32_MAX};
    assert_int_equal(send(p.fd, &header, sizeof(header), 0), sizeof(header));
    peer_serve(&p);
    assert_false(vhost_backend_is_connected(p.dev.be));
    close(p.fd);
    peer_connect(&p);
    header = (struct vhost_header){.request = VHOST_GET_FEATURES, .flags = 2};
    assert_int_equal(send(p.fd, &header, sizeof(header), 0), sizeof(header));
    peer_serve(&p);
    assert_false(vhost_backend_is_connected(p.dev.be));
    close(p.fd);
    peer_connect(&p); // and the next one finds everything in order
    peer_set_queue(&p, PEER_FEATURES);
    virtq_driver_offer(&p.drv, 0);
    peer_put_u64(&p, VHOST_SET_VRING_KICK, 0, p.kick_fd);
    assert_true(peer_is_answered(&p));
    peer_close(&p);
}

// A sparse file costs its owner nothing, but the address space is everybody's.
static void test_too_much_memory(void **state)
{
    (void)state;
    struct peer p;
    struct vhost_mem_table table = {.n_regions = 1, .regions[0] = {.size_bytes = 1ull << 40, .user_addr = PEER_USER}};
    peer_open(&p);
    assert_int_equal(ftruncate(p.ram_fd, 3ll << 40), 0);
    peer_put(&p, VHOST_SET_MEM_TABLE, &table, 40, p.ram_fd);
    assert_true(vhost_backend_is_connected(p.dev.be));
    table.regions[0].size_bytes = 3ull << 40;
    peer_put(&p, VHOST_SET_MEM_TABLE, &table, 40, p.ram_fd);
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
    const uint64_t features = PEER_FEATURES;
    uint8_t message[sizeof(header) + sizeof(features)];
    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), &features, sizeof(features));
    for (size_t i = 0; i < sizeof(message); i++) {
        assert_int_equal(send(p.fd, message + i, 1, 0), 1);
        peer_serve(&p);
    }
    peer_put(&p, VHOST_GET_FEATURES, NULL, 0, -1);
    assert_true(peer_take_reply(&p, VHOST_GET_FEATURES).u64 & PEER_FEATURES);
    peer_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_old_front_end), cmocka_unit_test(test_enable),          cmocka_unit_test(test_polling),
        cmocka_unit_test(test_memory_cut),    cmocka_unit_test(test_nonsense),        cmocka_unit_test(test_broken_ring_is_told),
        cmocka_unit_test(test_pieces),        cmocka_unit_test(test_too_much_memory),
    };
    log_configure(LOG_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
