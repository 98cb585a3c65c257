// virtio-net, driven through its registers, with a back end of our own library on a thread: pairs of queues, the control queue,
// announcements, back ends that come and go, saving and loading.
#include "board_rig.h"
#include "vhost/backend.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#define BAR MAP_PCI64_BASE
#define QUEUE(i) (MAP_RAM_BASE + 0x10000 + (i)*0x1000ull)
#define BUFFER(i) (MAP_RAM_BASE + 0x40000 + (i)*0x1000ull)
#define QUEUE_SIZE 8
#define MSI 40
#define DEADLINE_NS (30 * NS_PER_S)

#define VERSION_1 (1ull << VIRTIO_F_VERSION_1)
#define STATUS (1ull << 16)
#define CTRL_VQ (1ull << 17)
#define ANNOUNCE (1ull << 21)
#define MQ (1ull << 22)
#define ALL (VERSION_1 | STATUS | CTRL_VQ | ANNOUNCE | MQ)
enum { CONTROL = 4, CONTROL_WITHOUT_MQ = 2 };
enum { CONFIG_STATUS = 6, LINK_UP = 1, S_ANNOUNCE = 2 };

static const uint8_t mac[6] = {0x52, 0x54, 0, 0, 0, 1};

// --- a router's end, on a thread: what it is sent it counts

struct router {
    pthread_t thread;
    int listen_fd, end_fd;
    struct loop *loop;
    struct vhost_backend *be;
    _Atomic unsigned queues; // that are served, a bit each
    _Atomic unsigned frames;
};

static void queue_started(void *arg, unsigned queue, uint64_t features)
{
    struct router *router = arg;
    (void)features;
    atomic_fetch_or(&router->queues, 1u << queue);
}

static void queue_stopped(void *arg, unsigned queue)
{
    struct router *router = arg;
    atomic_fetch_and(&router->queues, ~(1u << queue));
}

static void queue_kicked(void *arg, unsigned queue)
{
    struct router *router = arg;
    struct virtq_chain chain;
    while (queue % 2 && vhost_backend_pop(router->be, queue, &chain) == 1) {
        vhost_backend_push(router->be, queue, chain.head, 0);
        vhost_backend_call(router->be, queue);
        atomic_fetch_add(&router->frames, 1);
    }
}

static void end(void *arg, int fd, uint32_t events)
{
    (void)fd, (void)events;
    loop_stop(((struct router *)arg)->loop);
}

static void *serve(void *arg)
{
    struct router *router = arg;
    const struct vhost_backend_ops ops = {.features = 1ull << 15 | CTRL_VQ | MQ,
                                          .n_queues = 4,
                                          .started = queue_started,
                                          .stopped = queue_stopped,
                                          .kicked = queue_kicked};
    router->loop = loop_create(NULL);
    router->be = vhost_backend_create(router->loop, router->listen_fd, &ops, router, NULL);
    struct loop_source *source = loop_add_fd(router->loop, router->end_fd, EPOLLIN, end, router, NULL);
    loop_run(router->loop);
    loop_remove(source);
    vhost_backend_destroy(router->be);
    loop_destroy(router->loop);
    return NULL;
}

// Starts it; a connection to it.
static int router_open(struct router *router)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(addr);
    *router = (struct router){.end_fd = eventfd(0, EFD_CLOEXEC)};
    router->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(router->listen_fd, (struct sockaddr *)&addr, sizeof(sa_family_t)), 0);
    assert_int_equal(listen(router->listen_fd, 8), 0);
    assert_int_equal(getsockname(router->listen_fd, (struct sockaddr *)&addr, &len), 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(pthread_create(&router->thread, NULL, serve, router), 0);
    return fd;
}

static void router_close(struct router *router)
{
    assert_int_equal(eventfd_write(router->end_fd, 1), 0);
    pthread_join(router->thread, NULL);
    close(router->end_fd);
}

// --- the machine's end

struct rigged {
    struct rig rig;
    struct virtio_net *net;
    struct rig_virtio v;
    unsigned n_disconnected;
};

static void gone(void *arg)
{
    ((struct rigged *)arg)->n_disconnected++;
}

static void open_machine(struct rigged *m, struct router *router)
{
    struct tv_error err = {0};
    *m = (struct rigged){0};
    rig_open(&m->rig, 1);
    struct virtio_net_config config = {
        .home = {.loop = m->rig.loop, .mem = &m->rig.mem, .pcie = board_pcie(m->rig.board), .slot = 3},
        .mtu_bytes = 1400,
        .n_pairs = 2,
        .arg = m,
        .disconnected = gone,
    };
    memcpy(config.mac, mac, 6);
    m->net = virtio_net_add(&config, router_open(router), &err);
    if (!m->net)
        fail_msg("%s", err.text);
}

static void start_driver(struct rigged *m, uint64_t features)
{
    rig_virtio_probe(&m->v, &m->rig, 3, BAR, MSI);
    assert_true(rig_virtio_negotiate(&m->v, features));
    for (unsigned i = 0; i <= (features & MQ ? CONTROL : CONTROL_WITHOUT_MQ); i++)
        rig_virtio_queue(&m->v, i, QUEUE(i), QUEUE_SIZE);
    rig_virtio_go(&m->v);
}

static void await(struct rigged *m, const _Atomic unsigned *what, unsigned value)
{
    const uint64_t deadline_ns = clock_now_ns() + DEADLINE_NS;
    while (atomic_load(what) != value && clock_now_ns() < deadline_ns)
        rig_run(&m->rig);
    assert_int_equal(atomic_load(what), value);
}

static void await_gone(struct rigged *m, unsigned n)
{
    const uint64_t deadline_ns = clock_now_ns() + DEADLINE_NS;
    while (m->n_disconnected < n && clock_now_ns() < deadline_ns)
        rig_run(&m->rig);
    assert_int_equal(m->n_disconnected, n);
}

// The device's answer, or 0xee if there is none.
static uint8_t command(struct rigged *m, unsigned queue, const char *bytes, uint32_t len)
{
    struct virtq_driver *q = &m->v.queues[queue];
    uint8_t *out = m->rig.ram + (BUFFER(0) - MAP_RAM_BASE), *in = m->rig.ram + (BUFFER(1) - MAP_RAM_BASE);
    uint32_t id = 99, written = 99;
    memcpy(out, bytes, len);
    *in = 0xee;
    virtq_driver_desc(q, 0, BUFFER(0), len, VRING_DESC_F_NEXT, 1);
    virtq_driver_desc(q, 1, BUFFER(1), 1, VRING_DESC_F_WRITE, 0);
    virtq_driver_offer(q, 0);
    rig_virtio_notify(&m->v, queue);
    if (!virtq_driver_take(q, &id, &written))
        return 0xee;
    assert_int_equal(id, 0);
    assert_int_equal(written, 1);
    return *in;
}

static unsigned status(struct rigged *m)
{
    return (unsigned)rig_read(&m->rig, m->v.device + CONFIG_STATUS, 2);
}

static void test_what_it_says(void **state)
{
    (void)state;
    struct router router;
    struct rigged m;
    open_machine(&m, &router);
    rig_virtio_probe(&m.v, &m.rig, 3, BAR, MSI);
    assert_int_equal(rig_config_read(&m.rig, 3, 0, 4), 0x10411af4);
    const uint64_t offered = rig_virtio_offered(&m.v);
    // MAC, MTU, STATUS, mergeable buffers and what goes with the control queue; nothing of the ring or beyond that the router lacks
    assert_int_equal(offered & 0xffffff, 1u << 3 | 1u << 5 | 1u << 15 | STATUS | CTRL_VQ | ANNOUNCE | MQ);
    assert_int_equal(offered >> 32, 1);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(rig_read(&m.rig, m.v.device + i, 1), mac[i]);
    assert_int_equal(status(&m), LINK_UP);
    assert_int_equal(rig_read(&m.rig, m.v.device + 8, 2), 2);
    assert_int_equal(rig_read(&m.rig, m.v.device + 10, 2), 1400);
    rig_write(&m.rig, m.v.device, 1, 0xff); // read-only
    assert_int_equal(rig_read(&m.rig, m.v.device, 1), 0x52);
    rig_close(&m.rig);
    router_close(&router);
}

static void test_pairs(void **state)
{
    (void)state;
    struct router router;
    struct rigged m;
    open_machine(&m, &router);
    start_driver(&m, ALL);
    await(&m, &router.queues, 3); // the first pair, until the driver says otherwise
    rig_forget_msis(&m.rig);
    assert_int_equal(command(&m, CONTROL, "\4\0\2\0", 4), 0);
    assert_int_equal(rig_count_msis(&m.rig, MSI + CONTROL + 1), 1);
    await(&m, &router.queues, 15);
    rig_virtio_offer(&m.v, 3, 0, BUFFER(2), 64, false);
    await(&m, &router.frames, 1);
    assert_int_equal(command(&m, CONTROL, "\4\0\1\0", 4), 0);
    await(&m, &router.queues, 3);
    static const struct {
        const char *bytes;
        uint32_t len;
    } wrong[] = {{"\4\0\0\0", 4}, {"\4\0\3\0", 4}, {"\4\0\1\1", 4}, {"\4\0\1", 3},
                 {"\4\1\1\0", 4}, {"\3\1", 2},     {"\0\0\1", 3},   {"\3", 1}};
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(command(&m, CONTROL, wrong[i].bytes, wrong[i].len), 1);
    assert_int_equal(atomic_load(&router.queues), 3);
    // A new driver begins anew.
    assert_int_equal(command(&m, CONTROL, "\4\0\2\0", 4), 0);
    rig_virtio_reset(&m.v);
    await(&m, &router.queues, 0);
    start_driver(&m, ALL);
    await(&m, &router.queues, 3);
    rig_close(&m.rig);
    router_close(&router);
}

static void test_driver_without_pairs(void **state)
{
    (void)state;
    struct router router;
    struct rigged m;
    open_machine(&m, &router);
    start_driver(&m, VERSION_1 | STATUS | CTRL_VQ);
    await(&m, &router.queues, 3);
    assert_int_equal(command(&m, CONTROL_WITHOUT_MQ, "\4\0\1\0", 4), 1);
    assert_int_equal(command(&m, CONTROL_WITHOUT_MQ, "\3\0", 2), 1); // it did not take that either
    // Then one with: what was the control queue is a pair's.
    rig_virtio_reset(&m.v);
    start_driver(&m, ALL);
    assert_int_equal(command(&m, CONTROL, "\4\0\2\0", 4), 0);
    await(&m, &router.queues, 15);
    rig_virtio_offer(&m.v, 3, 0, BUFFER(2), 64, false);
    await(&m, &router.frames, 1);
    // And one without again, which asks for a queue that it does not have.
    rig_virtio_reset(&m.v);
    rig_virtio_probe(&m.v, &m.rig, 3, BAR, MSI);
    assert_true(rig_virtio_negotiate(&m.v, VERSION_1));
    rig_virtio_queue(&m.v, 3, QUEUE(3), QUEUE_SIZE);
    rig_virtio_go(&m.v);
    assert_true(rig_virtio_status(&m.v) & VIRTIO_CONFIG_S_NEEDS_RESET);
    rig_virtio_reset(&m.v);
    start_driver(&m, ALL);
    await(&m, &router.queues, 3);
    rig_close(&m.rig);
    router_close(&router);
}

static void test_broken_control_queue(void **state)
{
    (void)state;
    struct router router;
    struct rigged m;
    open_machine(&m, &router);
    start_driver(&m, ALL);
    rig_virtio_offer(&m.v, CONTROL, 0, BUFFER(0), 2, false); // nowhere to answer
    uint32_t id, written = 99;
    assert_true(virtq_driver_take(&m.v.queues[CONTROL], &id, &written) && written == 0);
    assert_false(rig_virtio_status(&m.v) & VIRTIO_CONFIG_S_NEEDS_RESET);
    rig_virtio_offer(&m.v, CONTROL, 0, 0x1000, 2, false); // not RAM
    assert_true(rig_virtio_status(&m.v) & VIRTIO_CONFIG_S_NEEDS_RESET);
    rig_virtio_reset(&m.v);
    start_driver(&m, ALL);
    assert_int_equal(command(&m, CONTROL, "\4\0\2\0", 4), 0);
    rig_close(&m.rig);
    router_close(&router);
}

static void test_routers_come_and_go(void **state)
{
    (void)state;
    struct router router;
    struct rigged m;
    struct tv_error err = {0};
    open_machine(&m, &router);
    start_driver(&m, ALL);
    assert_int_equal(command(&m, CONTROL, "\4\0\2\0", 4), 0);
    rig_virtio_offer(&m.v, 1, 0, BUFFER(2), 64, false);
    await(&m, &router.frames, 1);
    router_close(&router);
    await_gone(&m, 1);
    assert_false(virtio_net_is_attached(m.net));
    assert_int_equal(status(&m), LINK_UP); // one may come soon
    rig_virtio_offer(&m.v, 1, 1, BUFFER(2), 64, false);
    rig_virtio_offer(&m.v, 3, 0, BUFFER(2), 64, false);
    rig_forget_msis(&m.rig);
    assert_int_equal(virtio_net_attach(m.net, router_open(&router), &err), 0);
    await(&m, &router.queues, 15); // as many as were in use
    await(&m, &router.frames, 2);  // what waited
    assert_int_equal(status(&m), LINK_UP | S_ANNOUNCE);
    assert_int_equal(rig_count_msis(&m.rig, MSI), 1);
    assert_int_equal(command(&m, CONTROL, "\3\0", 2), 0);
    assert_int_equal(status(&m), LINK_UP);
    // None comes for long.
    router_close(&router);
    await_gone(&m, 2);
    const uint64_t deadline_ns = clock_now_ns() + DEADLINE_NS;
    while (status(&m) & LINK_UP && clock_now_ns() < deadline_ns)
        loop_run_once(m.rig.loop, 100);
    assert_int_equal(status(&m), 0);
    assert_int_equal(virtio_net_attach(m.net, router_open(&router), &err), 0);
    assert_int_equal(status(&m), LINK_UP | S_ANNOUNCE);
    struct router another;
    assert_int_not_equal(virtio_net_attach(m.net, router_open(&another), &err), 0);
    assert_non_null(strstr(err.text, "attached already"));
    router_close(&another);
    rig_close(&m.rig);
    router_close(&router);
}

static void test_save_and_load(void **state)
{
    (void)state;
    struct router routers[2];
    struct rigged from, to;
    open_machine(&from, &routers[0]);
    open_machine(&to, &routers[1]);
    start_driver(&from, ALL);
    assert_int_equal(command(&from, CONTROL, "\4\0\2\0", 4), 0);
    rig_virtio_offer(&from.v, 3, 0, BUFFER(2), 64, false);
    await(&from, &routers[0].frames, 1);
    rig_save_and_load(&from.rig, &to.rig);
    rig_run(&to.rig);
    to.v = from.v;
    to.v.rig = &to.rig;
    for (unsigned i = 0; i <= CONTROL; i++)
        virtq_driver_move(&to.v.queues[i], to.rig.ram + (QUEUE(i) - MAP_RAM_BASE));
    await(&to, &routers[1].queues, 15);
    rig_virtio_offer(&to.v, 3, 1, BUFFER(2), 64, false);
    await(&to, &routers[1].frames, 1); // and not the one before
    assert_int_equal(status(&to), LINK_UP | S_ANNOUNCE);
    assert_int_equal(command(&to, CONTROL, "\3\0", 2), 0);
    // The first goes on, too, and has nothing to announce.
    await(&from, &routers[0].queues, 15);
    assert_int_equal(status(&from), LINK_UP);
    rig_virtio_offer(&from.v, 1, 0, BUFFER(2), 64, false);
    await(&from, &routers[0].frames, 2);
    // Without a router a machine can be saved as well: frames are not requests.
    router_close(&routers[0]);
    await_gone(&from, 1);
    size_t len_bytes;
    free(rig_save(&from.rig, &len_bytes));
    assert_int_equal(board_thaw(from.rig.board, NULL), 0);
    rig_close(&from.rig);
    rig_close(&to.rig);
    router_close(&routers[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_it_says),         cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_driver_without_pairs), cmocka_unit_test(test_broken_control_queue),
        cmocka_unit_test(test_routers_come_and_go),  cmocka_unit_test(test_save_and_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
