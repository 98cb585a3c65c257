// Carries out the front end's messages. Each has passed vhost_check_request(); what depends on the device's state is checked here,
// before anything is changed.
#include "vhost/backend_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define INFLIGHT_BYTES_MAX (1ull << 30)
#define MEMORY_BYTES_MAX (2ull << 40) // of one front end: the address space is shared with all the others

static int reply(struct vhost_backend *be, const struct vhost_message *message, const void *payload, size_t size_bytes)
{
    return vhost_send(be->fd, message->header.request, VHOST_REPLY, payload, size_bytes, NULL, 0);
}

static int reply_u64(struct vhost_backend *be, const struct vhost_message *message, uint64_t value)
{
    return reply(be, message, &value, sizeof(value));
}

static void update_rings(struct vhost_backend *be)
{
    for (unsigned i = 0; i < be->ops.n_queues; i++) {
        struct tv_error err = {0};
        if (ring_update(&be->rings[i], &err) < 0)
            log_event(LOG_WARN, "vhost", "queue cannot start", LOG_STR("reason", err.text));
    }
}

static void stop_rings(struct vhost_backend *be)
{
    for (unsigned i = 0; i < be->ops.n_queues; i++)
        ring_stop(&be->rings[i]);
}

static int set_features(struct vhost_backend *be, uint64_t features, struct tv_error *err)
{
    uint64_t wrong = features & ~backend_features(be);
    if (wrong)
        return tv_error_set(err, -EPROTO, "SET_FEATURES: 0x%llx were not offered", (unsigned long long)wrong);
    if (be->has_features && features == be->features)
        return 0;
    const bool is_there = dirty_log_is_there(&be->log), log_all = features >> VHOST_F_LOG_ALL & 1;
    if (is_there && log_all && backend_check_log(&be->log, &be->mem, err))
        return -EPROTO;
    const bool runs_on = be->has_features && is_there && (features ^ be->features) == 1ull << VHOST_F_LOG_ALL;
    if (!runs_on)
        stop_rings(be);
    be->has_features = true;
    be->features = features;
    backend_update_log(be);
    update_rings(be);
    return 0;
}

static int set_protocol_features(struct vhost_backend *be, uint64_t features, struct tv_error *err)
{
    uint64_t wrong = features & ~VHOST_PROTOCOL_FEATURES;
    if (wrong)
        return tv_error_set(err, -EPROTO, "SET_PROTOCOL_FEATURES: 0x%llx were not offered", (unsigned long long)wrong);
    be->protocol = features;
    return 0;
}

static int add_region(struct guest_memory *mem, const struct vhost_region *region, int fd, struct tv_error *err)
{
    uint64_t rest = MEMORY_BYTES_MAX;
    for (unsigned i = 0; i < mem->n_regions; i++)
        rest -= mem->regions[i].size_bytes;
    if (region->user_addr == 0 || region->size_bytes > rest) {
        close(fd);
        return tv_error_set(err, -EPROTO, "memory region at 0x%llx: without a user address, or over %llu bytes in all",
                            (unsigned long long)region->guest_addr, MEMORY_BYTES_MAX);
    }
    return guest_memory_add(mem, region->guest_addr, region->size_bytes, fd, region->mmap_offset, region->user_addr, err);
}

static int set_mem_table(struct vhost_backend *be, struct vhost_message *message, struct tv_error *err)
{
    const struct vhost_mem_table *table = &message->payload.memory;
    struct guest_memory mem;
    guest_memory_init(&mem);
    for (unsigned i = 0; i < table->n_regions; i++) {
        int ret = add_region(&mem, &table->regions[i], vhost_message_take_fd(message, i), err);
        if (ret < 0) {
            guest_memory_fini(&mem);
            return ret;
        }
    }
    if (be->logs && backend_check_log(&be->log, &mem, err)) {
        guest_memory_fini(&mem);
        return -EPROTO;
    }
    stop_rings(be);
    guest_memory_fini(&be->mem);
    be->mem = mem;
    update_rings(be);
    return 0;
}

// Rings that run stay as they are: nothing that they use goes away.
static int add_mem_region(struct vhost_backend *be, struct vhost_message *message, struct tv_error *err)
{
    const struct vhost_region *region = &message->payload.region.region;
    if (be->logs && !dirty_log_covers(&be->log, region->guest_addr, region->size_bytes))
        return tv_error_set(err, -EPROTO, "ADD_MEM_REG: the dirty log is too small for it");
    int ret = add_region(&be->mem, region, vhost_message_take_fd(message, 0), err);
    if (ret == 0)
        update_rings(be);
    return ret;
}

static int remove_mem_region(struct vhost_backend *be, const struct vhost_region *region, struct tv_error *err)
{
    bool found = false;
    for (unsigned i = 0; i < be->mem.n_regions; i++) {
        const struct guest_region *r = &be->mem.regions[i];
        found |= r->guest_addr == region->guest_addr && r->size_bytes == region->size_bytes && r->user_addr == region->user_addr;
    }
    if (!found)
        return tv_error_set(err, -ENOENT, "REM_MEM_REG: there is no region at 0x%llx", (unsigned long long)region->guest_addr);
    stop_rings(be);
    guest_memory_remove(&be->mem, region->guest_addr, region->size_bytes);
    update_rings(be);
    return 0;
}

static int set_ring_num(struct backend_ring *ring, uint32_t num, struct tv_error *err)
{
    if (ring->started)
        return tv_error_set(err, -EPROTO, "SET_VRING_NUM: the queue is started");
    if (num == 0 || num > VIRTQ_SIZE_MAX || (num & (num - 1)) != 0)
        return tv_error_set(err, -EPROTO, "SET_VRING_NUM: %u is no power of 2 up to %d", num, VIRTQ_SIZE_MAX);
    ring->size = (uint16_t)num;
    return ring_update(ring, err);
}

static int set_ring_base(struct backend_ring *ring, uint32_t num, struct tv_error *err)
{
    if (ring->started)
        return tv_error_set(err, -EPROTO, "SET_VRING_BASE: the queue is started");
    if (num > UINT16_MAX && !backend_is_packed(ring->be))
        return tv_error_set(err, -EPROTO, "SET_VRING_BASE: %u is no index", num);
    ring->base = num;
    return 0;
}

// The addresses are those that it has: of a running ring, to switch its logging.
static int set_ring_logging(struct backend_ring *ring, const struct vhost_ring_addr *addr, struct tv_error *err)
{
    ring->addr = *addr;
    backend_update_log(ring->be);
    if (ring_lacks_log(ring))
        ring_stop(ring);
    return ring_update(ring, err);
}

static int set_ring_addr(struct backend_ring *ring, const struct vhost_ring_addr *addr, struct tv_error *err)
{
    const struct vhost_ring_addr *old = &ring->addr;
    bool same = ring->has_addr && addr->desc == old->desc && addr->avail == old->avail && addr->used == old->used;
    int ret = ring_check_log(ring, &ring->be->log, addr, err);
    if (ret < 0)
        return ret;
    if (same)
        return set_ring_logging(ring, addr, err);
    if (addr->desc % 16 || addr->avail % 2 || addr->used % 4)
        return tv_error_set(err, -EPROTO, "SET_VRING_ADDR: an address is not aligned (to 16, 2, 4)");
    const struct guest_memory *mem = &ring->be->mem;
    if (!guest_memory_view_user(mem, addr->desc, 1, NULL) || !guest_memory_view_user(mem, addr->avail, 1, NULL) ||
        !guest_memory_view_user(mem, addr->used, 1, NULL))
        return tv_error_set(err, -EPROTO, "SET_VRING_ADDR: an address lies outside of the memory regions");
    ring_stop(ring);
    ring->addr = *addr;
    ring->has_addr = true;
    backend_update_log(ring->be);
    return ring_update(ring, err);
}

static int set_ring_enable(struct backend_ring *ring, uint32_t num, struct tv_error *err)
{
    if (num > 1)
        return tv_error_set(err, -EPROTO, "SET_VRING_ENABLE: neither 0 nor 1 but %u", num);
    ring->enabled = num;
    if (num)
        return ring_update(ring, err);
    if (ring->be->features >> VHOST_F_PROTOCOL_FEATURES & 1)
        ring_stop(ring);
    return 0;
}

static int get_ring_base(struct vhost_backend *be, struct backend_ring *ring, const struct vhost_message *message)
{
    ring_stop(ring);
    ring->has_kick = false; // it starts again with the next SET_VRING_KICK
    struct vhost_ring_state state = {.index = message->payload.state.index, .num = ring->base};
    return reply(be, message, &state, sizeof(state));
}

static int get_config(struct vhost_backend *be, const struct vhost_message *message)
{
    // Fields that we do not have read as zeroes: the front end may know a longer structure.
    uint8_t bytes[VHOST_CONFIG_MAX] = {0};
    struct vhost_config config = message->payload.config;
    be->ops.config_read(be->arg, bytes);
    memcpy(config.bytes, bytes + config.offset, config.size_bytes);
    return reply(be, message, &config, VHOST_CONFIG_HEAD + config.size_bytes);
}

// A guest can cause this by writing where it may not: never a reason to end the connection.
static int set_config(struct vhost_backend *be, const struct vhost_config *config, struct tv_error *err)
{
    if (!be->ops.config_write || config->offset + config->size_bytes > be->ops.config_len_bytes)
        return tv_error_set(err, -EROFS, "SET_CONFIG: there is nothing to be written");
    int ret = be->ops.config_write(be->arg, config->offset, config->bytes, config->size_bytes);
    return ret < 0 ? tv_error_set(err, ret, "SET_CONFIG: refused") : 0;
}

static int check_inflight(const struct vhost_backend *be, const struct vhost_inflight *inflight, struct tv_error *err)
{
    if (inflight->n_queues == 0 || inflight->n_queues > be->ops.n_queues || inflight->queue_size == 0 ||
        inflight->queue_size > VIRTQ_SIZE_MAX)
        return tv_error_set(err, -EPROTO, "inflight buffer: %u queues of %u", inflight->n_queues, inflight->queue_size);
    return 0;
}

static int get_inflight(struct vhost_backend *be, const struct vhost_message *message, struct tv_error *err)
{
    struct vhost_inflight inflight = message->payload.inflight;
    int ret = check_inflight(be, &inflight, err);
    if (ret < 0)
        return ret;
    inflight.mmap_size = inflight.n_queues * inflight_region_bytes(inflight.queue_size, backend_is_packed(be));
    inflight.mmap_offset = 0;
    inflight.padding = 0;
    int fd = guest_ram_create("vhost-inflight", inflight.mmap_size, err);
    if (fd < 0)
        return fd;
    ret = vhost_send(be->fd, message->header.request, VHOST_REPLY, &inflight, message->header.size_bytes, &fd, 1);
    close(fd);
    return ret;
}

static int set_inflight(struct vhost_backend *be, struct vhost_message *message, struct tv_error *err)
{
    const struct vhost_inflight *inflight = &message->payload.inflight;
    int ret = check_inflight(be, inflight, err);
    if (ret < 0)
        return ret;
    for (unsigned i = 0; i < be->ops.n_queues; i++) {
        if (be->rings[i].started)
            return tv_error_set(err, -EPROTO, "SET_INFLIGHT_FD: queue %u is started", i);
    }
    if (inflight->mmap_size < inflight->n_queues * inflight_region_bytes(inflight->queue_size, backend_is_packed(be)) ||
        inflight->mmap_size > INFLIGHT_BYTES_MAX || inflight->mmap_offset % 8 != 0)
        return tv_error_set(err, -EPROTO, "SET_INFLIGHT_FD: %llu bytes from %llu on", (unsigned long long)inflight->mmap_size,
                            (unsigned long long)inflight->mmap_offset);
    struct guest_memory mem;
    guest_memory_init(&mem);
    ret = guest_memory_add(&mem, 0, inflight->mmap_size, vhost_message_take_fd(message, 0), inflight->mmap_offset, 0, err);
    if (ret < 0)
        return ret;
    guest_memory_fini(&be->inflight);
    be->inflight = mem;
    be->inflight_num = inflight->n_queues;
    be->inflight_size = inflight->queue_size;
    return 0;
}

static int set_log_base(struct vhost_backend *be, struct vhost_message *message, struct tv_error *err)
{
    int ret = backend_set_log_base(be, message, err);
    if (ret < 0)
        return ret;
    ret = reply_u64(be, message, 0);
    update_rings(be);
    return ret;
}

static int set_request_fd(struct vhost_backend *be, struct vhost_message *message, struct tv_error *err)
{
    struct stat st;
    if (fstat(message->fds[0], &st) < 0 || !S_ISSOCK(st.st_mode))
        return tv_error_set(err, -EPROTO, "SET_BACKEND_REQ_FD: the descriptor is no socket");
    if (be->request_fd >= 0)
        close(be->request_fd);
    be->request_fd = vhost_message_take_fd(message, 0);
    return 0;
}

// Memory and protocol features stay; what the driver had set up goes.
static void reset_device(struct vhost_backend *be)
{
    for (unsigned i = 0; i < be->ops.n_queues; i++)
        ring_forget(&be->rings[i]);
    guest_memory_fini(&be->inflight);
    be->inflight_num = be->inflight_size = 0;
    be->features = 0;
    be->has_features = false;
    be->status = 0;
    backend_forget_log(be);
}

// A status of 0 is a reset (virtio 1.2, section 2.1). Front ends send it when they stop the device as well, and then start it again
// with all that belongs to it, except for the call descriptors: those stay.
static int set_status(struct vhost_backend *be, uint64_t status, struct tv_error *err)
{
    if (status > UINT8_MAX)
        return tv_error_set(err, -EPROTO, "SET_STATUS: 0x%llx is no status", (unsigned long long)status);
    be->status = (uint8_t)status;
    if (status == 0) {
        for (unsigned i = 0; i < be->ops.n_queues; i++) {
            ring_stop(&be->rings[i]);
            be->rings[i].has_kick = be->rings[i].enabled = false;
        }
    }
    return 0;
}

static int apply_ring(struct vhost_backend *be, struct vhost_message *message, uint32_t index, struct tv_error *err)
{
    if (index >= be->ops.n_queues)
        return tv_error_set(err, -EPROTO, "%s: queue %u of %u", vhost_request_name(message->header.request), index,
                            be->ops.n_queues);
    struct backend_ring *ring = &be->rings[index];
    const union vhost_payload *payload = &message->payload;
    switch (message->header.request) {
    case VHOST_SET_VRING_NUM:
        return set_ring_num(ring, payload->state.num, err);
    case VHOST_SET_VRING_BASE:
        return set_ring_base(ring, payload->state.num, err);
    case VHOST_GET_VRING_BASE:
        return get_ring_base(be, ring, message);
    case VHOST_SET_VRING_ADDR:
        return set_ring_addr(ring, &payload->addr, err);
    case VHOST_SET_VRING_ENABLE:
        return set_ring_enable(ring, payload->state.num, err);
    case VHOST_SET_VRING_KICK:
        return ring_set_kick(ring, vhost_message_take_fd(message, 0), err);
    case VHOST_SET_VRING_CALL:
        return ring_set_call(ring, vhost_message_take_fd(message, 0), err);
    default:
        return ring_set_err(ring, vhost_message_take_fd(message, 0), err);
    }
}

int backend_apply(struct vhost_backend *be, struct vhost_message *message, struct tv_error *err)
{
    const union vhost_payload *payload = &message->payload;
    switch ((enum vhost_request)message->header.request) {
    case VHOST_GET_FEATURES:
        return reply_u64(be, message, backend_features(be));
    case VHOST_SET_FEATURES:
        return set_features(be, payload->u64, err);
    case VHOST_GET_PROTOCOL_FEATURES:
        return reply_u64(be, message, VHOST_PROTOCOL_FEATURES);
    case VHOST_SET_PROTOCOL_FEATURES:
        return set_protocol_features(be, payload->u64, err);
    case VHOST_SET_OWNER:
    case VHOST_RESET_OWNER: // deprecated: "It is recommended that back-ends either ignore this message ..."
        return 0;
    case VHOST_SET_MEM_TABLE:
        return set_mem_table(be, message, err);
    case VHOST_SET_LOG_BASE:
        return set_log_base(be, message, err);
    case VHOST_SET_LOG_FD:
        return backend_set_log_fd(be, vhost_message_take_fd(message, 0), err);
    case VHOST_ADD_MEM_REG:
        return add_mem_region(be, message, err);
    case VHOST_REM_MEM_REG:
        return remove_mem_region(be, &payload->region.region, err);
    case VHOST_GET_MAX_MEM_SLOTS:
        return reply_u64(be, message, GUEST_REGIONS_MAX);
    case VHOST_GET_QUEUE_NUM:
        return reply_u64(be, message, be->ops.n_queues);
    case VHOST_GET_CONFIG:
        return get_config(be, message);
    case VHOST_SET_CONFIG:
        return set_config(be, &payload->config, err);
    case VHOST_GET_INFLIGHT_FD:
        return get_inflight(be, message, err);
    case VHOST_SET_INFLIGHT_FD:
        return set_inflight(be, message, err);
    case VHOST_SET_BACKEND_REQ_FD:
        return set_request_fd(be, message, err);
    case VHOST_RESET_DEVICE:
        reset_device(be);
        return 0;
    case VHOST_SET_STATUS:
        return set_status(be, payload->u64, err);
    case VHOST_GET_STATUS:
        return reply_u64(be, message, be->status);
    case VHOST_SET_VRING_KICK:
    case VHOST_SET_VRING_CALL:
    case VHOST_SET_VRING_ERR:
        return apply_ring(be, message, payload->u64 & VHOST_VRING_INDEX_MASK, err);
    case VHOST_SET_VRING_NUM:
    case VHOST_SET_VRING_BASE:
    case VHOST_GET_VRING_BASE:
    case VHOST_SET_VRING_ENABLE:
        return apply_ring(be, message, payload->state.index, err);
    case VHOST_SET_VRING_ADDR:
        return apply_ring(be, message, payload->addr.index, err);
    case VHOST_SEND_RARP: // of networks, and never negotiated here
    case VHOST_NET_SET_MTU:
    case VHOST_REQUESTS_END:
        break;
    }
    return tv_error_set(err, -EPROTO, "request %u is not known", message->header.request);
}
