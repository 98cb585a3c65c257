// Machines in user space, over the front end of src/vhost, that have what is written to their memory logged: by a store, and by a
// router. Each page that has changed, and that this program has not written itself, must be in the log; and of data no others.
//
//   log_driver disk SOCKET      reads a disk that is full of bytes other than 0
//   log_driver net FROM TO      frames from one port of a switch to another
#include "blk_device.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rpc.h"

#define PAGE 4096u
#define ROUNDS 100
#define WAIT_NS (60 * NS_PER_S)

static bool bit(const uint64_t *bitmap, uint64_t page)
{
    return bitmap[page / 64] >> (page % 64) & 1;
}

// Of pages [first, end): all that differ are marked. How many are.
static unsigned check(const uint8_t *now, const uint8_t *before, const uint64_t *bitmap, uint64_t first, uint64_t end)
{
    unsigned n = 0;
    for (uint64_t page = first; page < end; page++) {
        const bool differs = memcmp(now + page * PAGE, before + page * PAGE, PAGE) != 0;
        if (differs && !bit(bitmap, page))
            blk_fail("page %" PRIu64 " was written and is not in the log", page);
        n += bit(bitmap, page);
    }
    return n;
}

static struct loop *make_loop(void)
{
    struct tv_error err = {0};
    struct loop *loop = loop_create(&err);
    if (!loop)
        blk_fail("%s", err.text);
    return loop;
}

static void start_log(struct vhost_frontend *fe)
{
    struct tv_error err = {0};
    if (vhost_frontend_start_log(fe, &err))
        blk_fail("%s", err.text);
}

// ---- a disk ----

static int run_disk(const char *path)
{
    static struct blk_device dev;
    static uint8_t data[BLK_DEVICE_DATA];
    struct loop *loop = make_loop();
    blk_device_open(&dev, loop, path, 1, 0);
    start_log(dev.fe);
    const uint64_t n_pages = dev.mem.regions[0].size_bytes / PAGE;
    const uint64_t rings = (uint64_t)(dev.queues[0].ios[0].data - dev.ram) / PAGE; // pages of rings, headers and statuses
    const size_t n_words = n_pages / 64 + 1;
    uint64_t *bitmap = calloc(n_words, sizeof(*bitmap));
    uint8_t *before = malloc(n_pages * PAGE);
    unsigned n_all = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        const uint32_t len = 512u << i % 10;
        memset(dev.ram + rings * PAGE, 0, (n_pages - rings) * PAGE);
        memset(data, 0, sizeof(data));
        memcpy(before, dev.ram, n_pages * PAGE);
        vhost_frontend_take_log(dev.fe, 0, bitmap, n_words);
        memset(bitmap, 0, n_words * sizeof(*bitmap));
        if (blk_device_do(&dev, VIRTIO_BLK_T_IN, (uint64_t)i * 8, data, len) != VIRTIO_BLK_S_OK)
            blk_fail("a read failed");
        vhost_frontend_take_log(dev.fe, 0, bitmap, n_words);
        const unsigned n = check(dev.ram, before, bitmap, rings, n_pages);
        if (n == 0 || n > len / PAGE + 2)
            blk_fail("%u pages of data in the log, of %u bytes that were read", n, len);
        if (check(dev.ram, dev.ram, bitmap, 0, rings) < 2)
            blk_fail("the status or the used ring is not in the log");
        n_all += n;
    }
    printf("%u pages\n", n_all);
    blk_device_close(&dev);
    loop_destroy(loop);
    return 0;
}

// ---- a network ----

#define RAM 0x80000000ull
#define RAM_BYTES (4u << 20)
#define RING 64
#define DATA_AT (1u << 20) // buffers, a page each; before them the queues, 64 KiB each
#define HEADER 12          // virtio 1.2, 5.1.6
#define FRAME 1000

struct machine {
    struct guest_memory mem;
    struct vhost_frontend *fe;
    uint8_t *ram;
    struct virtq_driver queues[2]; // what it receives, what it sends
    int kick_fds[2], call_fd;
};

static void start_queue(struct machine *m, unsigned index, uint16_t flags)
{
    struct virtq_driver *d = &m->queues[index];
    struct tv_error err = {0};
    const uint32_t at = index << 16;
    virtq_driver_init(d, m->ram + at, RAM + at, RING, false);
    for (uint16_t i = 0; i < RING; i++)
        virtq_driver_desc(d, i, RAM + DATA_AT + (uint64_t)(index * RING + i) * PAGE, index ? HEADER + FRAME : PAGE, flags, 0);
    m->kick_fds[index] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const struct vhost_frontend_queue queue = {.size = RING,
                                               .desc_addr = d->desc_addr,
                                               .avail_addr = d->avail_addr,
                                               .used_addr = d->used_addr,
                                               .kick_fd = m->kick_fds[index],
                                               .call_fd = m->call_fd};
    if (vhost_frontend_start_queue(m->fe, index, &queue, &err))
        blk_fail("%s", err.text);
}

static void open_machine(struct machine *m, struct loop *loop, const char *path)
{
    struct tv_error err = {0};
    guest_memory_init(&m->mem);
    if (guest_memory_add(&m->mem, RAM, RAM_BYTES, guest_ram_create("machine", RAM_BYTES, &err), 0, 0, &err))
        blk_fail("%s", err.text);
    m->ram = guest_memory_view(&m->mem, RAM, RAM_BYTES);
    m->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const struct vhost_frontend_config config = {.loop = loop, .mem = &m->mem, .n_queues = 2, .is_net = true};
    m->fe = vhost_frontend_create(&config, &err);
    const int fd = m->fe ? rpc_connect(path, &err) : -1;
    if (fd < 0 || vhost_frontend_attach(m->fe, fd, &err) || vhost_frontend_set_features(m->fe, 1ull << 32, &err))
        blk_fail("%s", err.text);
    start_queue(m, 0, VRING_DESC_F_WRITE);
    start_queue(m, 1, 0);
    vhost_frontend_set_status(m->fe, 15);
}

static void close_machine(struct machine *m)
{
    vhost_frontend_destroy(m->fe);
    guest_memory_fini(&m->mem);
    close(m->call_fd);
    close(m->kick_fds[0]);
    close(m->kick_fds[1]);
}

static void offer(struct machine *m, unsigned index, uint16_t head)
{
    virtq_driver_offer(&m->queues[index], head);
    if (virtq_driver_needs_kick(&m->queues[index]))
        eventfd_write(m->kick_fds[index], 1);
}

static uint32_t await(struct machine *m, unsigned index)
{
    uint32_t id, len;
    for (uint64_t deadline = clock_now_ns() + WAIT_NS; !virtq_driver_take(&m->queues[index], &id, &len);) {
        if (clock_now_ns() > deadline)
            blk_fail("no frame came within 60 s");
        usleep(100);
    }
    return id;
}

// The last write to a ring may come after what was waited for, but with the next frame at the latest: data is what is looked at
// frame by frame.
static int run_net(const char *from_path, const char *to_path)
{
    static struct machine from, to;
    static uint8_t before[RAM_BYTES];
    static uint64_t bitmap[RAM_BYTES / PAGE / 64], all[RAM_BYTES / PAGE / 64];
    struct loop *loop = make_loop();
    open_machine(&from, loop, from_path);
    open_machine(&to, loop, to_path);
    start_log(to.fe);
    start_log(from.fe);
    unsigned n = 0;
    for (uint16_t i = 0; i < ROUNDS; i++) {
        uint8_t *frame = from.ram + DATA_AT + (size_t)(RING + i % RING) * PAGE + HEADER;
        memset(frame, 0xff, 6);
        memcpy(frame + 6, "\x02\0\0\0\0\x01\x88\xb5", 8);
        memset(frame + 14, i + 1, FRAME - 14);
        offer(&to, 0, i % RING);
        memcpy(before, to.ram, RAM_BYTES);
        offer(&from, 1, i % RING);
        const uint32_t id = await(&to, 0);
        await(&from, 1);
        memset(bitmap, 0, sizeof(bitmap));
        vhost_frontend_take_log(to.fe, 0, bitmap, sizeof(bitmap) / 8);
        n += check(to.ram, before, bitmap, DATA_AT / PAGE, RAM_BYTES / PAGE);
        if (!bit(bitmap, DATA_AT / PAGE + id))
            blk_fail("the buffer of frame %u is not in the log", i);
        for (unsigned k = 0; k < sizeof(all) / 8; k++)
            all[k] |= bitmap[k];
    }
    if (n != ROUNDS)
        blk_fail("%u pages of data in the log, of %u frames", n, ROUNDS);
    if (!bit(all, (to.queues[0].used_addr - RAM) / PAGE))
        blk_fail("the used ring is not in the log");
    memset(bitmap, 0, sizeof(bitmap));
    vhost_frontend_take_log(from.fe, 0, bitmap, sizeof(bitmap) / 8);
    if (!bit(bitmap, (from.queues[1].used_addr - RAM) / PAGE) ||
        check(from.ram, from.ram, bitmap, DATA_AT / PAGE, RAM_BYTES / PAGE))
        blk_fail("of the sender the used ring alone is written");
    printf("%u pages\n", n);
    close_machine(&from);
    close_machine(&to);
    loop_destroy(loop);
    return 0;
}

int main(int argc, char **argv)
{
    log_configure(LOG_ERROR, false);
    if (argc == 3 && !strcmp(argv[1], "disk"))
        return run_disk(argv[2]);
    if (argc == 4 && !strcmp(argv[1], "net"))
        return run_net(argv[2], argv[3]);
    fputs("usage: log_driver disk SOCKET | net FROM TO\n", stderr);
    return 2;
}
