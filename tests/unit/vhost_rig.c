// See vhost_rig.h. Failures of the rig itself abort.
#include "vhost_rig.h"

#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

#define ANSWER(n) ((n) ^ 0x5a5a5a5a5a5a5a5aull)
#define DEADLINE_NS (30 * NS_PER_S)

#define MUST(condition)                                                                                                            \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: rig: %s\n", __FILE__, __LINE__, #condition);                                                   \
            abort();                                                                                                               \
        }                                                                                                                          \
    } while (0)

int rig_listen(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    MUST(fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(sa_family_t)) == 0 && listen(fd, 8) == 0);
    return fd;
}

int rig_connect(int listen_fd)
{
    struct sockaddr_un addr;
    socklen_t len = sizeof(addr);
    MUST(getsockname(listen_fd, (struct sockaddr *)&addr, &len) == 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(fd >= 0 && connect(fd, (struct sockaddr *)&addr, len) == 0);
    return fd;
}

static void device_finish(struct rig_device *dev, unsigned index)
{
    struct rig_held held = dev->held[index];
    dev->held[index] = dev->held[--dev->n_held];
    *held.to = held.answer;
    const struct iovec written = {.iov_base = held.to, .iov_len = sizeof(held.answer)};
    vhost_backend_log_writes(dev->be, &written, 1);
    vhost_backend_push(dev->be, held.queue, held.head, sizeof(uint64_t));
    vhost_backend_call(dev->be, held.queue);
}

static void device_kicked(void *arg, unsigned queue)
{
    struct rig_device *dev = arg;
    struct virtq_chain chain;
    while (vhost_backend_pop(dev->be, queue, &chain) == 1) {
        uint64_t number = 0;
        MUST(chain.n_out == 1 && chain.n_in == 1 && virtq_chain_read(&chain, 0, &number, 8) == 8);
        dev->held[dev->n_held++] =
            (struct rig_held){.queue = queue, .head = chain.head, .answer = ANSWER(number), .to = chain.iov[1].iov_base};
        if (!dev->hold && !dev->stop)
            device_finish(dev, dev->n_held - 1);
    }
    if (dev->stop && dev->n_held == RIG_STOP) {
        raise(SIGSTOP);
        device_finish(dev, 1);
        raise(SIGSTOP);
    }
}

static void device_timer(void *arg)
{
    struct rig_device *dev = arg;
    for (unsigned n = dev->n_held / 2 + 1; n > 0 && dev->n_held > 0; n--) {
        dev->rng = dev->rng * 1103515245u + 12345u;
        device_finish(dev, (dev->rng >> 8) % dev->n_held);
    }
}

static void device_started(void *arg, unsigned queue, uint64_t features)
{
    (void)queue, (void)features;
    ((struct rig_device *)arg)->n_started++;
}

static void device_stopped(void *arg, unsigned queue)
{
    struct rig_device *dev = arg;
    for (unsigned i = dev->n_held; i > 0; i--) {
        if (dev->held[i - 1].queue == queue)
            device_finish(dev, i - 1);
    }
    dev->n_stopped++;
}

static void device_logging(void *arg, bool on)
{
    ((struct rig_device *)arg)->logs = on;
}

static void device_connected(void *arg)
{
    ((struct rig_device *)arg)->n_connected++;
}

static void device_disconnected(void *arg)
{
    ((struct rig_device *)arg)->n_disconnected++;
}

static void device_config_read(void *arg, uint8_t *config)
{
    memcpy(config, ((struct rig_device *)arg)->config, RIG_CONFIG_BYTES);
}

static int device_config_write(void *arg, uint32_t offset, const uint8_t *bytes, uint32_t len_bytes)
{
    struct rig_device *dev = arg;
    memcpy(dev->config + offset, bytes, len_bytes);
    vhost_backend_config_changed(dev->be);
    return 0;
}

void rig_device_open(struct rig_device *dev, int listen_fd, bool hold, unsigned seed)
{
    const struct vhost_backend_ops ops = {
        .features = RIG_FEATURE,
        .n_queues = RIG_QUEUES,
        .config_len_bytes = RIG_CONFIG_BYTES,
        .config_read = device_config_read,
        .config_write = device_config_write,
        .connected = device_connected,
        .disconnected = device_disconnected,
        .started = device_started,
        .stopped = device_stopped,
        .kicked = device_kicked,
        .logging = device_logging,
    };
    *dev = (struct rig_device){.hold = hold, .rng = seed, .config = "configuration"};
    dev->loop = loop_create(NULL);
    MUST(dev->loop);
    dev->be = vhost_backend_create(dev->loop, listen_fd, &ops, dev, NULL);
    dev->timer = loop_add_timer(dev->loop, device_timer, dev, NULL);
    MUST(dev->be && dev->timer);
    if (hold)
        loop_set_timer(dev->timer, 20 * NS_PER_US, 20 * NS_PER_US);
}

void rig_device_close(struct rig_device *dev)
{
    vhost_backend_destroy(dev->be);
    loop_remove(dev->timer);
    loop_destroy(dev->loop);
}

static pid_t spawn(int listen_fd, bool hold, unsigned seed, bool stop)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid > 0)
        return pid;
    struct rig_device dev;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    rig_device_open(&dev, dup(listen_fd), hold, seed);
    dev.stop = stop;
    if (stop)
        MUST(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    _exit(loop_run(dev.loop) == 0 ? 0 : 1);
}

pid_t rig_device_spawn(int listen_fd, bool hold, unsigned seed)
{
    return spawn(listen_fd, hold, seed, false);
}

pid_t rig_device_spawn_traced(int listen_fd)
{
    return spawn(listen_fd, false, 1, true);
}

static void on_call(void *arg, int fd, uint32_t events)
{
    struct rig_queue *queue = arg;
    struct rig_machine *m = queue->machine;
    uint64_t count;
    (void)events;
    if (read(fd, &count, sizeof(count)) < 0)
        return;
    do {
        uint32_t id, len;
        while (virtq_driver_take(&queue->drv, &id, &len)) {
            uint32_t slot = id / 2;
            bool right = id % 2 == 0 && slot < RIG_SLOTS && queue->outstanding[slot] && len == sizeof(uint64_t) &&
                         queue->data[2 * slot + 1] == ANSWER(queue->outstanding[slot] - 1);
            m->n_wrong += !right;
            m->n_answered++;
            if (slot < RIG_SLOTS)
                queue->outstanding[slot] = 0;
        }
    } while (virtq_driver_calls_on(&queue->drv));
}

static void machine_disconnected(void *arg)
{
    ((struct rig_machine *)arg)->n_disconnected++;
}

static void machine_queue_broken(void *arg)
{
    ((struct rig_machine *)arg)->n_broken++;
}

static void machine_config_changed(void *arg)
{
    ((struct rig_machine *)arg)->n_config_changed++;
}

void rig_machine_open(struct rig_machine *m, unsigned n_regions)
{
    memset(m, 0, sizeof(*m));
    m->loop = loop_create(NULL);
    guest_memory_init(&m->mem);
    for (unsigned i = 0; i < n_regions; i++) {
        int fd = guest_ram_create("rig", RIG_RAM_BYTES, NULL);
        MUST(fd >= 0 && guest_memory_add(&m->mem, RIG_RAM + i * RIG_RAM_BYTES, RIG_RAM_BYTES, fd, 0, 0, NULL) == 0);
    }
    const struct vhost_frontend_config config = {
        .loop = m->loop,
        .mem = &m->mem,
        .n_queues = RIG_QUEUES,
        .config_len_bytes = RIG_CONFIG_BYTES,
        .disconnected = machine_disconnected,
        .config_changed = machine_config_changed,
        .queue_broken = machine_queue_broken,
        .arg = m,
    };
    m->fe = vhost_frontend_create(&config, NULL);
    MUST(m->fe);
    for (unsigned i = 0; i < RIG_QUEUES; i++) {
        struct rig_queue *queue = &m->queues[i];
        queue->machine = m;
        queue->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        queue->call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        queue->call_source = loop_add_fd(m->loop, queue->call_fd, EPOLLIN, on_call, queue, NULL);
        MUST(queue->call_source);
    }
}

void rig_machine_close(struct rig_machine *m)
{
    vhost_frontend_destroy(m->fe);
    for (unsigned i = 0; i < RIG_QUEUES; i++) {
        loop_remove(m->queues[i].call_source);
        close(m->queues[i].kick_fd);
        close(m->queues[i].call_fd);
    }
    loop_destroy(m->loop);
    guest_memory_fini(&m->mem);
}

void rig_machine_start(struct rig_machine *m, uint64_t features)
{
    MUST(vhost_frontend_set_features(m->fe, features, NULL) == 0);
    for (unsigned i = 0; i < RIG_QUEUES; i++) {
        struct rig_queue *queue = &m->queues[i];
        uint64_t addr = m->mem.regions[m->mem.n_regions - 1].guest_addr + i * 0x10000; // 64 KiB a queue: rings, then data
        memset(queue->outstanding, 0, sizeof(queue->outstanding));
        if (features >> 34 & 1)
            virtq_driver_init_packed(&queue->drv, guest_memory_view(&m->mem, addr, 0x10000), addr, RIG_QUEUE_SIZE,
                                     features >> 29 & 1);
        else
            virtq_driver_init(&queue->drv, guest_memory_view(&m->mem, addr, 0x10000), addr, RIG_QUEUE_SIZE, features >> 29 & 1);
        queue->data = guest_memory_view(&m->mem, addr + 0x8000, RIG_SLOTS * 16);
        for (uint16_t slot = 0; slot < RIG_SLOTS; slot++) {
            uint16_t head = (uint16_t)(2 * slot), next = (uint16_t)(head + 1);
            virtq_driver_desc(&queue->drv, head, addr + 0x8000 + 16u * slot, 8, VRING_DESC_F_NEXT, next);
            virtq_driver_desc(&queue->drv, next, addr + 0x8008 + 16u * slot, 8, VRING_DESC_F_WRITE, 0);
        }
        struct vhost_frontend_queue q = {.size = RIG_QUEUE_SIZE,
                                         .desc_addr = queue->drv.desc_addr,
                                         .avail_addr = queue->drv.avail_addr,
                                         .used_addr = queue->drv.used_addr,
                                         .kick_fd = queue->kick_fd,
                                         .call_fd = queue->call_fd};
        MUST(vhost_frontend_start_queue(m->fe, i, &q, NULL) == 0);
    }
    MUST(vhost_frontend_set_status(m->fe, 0xf) == 0);
}

void rig_machine_offer(struct rig_machine *m, uint64_t until)
{
    const uint64_t one = 1;
    for (unsigned i = 0; i < RIG_QUEUES; i++) {
        struct rig_queue *queue = &m->queues[i];
        bool offered = false;
        for (uint16_t slot = 0; slot < RIG_SLOTS && m->next_number < until; slot++) {
            if (queue->outstanding[slot])
                continue;
            queue->data[2 * slot] = m->next_number++;
            queue->data[2 * slot + 1] = 0;
            queue->outstanding[slot] = queue->data[2 * slot] + 1;
            virtq_driver_offer(&queue->drv, (uint16_t)(2 * slot));
            offered = true;
        }
        if (offered && virtq_driver_needs_kick(&queue->drv))
            MUST(write(queue->kick_fd, &one, sizeof(one)) == (ssize_t)sizeof(one));
    }
}

unsigned rig_machine_outstanding(const struct rig_machine *m)
{
    unsigned n = 0;
    for (unsigned i = 0; i < RIG_QUEUES; i++) {
        for (unsigned slot = 0; slot < RIG_SLOTS; slot++)
            n += m->queues[i].outstanding[slot] != 0;
    }
    return n;
}

bool rig_machine_await(struct rig_machine *m, uint64_t n_answered)
{
    uint64_t deadline_ns = clock_now_ns() + DEADLINE_NS;
    while (m->n_answered < n_answered && clock_now_ns() < deadline_ns)
        loop_run_once(m->loop, 100);
    return m->n_answered >= n_answered;
}
