// A hostile driver of a network card: commands on the control queue in order and out of it, rings of garbage, registers written at
// random, drivers with several pairs of queues and without, resets, and saved state that is damaged. Whatever it does costs the
// device only: the loop comes back, and after a reset the device works as on the first day.
//
// The back end has gone after it said what it can do, so that a run needs no other thread; what it is told when one comes is for
// fuzz_vhost_frontend. The input is a program: an operation byte, then its operands.
#include "base/log.h"
#include "machine/device/device.h"
#include "vhost/backend.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RAM_BYTES 32768u
#define SLOT 1
#define BAR MAP_PCI64_BASE
#define CONFIG (MAP_ECAM_BASE + (SLOT << 15))
#define STEPS_MAX 400
#define N_PAIRS 2
#define N_QUEUES (2 * N_PAIRS + 1)
#define RING(i) ((i)*0x800u) // in RAM
#define RING_SIZE 16
#define BUFFERS 0x3000u
#define FEATURES (1u << 3 | 1u << 5 | 1u << 15 | 1u << 16 | 1u << 17 | 1u << 21 | 1u << VIRTIO_RING_F_INDIRECT_DESC)
#define MQ (1u << 22)
#define EVENT_IDX (1u << VIRTIO_RING_F_EVENT_IDX)

enum { BAR_COMMON = 0x0000, BAR_DEVICE = 0x2000, BAR_NOTIFY = 0x3000 }; // virtio_pci_regs.c; found out in the unit tests

static struct loop *loop;
static struct guest_memory mem;
static uint8_t *ram;
static struct board *board;
static struct virtio_net *net;

struct input {
    const uint8_t *at, *end;
};

static uint64_t take(struct input *in, unsigned n_bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < n_bytes && in->at < in->end; i++)
        value |= (uint64_t)*in->at++ << (8 * i);
    return value;
}

static int raise_msi(void *arg, uint64_t addr, uint32_t data)
{
    (void)arg;
    (void)addr;
    (void)data;
    return 0;
}

static void ignore(void *arg)
{
    (void)arg;
}

static void ignore_output(void *arg, const uint8_t *buf, size_t len_bytes)
{
    (void)arg;
    (void)buf;
    (void)len_bytes;
}

static void run_loop(void)
{
    for (unsigned i = 0; loop_run_once(loop, 0) > 0; i++)
        if (i > 10000) // a guest must not keep the loop from coming back
            abort();
}

// --- the back end, for as long as the device is made

static void on_end(void *arg, int fd, uint32_t events)
{
    (void)fd;
    (void)events;
    loop_stop(arg);
}

static void on_started(void *arg, unsigned queue, uint64_t features)
{
    (void)arg;
    (void)queue;
    (void)features;
}

static void on_queue(void *arg, unsigned queue)
{
    (void)arg;
    (void)queue;
}

static void *serve(void *arg)
{
    const int *fds = arg; // a listener, and what is signalled at the end
    const struct vhost_backend_ops ops = {.features = 1u << 15 | 1u << 17 | MQ,
                                          .n_queues = 2 * N_PAIRS,
                                          .started = on_started,
                                          .stopped = on_queue,
                                          .kicked = on_queue};
    struct loop *own = loop_create(NULL);
    struct vhost_backend *be = vhost_backend_create(own, fds[0], &ops, NULL, NULL);
    struct loop_source *end = loop_add_fd(own, fds[1], EPOLLIN, on_end, own, NULL);
    if (!be || !end)
        abort();
    loop_run(own);
    loop_remove(end);
    vhost_backend_destroy(be);
    loop_destroy(own);
    return NULL;
}

static void add_net(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(addr);
    pthread_t thread;
    int fds[2] = {socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), eventfd(0, 0)}, fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(fds[0], (struct sockaddr *)&addr, sizeof(sa_family_t)) || listen(fds[0], 1) ||
        getsockname(fds[0], (struct sockaddr *)&addr, &len) || connect(fd, (struct sockaddr *)&addr, len) ||
        pthread_create(&thread, NULL, serve, fds))
        abort();
    const struct virtio_net_config config = {.home = {.loop = loop, .mem = &mem, .pcie = board_pcie(board), .slot = SLOT},
                                             .mac = {2, 0, 0, 0, 0, 1},
                                             .mtu_bytes = 1400,
                                             .n_pairs = N_PAIRS};
    net = virtio_net_add(&config, fd, NULL);
    if (!net || eventfd_write(fds[1], 1) || pthread_join(thread, NULL))
        abort();
    close(fds[1]);
    run_loop();
    if (virtio_net_is_attached(net))
        abort();
}

static void setup(void)
{
    log_configure(LOG_ERROR, false);
    loop = loop_create(NULL);
    guest_memory_init(&mem);
    int fd = guest_ram_create("fuzz", RAM_BYTES, NULL);
    if (!loop || guest_memory_add(&mem, MAP_RAM_BASE, RAM_BYTES, fd, 0, 0, NULL) != 0)
        abort();
    ram = guest_memory_view(&mem, MAP_RAM_BASE, RAM_BYTES);
    const struct board_config config = {
        .loop = loop, .mem = &mem, .n_vcpus = 1, .raise_msi = raise_msi, .console_output = ignore_output, .console_room = ignore};
    board = board_create(&config, NULL);
    if (!board)
        abort();
    add_net();
}

// --- the driver

static void put(uint64_t gpa, unsigned size, uint64_t value)
{
    bus_write(board_bus(board), gpa, size, value);
}

static uint64_t get(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;
    bus_read(board_bus(board), gpa, size, &value);
    return value;
}

static void enable_queue(unsigned index)
{
    const uint64_t base = MAP_RAM_BASE + RING(index);
    put(BAR + VIRTIO_PCI_COMMON_Q_SELECT, 2, index);
    put(BAR + VIRTIO_PCI_COMMON_Q_SIZE, 2, RING_SIZE);
    put(BAR + VIRTIO_PCI_COMMON_Q_MSIX, 2, index + 1);
    put(BAR + VIRTIO_PCI_COMMON_Q_DESCLO, 8, base);
    put(BAR + VIRTIO_PCI_COMMON_Q_AVAILLO, 8, base + 16 * RING_SIZE);
    put(BAR + VIRTIO_PCI_COMMON_Q_USEDLO, 8, base + 16 * RING_SIZE + 512);
    put(BAR + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

// The road to DRIVER_OK, all in order, with the queues of the set.
static void bring_up(uint32_t features, unsigned queues)
{
    put(CONFIG + PCI_BASE_ADDRESS_0, 4, (uint32_t)BAR);
    put(CONFIG + PCI_BASE_ADDRESS_1, 4, BAR >> 32);
    put(CONFIG + PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    put(BAR + VIRTIO_PCI_COMMON_STATUS, 1, 0);
    run_loop();
    put(BAR + VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    put(BAR + VIRTIO_PCI_COMMON_GF, 4, 1);
    put(BAR + VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    put(BAR + VIRTIO_PCI_COMMON_GF, 4, features);
    put(BAR + VIRTIO_PCI_COMMON_STATUS, 1, 0xb);
    put(BAR + VIRTIO_PCI_COMMON_MSIX, 2, 0);
    for (unsigned i = 0; i < N_QUEUES; i++)
        if (queues >> i & 1)
            enable_queue(i);
    put(BAR + VIRTIO_PCI_COMMON_STATUS, 1, 0xf);
    run_loop();
}

static void set_desc(unsigned queue, uint16_t index, struct vring_desc desc)
{
    memcpy(ram + RING(queue) + 16 * (index % RING_SIZE), &desc, sizeof(desc));
}

static void offer(unsigned queue, uint16_t head)
{
    struct vring_avail *avail = (struct vring_avail *)(void *)(ram + RING(queue) + 16 * RING_SIZE);
    avail->ring[avail->idx % RING_SIZE] = head;
    avail->idx++;
    put(BAR + BAR_NOTIFY + 4 * queue, 2, queue);
}

// A command as it should be, but for what it says and how long its parts are.
static void command(struct input *in)
{
    const unsigned how = (unsigned)take(in, 1), queue = how & 1 ? 2 * N_PAIRS : 2;
    const uint32_t len = how >> 1 & 7;
    for (unsigned i = 0; i < len; i++)
        ram[BUFFERS + i] = (uint8_t)take(in, 1);
    set_desc(queue, 0, (struct vring_desc){MAP_RAM_BASE + BUFFERS, len, VRING_DESC_F_NEXT, 1});
    set_desc(queue, 1, (struct vring_desc){MAP_RAM_BASE + BUFFERS + 64, how >> 4 & 3, VRING_DESC_F_WRITE, 0});
    offer(queue, 0);
    if (how & 0x80)
        run_loop();
}

static void garbage(struct input *in)
{
    const unsigned queue = (unsigned)take(in, 1) % N_QUEUES;
    set_desc(queue, (uint16_t)take(in, 1),
             (struct vring_desc){.addr = MAP_RAM_BASE + take(in, 2) % (RAM_BYTES + 64),
                                 .len = (uint32_t)take(in, 2) % 8192,
                                 .flags = (uint16_t)(take(in, 1) & 7),
                                 .next = (uint16_t)(take(in, 1) % 20)});
    offer(queue, (uint16_t)(take(in, 1) % 20));
}

static void save_and_load(struct input *in)
{
    struct tv_error err = {0};
    void *buf = NULL;
    size_t len_bytes = 0, n_changes = take(in, 1) % 4;
    struct state *s = state_create_save();
    board_freeze(board);
    board_state(board, s);
    if (state_finish(s, &buf, &len_bytes, &err) != 0)
        fprintf(stderr, "it cannot be saved: %s\n", err.text), abort();
    state_destroy(s);
    for (size_t i = 0; i < n_changes; i++)
        ((uint8_t *)buf)[take(in, 2) % len_bytes] ^= (uint8_t)take(in, 1);
    s = state_create_load(buf, len_bytes);
    board_state(board, s);
    int rc = state_finish(s, NULL, NULL, &err);
    state_destroy(s);
    free(buf);
    if (rc != 0 && n_changes == 0)
        fprintf(stderr, "what was saved does not load: %s\n", err.text), abort();
    if (rc != 0)
        board_reset(board); // a machine that did not load is not run
    board_thaw(board, NULL);
}

static void step(struct input *in)
{
    const unsigned op = (unsigned)take(in, 1), size = 1u << (op >> 4 & 3);
    uint64_t gpa;
    switch (op % 9) {
    case 0:
        bring_up((FEATURES ^ (uint32_t)(take(in, 1) << 15)) | (op & 0x40 ? MQ : 0) | (op & 0x80 ? EVENT_IDX : 0),
                 (unsigned)take(in, 1));
        break;
    case 1:
    case 2:
        command(in);
        break;
    case 3:
        garbage(in);
        break;
    case 4:
        run_loop();
        break;
    case 5:
        gpa = BAR + (op & 0x80 ? BAR_DEVICE : 0) + take(in, 2) % 0x3800;
        put(gpa & ~(uint64_t)(size - 1), size, take(in, size));
        break;
    case 6:
        ram[take(in, 2) % RAM_BYTES] = (uint8_t)take(in, 1);
        break;
    case 7:
        gpa = BAR + take(in, 2) % 0x8000;
        get(gpa & ~(uint64_t)(size - 1), size);
        break;
    default:
        save_and_load(in);
        break;
    }
}

// After a reset it is as it was on the first day: a driver sets the number of pairs, and is told that it is done.
static void check_recovers(void)
{
    const uint8_t pairs[4] = {4, 0, N_PAIRS, 0};
    board_reset(board);
    run_loop();
    memset(ram, 0, RAM_BYTES);
    bring_up(FEATURES | MQ, (1u << N_QUEUES) - 1);
    if (get(BAR + VIRTIO_PCI_COMMON_STATUS, 1) != 0xf || get(BAR + BAR_DEVICE, 1) != 2)
        abort();
    memcpy(ram + BUFFERS, pairs, sizeof(pairs));
    ram[BUFFERS + 64] = 0xee;
    set_desc(2 * N_PAIRS, 0, (struct vring_desc){MAP_RAM_BASE + BUFFERS, sizeof(pairs), VRING_DESC_F_NEXT, 1});
    set_desc(2 * N_PAIRS, 1, (struct vring_desc){MAP_RAM_BASE + BUFFERS + 64, 1, VRING_DESC_F_WRITE, 0});
    offer(2 * N_PAIRS, 0);
    run_loop();
    if (ram[BUFFERS + 64] != 0)
        abort();
    board_reset(board);
    run_loop();
    memset(ram, 0, RAM_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.at = data, .end = data + size};
    if (!board)
        setup();
    for (unsigned i = 0; i < STEPS_MAX && in.at < in.end; i++)
        step(&in);
    run_loop();
    check_recovers();
    return 0;
}
