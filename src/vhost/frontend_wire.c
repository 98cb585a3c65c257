// The front end's requests: sent whole, answered in time, the answer checked.
#include "vhost/frontend_internal.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

bool wire_has(const struct vhost_frontend *fe, enum vhost_protocol_feature feature)
{
    return fe->protocol >> feature & 1;
}

// Waits for the socket, until the deadline.
static int wait_socket(int fd, short events, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now = clock_now_ns();
        struct pollfd p = {.fd = fd, .events = events};
        int timeout_ms = now < deadline_ns ? (int)((deadline_ns - now) / NS_PER_MS) + 1 : 0;
        int ret = poll(&p, 1, timeout_ms);
        if (ret > 0)
            return 0;
        if (ret == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

static int send_request(struct vhost_frontend *fe, uint32_t request, uint32_t flags, const void *payload, size_t size_bytes,
                        const int *fds, unsigned n_fds, uint64_t deadline_ns)
{
    int ret;
    while ((ret = vhost_send(fe->fd, request, flags, payload, size_bytes, fds, n_fds)) == -EAGAIN) {
        ret = wait_socket(fe->fd, POLLOUT, deadline_ns);
        if (ret < 0)
            break;
    }
    return ret;
}

static int receive_reply(struct vhost_frontend *fe, struct vhost_receiver *rx, uint32_t request, uint64_t deadline_ns,
                         struct tv_error *err)
{
    int ret;
    while ((ret = vhost_receive(rx, fe->fd, err)) == 0) {
        ret = wait_socket(fe->fd, POLLIN, deadline_ns);
        if (ret < 0)
            return tv_error_set(err, ret, "no answer in %d ms", VHOST_TIMEOUT_MS);
    }
    if (ret < 0)
        return ret;
    const struct vhost_header *header = &rx->message.header;
    if (header->request != request || !(header->flags & VHOST_REPLY))
        return tv_error_set(err, -EPROTO, "answered by message %u", header->request);
    return 0;
}

static int connection_failed(struct vhost_frontend *fe, uint32_t request, int ret, struct tv_error *err)
{
    fe->failed = true;
    if (!err || err->code == 0)
        return tv_error_set(err, ret, "vhost back end: %s: %s", vhost_request_name(request), strerror(-ret));
    return tv_error_prefix(err, "vhost back end: %s", vhost_request_name(request));
}

// Sends and waits for the answer. On success the caller clears rx.
static int ask(struct vhost_frontend *fe, uint32_t request, uint32_t flags, const void *payload, size_t size_bytes, const int *fds,
               unsigned n_fds, struct vhost_receiver *rx, struct tv_error *err)
{
    struct tv_error why = {0};
    uint64_t deadline_ns = clock_now_ns() + VHOST_TIMEOUT_MS * NS_PER_MS;
    vhost_receiver_init(rx);
    if (fe->failed)
        return tv_error_set(err, -ENOTCONN, "vhost back end: it has gone");
    int ret = send_request(fe, request, flags, payload, size_bytes, fds, n_fds, deadline_ns);
    if (ret == 0)
        ret = receive_reply(fe, rx, request, deadline_ns, &why);
    if (ret == 0)
        return 0;
    vhost_message_clear(rx);
    ret = connection_failed(fe, request, ret, &why);
    if (err)
        *err = why;
    return ret;
}

// An answer of another size or with other descriptors than its request asks for.
static int wrong_answer(struct vhost_frontend *fe, uint32_t request, struct vhost_receiver *rx, struct tv_error *err)
{
    fe->failed = true;
    tv_error_set(err, -EPROTO, "vhost back end: %s: answered by %u bytes and %u descriptors", vhost_request_name(request),
                 rx->message.header.size_bytes, rx->message.n_fds);
    vhost_message_clear(rx);
    return -EPROTO;
}

static int ask_u64(struct vhost_frontend *fe, uint32_t request, uint32_t flags, const void *payload, size_t size_bytes,
                   const int *fds, unsigned n_fds, uint64_t *value, struct tv_error *err)
{
    struct vhost_receiver rx;
    int ret = ask(fe, request, flags, payload, size_bytes, fds, n_fds, &rx, err);
    if (ret < 0)
        return ret;
    if (rx.message.header.size_bytes != sizeof(uint64_t) || rx.message.n_fds != 0)
        return wrong_answer(fe, request, &rx, err);
    *value = rx.message.payload.u64;
    vhost_message_clear(&rx);
    return 0;
}

int wire_set(struct vhost_frontend *fe, uint32_t request, const void *payload, size_t size_bytes, const int *fds, unsigned n_fds,
             struct tv_error *err)
{
    if (wire_has(fe, VHOST_PROTOCOL_REPLY_ACK)) {
        uint64_t refused = 0;
        int ret = ask_u64(fe, request, VHOST_NEED_REPLY, payload, size_bytes, fds, n_fds, &refused, err);
        if (ret == 0 && refused)
            ret = tv_error_set(err, -EREMOTEIO, "vhost back end: it refused %s", vhost_request_name(request));
        return ret;
    }
    if (fe->failed)
        return tv_error_set(err, -ENOTCONN, "vhost back end: it has gone");
    int ret = send_request(fe, request, 0, payload, size_bytes, fds, n_fds, clock_now_ns() + VHOST_TIMEOUT_MS * NS_PER_MS);
    return ret == 0 ? 0 : connection_failed(fe, request, ret, err);
}

int wire_set_u64(struct vhost_frontend *fe, uint32_t request, uint64_t value, struct tv_error *err)
{
    return wire_set(fe, request, &value, sizeof(value), NULL, 0, err);
}

int wire_set_ring(struct vhost_frontend *fe, uint32_t request, unsigned index, uint32_t num, struct tv_error *err)
{
    struct vhost_ring_state state = {.index = index, .num = num};
    return wire_set(fe, request, &state, sizeof(state), NULL, 0, err);
}

int wire_set_ring_fd(struct vhost_frontend *fe, uint32_t request, unsigned index, int fd, struct tv_error *err)
{
    uint64_t value = index | (fd < 0 ? VHOST_VRING_NO_FD : 0u);
    return wire_set(fe, request, &value, sizeof(value), &fd, fd < 0 ? 0 : 1, err);
}

int wire_get_u64(struct vhost_frontend *fe, uint32_t request, uint64_t *value, struct tv_error *err)
{
    return ask_u64(fe, request, 0, NULL, 0, NULL, 0, value, err);
}

int wire_get_ring_base(struct vhost_frontend *fe, unsigned index, uint32_t *base, struct tv_error *err)
{
    struct vhost_ring_state state = {.index = index};
    struct vhost_receiver rx;
    int ret = ask(fe, VHOST_GET_VRING_BASE, 0, &state, sizeof(state), NULL, 0, &rx, err);
    if (ret < 0)
        return ret;
    const struct vhost_ring_state *answer = &rx.message.payload.state;
    if (rx.message.header.size_bytes != sizeof(state) || rx.message.n_fds != 0 || answer->index != index ||
        (answer->num > UINT16_MAX && !(fe->acked >> VIRTIO_F_RING_PACKED & 1)))
        return wrong_answer(fe, VHOST_GET_VRING_BASE, &rx, err);
    *base = answer->num;
    vhost_message_clear(&rx);
    return 0;
}

int wire_get_config(struct vhost_frontend *fe, uint8_t *space, struct tv_error *err)
{
    uint32_t len = fe->config.config_len_bytes;
    struct vhost_config config = {.size_bytes = len};
    struct vhost_receiver rx;
    int ret = ask(fe, VHOST_GET_CONFIG, 0, &config, VHOST_CONFIG_HEAD + len, NULL, 0, &rx, err);
    if (ret < 0)
        return ret;
    uint32_t size = rx.message.header.size_bytes;
    if (size == 0 || (size >= VHOST_CONFIG_HEAD && rx.message.payload.config.size_bytes == 0)) { // its way to say no
        vhost_message_clear(&rx);
        return tv_error_set(err, -EREMOTEIO, "vhost back end: it has no configuration space of %u bytes", len);
    }
    if (size != VHOST_CONFIG_HEAD + len || rx.message.n_fds != 0)
        return wrong_answer(fe, VHOST_GET_CONFIG, &rx, err);
    memcpy(space, rx.message.payload.config.bytes, len);
    vhost_message_clear(&rx);
    return 0;
}

int wire_get_inflight(struct vhost_frontend *fe, struct vhost_inflight *inflight, int *fd, struct tv_error *err)
{
    struct vhost_receiver rx;
    int ret = ask(fe, VHOST_GET_INFLIGHT_FD, 0, inflight, sizeof(*inflight), NULL, 0, &rx, err);
    if (ret < 0)
        return ret;
    uint32_t size = rx.message.header.size_bytes;
    bool right = (size == sizeof(*inflight) || size == VHOST_INFLIGHT_HEAD) && rx.message.n_fds == 1;
    if (!right || rx.message.payload.inflight.mmap_size == 0)
        return wrong_answer(fe, VHOST_GET_INFLIGHT_FD, &rx, err);
    inflight->mmap_size = rx.message.payload.inflight.mmap_size;
    inflight->mmap_offset = rx.message.payload.inflight.mmap_offset;
    *fd = vhost_message_take_fd(&rx.message, 0);
    vhost_message_clear(&rx);
    return 0;
}

// Some answer without a payload, and some with a number that is 0 ("Migration": "the back-end sends an empty message").
int wire_send_log(struct vhost_frontend *fe, struct tv_error *err)
{
    const struct guest_region *file = &fe->log.file.regions[0];
    const struct vhost_log log = {.mmap_size = file->size_bytes};
    struct vhost_receiver rx;
    int ret = ask(fe, VHOST_SET_LOG_BASE, 0, &log, sizeof(log), &file->fd, 1, &rx, err);
    if (ret < 0)
        return ret;
    const uint32_t size = rx.message.header.size_bytes;
    if ((size != 0 && size != sizeof(uint64_t)) || rx.message.n_fds != 0)
        return wrong_answer(fe, VHOST_SET_LOG_BASE, &rx, err);
    if (size && rx.message.payload.u64)
        ret = tv_error_set(err, -EREMOTEIO, "vhost back end: it refused %s", vhost_request_name(VHOST_SET_LOG_BASE));
    vhost_message_clear(&rx);
    return ret;
}

static struct vhost_region wire_region(const struct guest_region *region)
{
    return (struct vhost_region){.guest_addr = region->guest_addr,
                                 .size_bytes = region->size_bytes,
                                 .user_addr = region->user_addr,
                                 .mmap_offset = region->fd_offset};
}

// One table where it fits, else region by region.
int wire_send_memory(struct vhost_frontend *fe, uint64_t max_slots, struct tv_error *err)
{
    const struct guest_memory *mem = fe->config.mem;
    if (mem->n_regions > max_slots)
        return tv_error_set(err, -ENOTSUP, "vhost back end: it takes %llu memory regions, the machine has %u",
                            (unsigned long long)max_slots, mem->n_regions);
    if (mem->n_regions > VHOST_TABLE_REGIONS_MAX) {
        for (unsigned i = 0; i < mem->n_regions; i++) {
            struct vhost_one_region one = {.region = wire_region(&mem->regions[i])};
            int ret = wire_set(fe, VHOST_ADD_MEM_REG, &one, sizeof(one), &mem->regions[i].fd, 1, err);
            if (ret < 0)
                return ret;
        }
        return 0;
    }
    struct vhost_mem_table table = {.n_regions = mem->n_regions};
    int fds[VHOST_TABLE_REGIONS_MAX];
    for (unsigned i = 0; i < mem->n_regions; i++) {
        table.regions[i] = wire_region(&mem->regions[i]);
        fds[i] = mem->regions[i].fd;
    }
    size_t size = offsetof(struct vhost_mem_table, regions) + mem->n_regions * sizeof(struct vhost_region);
    return wire_set(fe, VHOST_SET_MEM_TABLE, &table, size, fds, mem->n_regions, err);
}
