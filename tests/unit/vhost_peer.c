// A front end by hand: see vhost_peer.h.
#include "vhost_peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

void peer_serve(struct peer *p)
{
    while (loop_run_once(p->dev.loop, 0) > 0)
        ;
}

void peer_connect(struct peer *p)
{
    p->fd = rig_connect(p->listen_fd);
    while (!vhost_backend_is_connected(p->dev.be))
        assert_true(loop_run_once(p->dev.loop, 5000) > 0);
}

void peer_open(struct peer *p)
{
    memset(p, 0, sizeof(*p));
    p->listen_fd = rig_listen();
    rig_device_open(&p->dev, p->listen_fd, false, 1);
    p->ram_fd = memfd_create("hostile", MFD_CLOEXEC);
    p->kick_fd = eventfd(0, EFD_CLOEXEC); // blocking, as a peer may have it
    p->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(ftruncate(p->ram_fd, PEER_RAM_BYTES), 0);
    p->ram = mmap(NULL, PEER_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, p->ram_fd, 0);
    peer_connect(p);
}

void peer_close(struct peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    rig_device_close(&p->dev);
    munmap(p->ram, PEER_RAM_BYTES);
    close(p->ram_fd);
    close(p->kick_fd);
    close(p->call_fd);
}

void peer_put(struct peer *p, uint32_t request, const void *payload, size_t size, int fd)
{
    assert_int_equal(vhost_send(p->fd, request, 0, payload, size, &fd, fd >= 0), 0);
    peer_serve(p);
}

void peer_put_u64(struct peer *p, uint32_t request, uint64_t value, int fd)
{
    peer_put(p, request, &value, sizeof(value), fd);
}

void peer_put_ring(struct peer *p, uint32_t request, uint32_t index, uint32_t num)
{
    struct vhost_ring_state state = {.index = index, .num = num};
    peer_put(p, request, &state, sizeof(state), -1);
}

union vhost_payload peer_take_reply(struct peer *p, uint32_t request)
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

void peer_set_memory(struct peer *p)
{
    struct vhost_mem_table table = {.n_regions = 1,
                                    .regions[0] = {.guest_addr = RIG_RAM, .size_bytes = PEER_RAM_BYTES, .user_addr = PEER_USER}};
    peer_put(p, VHOST_SET_MEM_TABLE, &table, 40, p->ram_fd);
}

void peer_set_queue(struct peer *p, uint64_t features)
{
    uint64_t guest = RIG_RAM;
    virtq_driver_init(&p->drv, p->ram, guest, 16, false);
    virtq_driver_desc(&p->drv, 0, guest + 0x8000, 8, VRING_DESC_F_NEXT, 1);
    virtq_driver_desc(&p->drv, 1, guest + 0x9000, 8, VRING_DESC_F_WRITE, 0);
    struct vhost_ring_addr addr = {.index = 0,
                                   .desc = PEER_USER + (p->drv.desc_addr - guest),
                                   .avail = PEER_USER + (p->drv.avail_addr - guest),
                                   .used = PEER_USER + (p->drv.used_addr - guest)};
    peer_put_u64(p, VHOST_SET_FEATURES, features, -1);
    peer_set_memory(p);
    peer_put_ring(p, VHOST_SET_VRING_NUM, 0, 16);
    peer_put_ring(p, VHOST_SET_VRING_BASE, 0, 0);
    peer_put(p, VHOST_SET_VRING_ADDR, &addr, sizeof(addr), -1);
    peer_put_u64(p, VHOST_SET_VRING_CALL, 0, p->call_fd);
}

bool peer_is_answered(struct peer *p)
{
    uint32_t id = 0, len = 0;
    return virtq_driver_take(&p->drv, &id, &len) && len == 8;
}
