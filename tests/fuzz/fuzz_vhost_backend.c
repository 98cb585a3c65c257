// A back end and a front end that sends whatever the input says: messages of any kind, with any descriptors, over a memory that may
// be cut under it. It must survive, be ready for the next front end, and keep no descriptor.
//
// clang -fsanitize=fuzzer,address,undefined -Isrc tests/fuzz/fuzz_vhost_backend.c and the libraries vhost and base
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "vhost/protocol.h"
#include "vhost/vhost.h"

#define QUEUES 2
#define RAM_BYTES 65536u
#define USER 0x10000u

static struct loop *loop;
static struct vhost_backend *be;
static struct sockaddr_un addr;
static socklen_t addr_len;
static uint16_t heads[QUEUES][VIRTQ_SIZE_MAX];
static unsigned n_heads[QUEUES];
static bool started[QUEUES], logs;

static void on_started(void *arg, unsigned queue, uint64_t features)
{
    (void)arg, (void)features;
    if (started[queue] || n_heads[queue])
        abort();
    started[queue] = true;
}

static void finish(unsigned queue, unsigned keep)
{
    while (n_heads[queue] > keep)
        vhost_backend_push(be, queue, heads[queue][--n_heads[queue]], 0);
    vhost_backend_call(be, queue);
}

static void on_stopped(void *arg, unsigned queue)
{
    (void)arg;
    if (!started[queue])
        abort();
    finish(queue, 0);
    started[queue] = false;
}

// Reads and writes what a chain points to, as a device would; keeps some in flight.
static void on_kicked(void *arg, unsigned queue)
{
    static struct virtq_chain chain;
    uint8_t bytes[512] = {0};
    (void)arg;
    for (unsigned i = 0; i < 200 && vhost_backend_pop(be, queue, &chain) == 1; i++) {
        virtq_chain_read(&chain, 0, bytes, sizeof(bytes));
        virtq_chain_write(&chain, 0, bytes, sizeof(bytes));
        if (logs)
            vhost_backend_log_writes(be, chain.iov + chain.n_out, chain.n_in);
        heads[queue][n_heads[queue]++] = chain.head;
        if (n_heads[queue] > 5)
            finish(queue, 2);
    }
}

static void on_logging(void *arg, bool on)
{
    (void)arg;
    if (on == logs)
        abort();
    logs = on;
}

static void config_read(void *arg, uint8_t *config)
{
    (void)arg;
    memset(config, 1, 60);
}

static int config_write(void *arg, uint32_t offset, const uint8_t *bytes, uint32_t len_bytes)
{
    (void)arg, (void)bytes;
    if (offset + len_bytes > 60)
        abort();
    vhost_backend_config_changed(be);
    return 0;
}

static void set_up(void)
{
    const struct vhost_backend_ops ops = {.features = 0xff,
                                          .n_queues = QUEUES,
                                          .config_len_bytes = 60,
                                          .config_read = config_read,
                                          .config_write = config_write,
                                          .started = on_started,
                                          .stopped = on_stopped,
                                          .kicked = on_kicked,
                                          .logging = on_logging};
    struct sockaddr_un any = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    addr_len = sizeof(addr);
    if (bind(fd, (struct sockaddr *)&any, sizeof(sa_family_t)) < 0 || listen(fd, 4) < 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &addr_len) < 0)
        abort();
    log_configure(LOG_ERROR, false);
    loop = loop_create(NULL);
    be = vhost_backend_create(loop, fd, &ops, NULL, NULL);
    if (!loop || !be)
        abort();
}

struct input {
    const uint8_t *data;
    size_t size;
};

static uint8_t next(struct input *in)
{
    if (in->size == 0)
        return 0;
    in->size--;
    return *in->data++;
}

static int make_fd(uint8_t kind, int ram_fd, int event_fd)
{
    int fds[2];
    switch (kind % 6) {
    case 0:
        return dup(ram_fd);
    case 1:
        return dup(event_fd);
    case 2:
        return guest_ram_create("fuzz", RAM_BYTES, NULL);
    case 3:
        return socket(AF_UNIX, SOCK_STREAM, 0);
    case 4:
        if (pipe(fds) < 0)
            abort();
        close(fds[kind & 1]);
        return fds[!(kind & 1)];
    default:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    }
}

static void send_any(struct input *in, int fd, int ram_fd, int event_fd)
{
    uint8_t request = next(in), flags = next(in), n_fds = next(in), size = next(in);
    union vhost_payload payload = {0};
    int fds[VHOST_FDS_MAX];
    n_fds = n_fds > 250 ? VHOST_FDS_MAX : n_fds % 3;
    for (unsigned i = 0; i < n_fds; i++)
        fds[i] = make_fd(next(in), ram_fd, event_fd);
    for (unsigned i = 0; i < size; i++)
        ((uint8_t *)&payload)[i] = next(in);
    vhost_send(fd, request % 48, flags & (VHOST_NEED_REPLY | VHOST_REPLY), &payload, size, fds, n_fds);
    for (unsigned i = 0; i < n_fds; i++)
        close(fds[i]);
}

static void send_plain(int fd, uint32_t request, const void *payload, size_t size, int with_fd)
{
    vhost_send(fd, request, 0, payload, size, &with_fd, with_fd >= 0);
}

// A log of about the size that it must have, somewhere in the same file or beyond its end; and one ring's part of it.
static void send_log(struct input *in, int fd, int ram_fd, int event_fd)
{
    const uint8_t how = next(in);
    const struct vhost_log log = {.mmap_size = next(in) % 5u, .mmap_offset = 0xffull * next(in)};
    const struct vhost_ring_addr ring = {.index = how & 1,
                                         .flags = how >> 1 & 1,
                                         .desc = USER + 0x400 * (how & 1u),
                                         .avail = USER + 0x400 * (how & 1u) + 0x100,
                                         .used = USER + 0x400 * (how & 1u) + 0x200,
                                         .log = how & 4 ? UINT64_MAX - next(in) : 0x200ull * next(in)};
    const uint64_t features = 1ull << 32 | 1ull << 28 | (how & 16 ? 1ull << VHOST_F_LOG_ALL : 0) | (how & 32 ? 1ull << 34 : 0);
    vhost_send(fd, VHOST_SET_LOG_BASE, 0, &log, sizeof(log), &ram_fd, 1);
    if (how & 8)
        vhost_send(fd, VHOST_SET_VRING_ADDR, 0, &ring, sizeof(ring), NULL, 0);
    if (how & 64)
        vhost_send(fd, VHOST_SET_LOG_FD, 0, NULL, 0, &event_fd, 1);
    if (how & 128)
        vhost_send(fd, VHOST_SET_FEATURES, 0, &features, sizeof(features), NULL, 0);
}

// What an honest front end would have sent: gets the fuzzer to the interesting places.
static void send_honest(int fd, int ram_fd, int event_fd, uint8_t how)
{
    uint64_t features = 1ull << 32 | 1ull << 28 | (how & 1 ? 1ull << 29 : 0) | (how & 2 ? 1ull << 30 : 0) |
                        (how & 16 ? 1ull << 34 : 0) | (how & 32 ? 1ull << VHOST_F_LOG_ALL : 0);
    uint64_t protocol = VHOST_PROTOCOL_FEATURES;
    struct vhost_mem_table table = {.n_regions = 1, .regions[0] = {.size_bytes = RAM_BYTES, .user_addr = USER}};
    send_plain(fd, VHOST_SET_PROTOCOL_FEATURES, &protocol, 8, -1);
    send_plain(fd, VHOST_SET_FEATURES, &features, 8, -1);
    send_plain(fd, VHOST_SET_MEM_TABLE, &table, 40, ram_fd);
    if (how & 4) {
        struct vhost_inflight inflight = {.mmap_size = 2 * 2048, .mmap_offset = 0x8000, .n_queues = 2, .queue_size = 16};
        send_plain(fd, VHOST_SET_INFLIGHT_FD, &inflight, sizeof(inflight), ram_fd);
    }
    if (how & 64) {
        const struct vhost_log log = {.mmap_size = 2, .mmap_offset = 0x4000};
        send_plain(fd, VHOST_SET_LOG_BASE, &log, sizeof(log), ram_fd);
    }
    for (uint32_t i = 0; i < QUEUES; i++) {
        struct vhost_ring_state state = {.index = i, .num = 16};
        struct vhost_ring_addr ring = {.index = i,
                                       .flags = how >> 7,
                                       .log = 0x400 * i + 0x200,
                                       .desc = USER + 0x400 * i,
                                       .avail = USER + 0x400 * i + 0x100,
                                       .used = USER + 0x400 * i + 0x200};
        uint64_t index = i;
        send_plain(fd, VHOST_SET_VRING_NUM, &state, 8, -1);
        send_plain(fd, VHOST_SET_VRING_ADDR, &ring, sizeof(ring), -1);
        if (how & 16) {
            const struct vhost_ring_state base = {.index = i, .num = VIRTQ_BASE_PACKED_NEW};
            send_plain(fd, VHOST_SET_VRING_BASE, &base, 8, -1);
        }
        send_plain(fd, VHOST_SET_VRING_CALL, &index, 8, event_fd);
        send_plain(fd, VHOST_SET_VRING_KICK, &index, 8, event_fd);
        state.num = 1;
        send_plain(fd, VHOST_SET_VRING_ENABLE, &state, 8, -1);
    }
}

static void serve(void)
{
    for (unsigned i = 0; i < 20 && loop_run_once(loop, 0) > 0; i++)
        ;
}

static void run(struct input *in, int fd)
{
    const uint64_t one = 1;
    int ram_fd = memfd_create("fuzz", MFD_CLOEXEC), event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint8_t how = next(in);
    if (ftruncate(ram_fd, RAM_BYTES) < 0)
        abort();
    size_t n = in->size < 0x1000 ? in->size : 0x1000; // the rings
    if (pwrite(ram_fd, in->data, n, 0) != (ssize_t)n)
        abort();
    if (how & 8)
        send_honest(fd, ram_fd, event_fd, how);
    while (in->size > 0) {
        uint8_t command = next(in);
        if (command < 200)
            send_any(in, fd, ram_fd, event_fd);
        else if (command > 200 && command < 220)
            send_log(in, fd, ram_fd, event_fd);
        else if (command == 240 && ftruncate(ram_fd, 0) < 0)
            abort();
        else if (command > 240) // a part of a message, out of step from here on
            send(fd, in->data, in->size < 7 ? in->size : 7, MSG_NOSIGNAL | MSG_DONTWAIT);
        else if (command != 240 && write(event_fd, &one, sizeof(one)) < 0)
            abort();
        serve();
    }
    serve();
    close(ram_fd);
    close(event_fd);
}

static int lowest_fd(void)
{
    int fd = dup(STDIN_FILENO);
    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.data = data, .size = size};
    if (!loop)
        set_up();
    int before = lowest_fd();
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&addr, addr_len) < 0)
        abort();
    serve();
    run(&in, fd);
    close(fd);
    for (unsigned i = 0; vhost_backend_is_connected(be); i++) {
        if (i == 100)
            abort();
        loop_run_once(loop, 100);
    }
    if (started[0] || started[1] || logs || lowest_fd() != before)
        abort();
    return 0;
}
