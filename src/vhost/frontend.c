// The front end: what the driver has set up is remembered here, told to the back end while there is one, and told again to the
// next.
#include "vhost/frontend_internal.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "vhost/virtqueue.h"

// Features that concern the driver and the device alone, and of the ring what both our ends can do (virtio 1.2, section 6).
#define RING_FEATURES                                                                                                              \
    (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC |                          \
     1ull << VIRTIO_F_RING_PACKED)
#define DEVICE_FEATURES (0xffffffull | ~0ull << 50)
#define KNOWN_FEATURES (RING_FEATURES | DEVICE_FEATURES)

struct vhost_frontend *vhost_frontend_create(const struct vhost_frontend_config *config, struct tv_error *err)
{
    if (config->n_queues == 0 || config->n_queues > VHOST_QUEUES_MAX || config->config_len_bytes > VHOST_CONFIG_MAX) {
        tv_error_set(err, -EINVAL, "vhost front end: %u queues, %u bytes of configuration", config->n_queues,
                     config->config_len_bytes);
        return NULL;
    }
    struct vhost_frontend *fe = calloc(1, sizeof(*fe));
    if (!fe) {
        tv_error_set(err, -ENOMEM, "vhost front end: no memory");
        return NULL;
    }
    fe->config = *config;
    fe->fd = fe->request_fd = fe->err_fd = fe->inflight_fd = -1;
    fe->max_queues = config->n_queues;
    dirty_log_init(&fe->log);
    vhost_receiver_init(&fe->request_rx);
    for (unsigned i = 0; i < VHOST_QUEUES_MAX; i++)
        fe->queues[i].q.kick_fd = fe->queues[i].q.call_fd = -1;
    if (events_open(fe, err) < 0) {
        vhost_frontend_destroy(fe);
        return NULL;
    }
    return fe;
}

static void forget_inflight(struct vhost_frontend *fe)
{
    if (fe->inflight_fd >= 0)
        close(fe->inflight_fd);
    fe->inflight_fd = -1;
}

void vhost_frontend_destroy(struct vhost_frontend *fe)
{
    if (!fe)
        return;
    if (fe->away_timer)
        frontend_drop(fe);
    forget_inflight(fe);
    dirty_log_fini(&fe->log);
    events_close(fe);
    free(fe);
}

bool vhost_frontend_is_attached(const struct vhost_frontend *fe)
{
    return fe->fd >= 0;
}

uint64_t vhost_frontend_features(const struct vhost_frontend *fe)
{
    const bool tracks = fe->protocol >> VHOST_PROTOCOL_INFLIGHT_SHMFD & 1;
    return fe->offered & KNOWN_FEATURES & ~(tracks ? 0 : 1ull << VIRTIO_F_RING_PACKED);
}

unsigned vhost_frontend_max_queues(const struct vhost_frontend *fe)
{
    return fe->max_queues;
}

int frontend_settle(struct vhost_frontend *fe, int ret)
{
    if (!fe->failed)
        return ret;
    frontend_lost(fe);
    return 0;
}

int frontend_send_features(struct vhost_frontend *fe, struct tv_error *err)
{
    const uint64_t ours = 1ull << VHOST_F_PROTOCOL_FEATURES | (dirty_log_is_there(&fe->log) ? 1ull << VHOST_F_LOG_ALL : 0);
    return wire_set_u64(fe, VHOST_SET_FEATURES, fe->acked | (fe->offered & ours), err);
}

static int send_status(struct vhost_frontend *fe, struct tv_error *err)
{
    return wire_has(fe, VHOST_PROTOCOL_STATUS) ? wire_set_u64(fe, VHOST_SET_STATUS, fe->status, err) : 0;
}

// The buffer for requests in flight has room for every queue at its largest, since queues start one by one. A back end that comes
// later gets the one that its predecessor filled.
static int send_inflight(struct vhost_frontend *fe, struct tv_error *err)
{
    if (!wire_has(fe, VHOST_PROTOCOL_INFLIGHT_SHMFD))
        return 0;
    if (fe->inflight_fd < 0) {
        fe->inflight = (struct vhost_inflight){.n_queues = (uint16_t)fe->max_queues, .queue_size = VIRTQ_SIZE_MAX};
        int ret = wire_get_inflight(fe, &fe->inflight, &fe->inflight_fd, err);
        if (ret < 0)
            return ret;
    }
    return wire_set(fe, VHOST_SET_INFLIGHT_FD, &fe->inflight, sizeof(fe->inflight), &fe->inflight_fd, 1, err);
}

static uint64_t user_address(const struct vhost_frontend *fe, uint64_t guest_addr)
{
    const struct guest_memory *mem = fe->config.mem;
    for (unsigned i = 0; i < mem->n_regions; i++) {
        uint64_t offset = guest_addr - mem->regions[i].guest_addr;
        if (offset < mem->regions[i].size_bytes)
            return mem->regions[i].user_addr + offset;
    }
    return 0; // not for a queue that passed check_queue()
}

static int send_enable(struct vhost_frontend *fe, unsigned index, struct tv_error *err)
{
    if (!(fe->offered >> VHOST_F_PROTOCOL_FEATURES & 1))
        return 0; // "rings initialize in the enabled state"
    return wire_set_ring(fe, VHOST_SET_VRING_ENABLE, index, !fe->queues[index].q.disabled, err);
}

int frontend_send_ring_addr(struct vhost_frontend *fe, unsigned index, struct tv_error *err)
{
    const struct vhost_frontend_queue *q = &fe->queues[index].q;
    const struct vhost_ring_addr addr = {.index = index,
                                         .flags = dirty_log_is_there(&fe->log) ? VHOST_VRING_F_LOG : 0,
                                         .desc = user_address(fe, q->desc_addr),
                                         .avail = user_address(fe, q->avail_addr),
                                         .used = user_address(fe, q->used_addr),
                                         .log = q->used_addr};
    return wire_set(fe, VHOST_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0, err);
}

static int send_queue(struct vhost_frontend *fe, unsigned index, struct tv_error *err)
{
    const struct frontend_queue *queue = &fe->queues[index];
    const struct vhost_frontend_queue *q = &queue->q;
    int ret = wire_set_ring(fe, VHOST_SET_VRING_NUM, index, q->size, err);
    if (ret == 0)
        ret = wire_set_ring(fe, VHOST_SET_VRING_BASE, index, queue->base, err);
    if (ret == 0)
        ret = frontend_send_ring_addr(fe, index, err);
    if (ret == 0)
        ret = wire_set_ring_fd(fe, VHOST_SET_VRING_CALL, index, q->call_fd, err);
    if (ret == 0)
        ret = wire_set_ring_fd(fe, VHOST_SET_VRING_ERR, index, fe->err_fd, err);
    if (ret == 0)
        ret = wire_set_ring_fd(fe, VHOST_SET_VRING_KICK, index, q->kick_fd, err);
    if (ret == 0)
        ret = send_enable(fe, index, err);
    if (ret < 0)
        return ret;
    // What the driver offered meanwhile was kicked into nowhere, and rings start at a kick.
    const uint64_t one = 1;
    if (q->kick_fd >= 0 && write(q->kick_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        return tv_error_set(err, -errno, "vhost front end: queue %u: cannot kick: %s", index, strerror(errno));
    return 0;
}

// A network's back end counts pairs, as all that are about do, and one without MQ has one.
static int get_queue_num(struct vhost_frontend *fe, uint64_t *queues, struct tv_error *err)
{
    int ret = wire_get_u64(fe, VHOST_GET_QUEUE_NUM, queues, err);
    if (ret == 0 && fe->config.is_net)
        *queues = *queues < VHOST_QUEUES_MAX ? *queues * 2 : VHOST_QUEUES_MAX;
    return ret;
}

static int negotiate_protocol(struct vhost_frontend *fe, uint64_t *max_slots, struct tv_error *err)
{
    uint64_t protocol = 0, queues = fe->config.is_net ? 2 : fe->config.n_queues;
    *max_slots = VHOST_TABLE_REGIONS_MAX;
    fe->max_queues = fe->config.n_queues;
    if (!(fe->offered >> VHOST_F_PROTOCOL_FEATURES & 1))
        return 0;
    int ret = wire_get_u64(fe, VHOST_GET_PROTOCOL_FEATURES, &protocol, err);
    if (ret < 0)
        return ret;
    protocol &= fe->config.is_net ? VHOST_NET_PROTOCOL_FEATURES : VHOST_PROTOCOL_FEATURES;
    ret = wire_set_u64(fe, VHOST_SET_PROTOCOL_FEATURES, protocol, err);
    if (ret < 0)
        return ret;
    fe->protocol = protocol;
    if (wire_has(fe, VHOST_PROTOCOL_MQ))
        ret = get_queue_num(fe, &queues, err);
    if (ret == 0 && fe->config.mtu_bytes && wire_has(fe, VHOST_PROTOCOL_NET_MTU))
        ret = wire_set_u64(fe, VHOST_NET_SET_MTU, fe->config.mtu_bytes, err);
    if (ret == 0 && wire_has(fe, VHOST_PROTOCOL_CONFIGURE_MEM_SLOTS))
        ret = wire_get_u64(fe, VHOST_GET_MAX_MEM_SLOTS, max_slots, err);
    if (ret == 0 && queues == 0)
        ret = tv_error_set(err, -EPROTO, "vhost back end: it has no queues");
    if (ret == 0)
        fe->max_queues = queues < fe->config.n_queues ? (unsigned)queues : fe->config.n_queues;
    return ret;
}

// Against what the driver has been promised already.
static int check_promises(const struct vhost_frontend *fe, struct tv_error *err)
{
    uint64_t missing = fe->has_acked ? fe->acked & ~(fe->offered & KNOWN_FEATURES) : 0;
    if (!(fe->offered >> VIRTIO_F_VERSION_1 & 1))
        return tv_error_set(err, -ENOTSUP, "vhost back end: it does not offer VIRTIO_F_VERSION_1");
    if (missing)
        return tv_error_set(err, -ENOTSUP, "vhost back end: it lacks features 0x%llx, which the driver uses",
                            (unsigned long long)missing);
    return 0;
}

static int check_queues(const struct vhost_frontend *fe, struct tv_error *err)
{
    for (unsigned i = fe->max_queues; i < fe->config.n_queues; i++) {
        if (fe->queues[i].started || fe->queues[i].paused)
            return tv_error_set(err, -ENOTSUP, "vhost back end: it has %u queues, the driver uses number %u", fe->max_queues, i);
    }
    return 0;
}

static int handshake(struct vhost_frontend *fe, struct tv_error *err)
{
    uint64_t max_slots = 0;
    int ret = wire_set(fe, VHOST_SET_OWNER, NULL, 0, NULL, 0, err);
    if (ret == 0)
        ret = wire_get_u64(fe, VHOST_GET_FEATURES, &fe->offered, err);
    if (ret == 0)
        ret = check_promises(fe, err);
    if (ret == 0)
        ret = negotiate_protocol(fe, &max_slots, err);
    if (ret == 0)
        ret = check_queues(fe, err);
    if (ret == 0 && dirty_log_is_there(&fe->log))
        ret = log_check(fe, err);
    if (ret == 0 && wire_has(fe, VHOST_PROTOCOL_BACKEND_REQ))
        ret = events_request_channel(fe, err);
    if (ret == 0 && fe->has_acked)
        ret = frontend_send_features(fe, err);
    if (ret == 0)
        ret = wire_send_memory(fe, max_slots, err);
    if (ret == 0 && dirty_log_is_there(&fe->log))
        ret = wire_send_log(fe, err);
    return ret;
}

bool frontend_is_packed(const struct vhost_frontend *fe)
{
    return fe->acked >> VIRTIO_F_RING_PACKED & 1;
}

// Where the queue stands as far as the ring itself tells: what was given back. With INFLIGHT_SHMFD the back end knows better. A
// packed ring does not tell, and is not offered without that: it is then where it stood when it was last stopped, which counts only
// for a buffer of requests in flight that is new.
static uint32_t base_of(const struct vhost_frontend *fe, const struct frontend_queue *queue)
{
    if (frontend_is_packed(fe))
        return queue->has_base ? queue->base : VIRTQ_BASE_PACKED_NEW;
    const struct vring_used *used = guest_memory_view(fe->config.mem, queue->q.used_addr, sizeof(*used));
    return used ? le16toh(__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE)) : 0;
}

static int send_config(struct vhost_frontend *fe, uint32_t offset, const uint8_t *bytes, uint32_t len_bytes)
{
    struct vhost_config config = {.offset = offset, .size_bytes = len_bytes};
    memcpy(config.bytes, bytes, len_bytes);
    return wire_set(fe, VHOST_SET_CONFIG, &config, VHOST_CONFIG_HEAD + len_bytes, NULL, 0, NULL);
}

// Before the queues start, since a cache mode, say, holds for all requests. What a back end no longer takes, it refuses: that is no
// failure here.
static int replay_config(struct vhost_frontend *fe, struct tv_error *err)
{
    for (uint32_t at = 0, end; at < fe->config.config_len_bytes && wire_has(fe, VHOST_PROTOCOL_CONFIG); at = end + 1) {
        for (end = at; end < fe->config.config_len_bytes && fe->is_written[end];)
            end++;
        if (end > at)
            send_config(fe, at, fe->written + at, end - at);
        if (fe->failed)
            return tv_error_set(err, -ECONNRESET, "vhost back end: gone while it was told the configuration");
    }
    return 0;
}

static int replay(struct vhost_frontend *fe, struct tv_error *err)
{
    bool first = true;
    int failed = replay_config(fe, err);
    if (failed)
        return failed;
    for (unsigned i = 0; i < fe->max_queues; i++) {
        struct frontend_queue *queue = &fe->queues[i];
        if (!queue->started)
            continue;
        int ret = first ? send_inflight(fe, err) : 0;
        first = false;
        queue->base = base_of(fe, queue);
        if (ret == 0)
            ret = send_queue(fe, i, err);
        if (ret < 0)
            return ret;
    }
    return fe->status ? send_status(fe, err) : 0;
}

// 1: it differs from what was known.
static int refresh_config(struct vhost_frontend *fe, struct tv_error *err)
{
    uint8_t space[VHOST_CONFIG_MAX] = {0};
    if (!wire_has(fe, VHOST_PROTOCOL_CONFIG) || fe->config.config_len_bytes == 0)
        return 0;
    int ret = wire_get_config(fe, space, err);
    if (ret < 0)
        return ret;
    bool differs = fe->has_config && memcmp(fe->space, space, sizeof(space)) != 0;
    memcpy(fe->space, space, sizeof(space));
    fe->has_config = true;
    return differs;
}

int vhost_frontend_attach(struct vhost_frontend *fe, int fd, struct tv_error *err)
{
    struct tv_error why = {0};
    uint64_t offered = fe->offered;
    unsigned max_queues = fe->max_queues;
    frontend_drop(fe);
    fe->fd = fd;
    int ret = handshake(fe, &why);
    int config = ret == 0 ? refresh_config(fe, &why) : ret;
    ret = config < 0 ? config : replay(fe, &why);
    if (ret == 0)
        ret = events_watch(fe, &why);
    if (ret < 0) {
        frontend_drop(fe);
        fe->offered = offered;
        fe->max_queues = max_queues;
        if (err)
            *err = why;
        return ret;
    }
    log_event(LOG_INFO, "vhost", "back end attached", LOG_HEX("features", fe->offered), LOG_HEX("protocol", fe->protocol));
    if (config > 0 && fe->config.config_changed)
        fe->config.config_changed(fe->config.arg);
    return 0;
}

int vhost_frontend_config_read(struct vhost_frontend *fe, uint32_t offset, void *buf, uint32_t len_bytes)
{
    if (offset > fe->config.config_len_bytes || len_bytes > fe->config.config_len_bytes - offset)
        return -EINVAL;
    if (fe->fd >= 0)
        frontend_settle(fe, refresh_config(fe, NULL));
    if (!fe->has_config)
        return fe->fd >= 0 ? -ENOTSUP : -ENOTCONN;
    memcpy(buf, fe->space + offset, len_bytes);
    return 0;
}

int vhost_frontend_config_write(struct vhost_frontend *fe, uint32_t offset, const void *buf, uint32_t len_bytes)
{
    int ret = 0;
    if (offset > fe->config.config_len_bytes || len_bytes > fe->config.config_len_bytes - offset)
        return -EINVAL;
    if (fe->fd >= 0) {
        if (!wire_has(fe, VHOST_PROTOCOL_CONFIG))
            return -ENOTSUP;
        ret = frontend_settle(fe, send_config(fe, offset, buf, len_bytes));
    }
    if (ret == 0) {
        memcpy(fe->written + offset, buf, len_bytes);
        memset(fe->is_written + offset, true, len_bytes);
    }
    return ret;
}

int vhost_frontend_set_features(struct vhost_frontend *fe, uint64_t acked, struct tv_error *err)
{
    if (acked & ~vhost_frontend_features(fe))
        return tv_error_set(err, -EINVAL, "vhost front end: features 0x%llx were not offered",
                            (unsigned long long)(acked & ~vhost_frontend_features(fe)));
    fe->acked = acked;
    fe->has_acked = true;
    return fe->fd >= 0 ? frontend_settle(fe, frontend_send_features(fe, err)) : 0;
}

// What the driver says of its rings is checked here, so that it cannot make the back end refuse us.
static int check_queue(const struct vhost_frontend *fe, const struct vhost_frontend_queue *queue, struct tv_error *err)
{
    struct virtqueue vq;
    virtqueue_init(&vq, fe->config.mem);
    vq.size = queue->size;
    vq.packed = frontend_is_packed(fe);
    vq.desc_addr = queue->desc_addr;
    vq.avail_addr = queue->avail_addr;
    vq.used_addr = queue->used_addr;
    return virtqueue_map_rings(&vq, err);
}

int vhost_frontend_start_queue(struct vhost_frontend *fe, unsigned index, const struct vhost_frontend_queue *queue,
                               struct tv_error *err)
{
    if (index >= fe->max_queues)
        return tv_error_set(err, -EINVAL, "vhost front end: queue %u of %u", index, fe->max_queues);
    if (fe->queues[index].started)
        return tv_error_set(err, -EALREADY, "vhost front end: queue %u is started", index);
    int ret = check_queue(fe, queue, err);
    if (ret < 0)
        return ret;
    bool first = true;
    for (unsigned i = 0; i < fe->max_queues; i++)
        first &= !fe->queues[i].started;
    fe->queues[index].q = *queue;
    fe->queues[index].started = true;
    fe->queues[index].paused = false;
    if (!fe->queues[index].has_base)
        fe->queues[index].base = frontend_is_packed(fe) ? VIRTQ_BASE_PACKED_NEW : 0;
    if (fe->fd < 0)
        return 0;
    ret = first ? send_inflight(fe, err) : 0;
    if (ret == 0)
        ret = send_queue(fe, index, err);
    ret = frontend_settle(fe, ret);
    if (ret < 0)
        fe->queues[index].started = false;
    return ret;
}

int vhost_frontend_enable_queue(struct vhost_frontend *fe, unsigned index, bool enable)
{
    if (index >= fe->config.n_queues)
        return -EINVAL;
    struct frontend_queue *queue = &fe->queues[index];
    if (queue->q.disabled == !enable)
        return 0;
    queue->q.disabled = !enable;
    return queue->started && fe->fd >= 0 ? frontend_settle(fe, send_enable(fe, index, NULL)) : 0;
}

int vhost_frontend_stop_queue(struct vhost_frontend *fe, unsigned index)
{
    if (index >= fe->config.n_queues)
        return -EINVAL;
    struct frontend_queue *queue = &fe->queues[index];
    queue->paused = false;
    if (!queue->started)
        return 0;
    queue->base = base_of(fe, queue);
    queue->has_base = true;
    const int ret = fe->fd >= 0 ? frontend_settle(fe, wire_get_ring_base(fe, index, &queue->base, NULL)) : 0;
    queue->started = false; // until here it can be written to, and marked
    return ret;
}

int vhost_frontend_set_status(struct vhost_frontend *fe, uint8_t status)
{
    if (status == 0)
        return vhost_frontend_reset(fe);
    fe->status = status;
    return fe->fd >= 0 ? frontend_settle(fe, send_status(fe, NULL)) : 0;
}

int vhost_frontend_reset(struct vhost_frontend *fe)
{
    int ret = 0;
    for (unsigned i = 0; i < fe->config.n_queues; i++) {
        vhost_frontend_stop_queue(fe, i);
        fe->queues[i].base = 0;
        fe->queues[i].has_base = false;
    }
    events_forget_errors(fe);
    fe->status = 0;
    fe->acked = 0;
    fe->has_acked = false;
    memset(fe->is_written, false, sizeof(fe->is_written));
    forget_inflight(fe); // "should retrieve a new one when vm reset"
    if (fe->fd < 0)
        return 0;
    if (wire_has(fe, VHOST_PROTOCOL_RESET_DEVICE))
        ret = wire_set(fe, VHOST_RESET_DEVICE, NULL, 0, NULL, 0, NULL);
    else
        ret = send_status(fe, NULL);
    if (ret == 0 && dirty_log_is_there(&fe->log))
        ret = wire_send_log(fe, NULL); // it may have gone with the rest
    return frontend_settle(fe, ret);
}

int vhost_frontend_resume(struct vhost_frontend *fe, struct tv_error *err)
{
    for (unsigned i = 0; i < fe->config.n_queues; i++) {
        if (!fe->queues[i].paused)
            continue;
        struct vhost_frontend_queue queue = fe->queues[i].q;
        int ret = vhost_frontend_start_queue(fe, i, &queue, err);
        if (ret < 0)
            return ret;
    }
    return 0;
}

// The MAC address lies in the payload's first bytes.
int vhost_frontend_send_rarp(struct vhost_frontend *fe, const uint8_t mac[static 6])
{
    uint64_t payload = 0;
    if (fe->fd < 0 || !wire_has(fe, VHOST_PROTOCOL_RARP))
        return -ENOTSUP;
    memcpy(&payload, mac, 6);
    return frontend_settle(fe, wire_set_u64(fe, VHOST_SEND_RARP, payload, NULL));
}

// Stops what is started, and remembers that it was.
static int pause_queues(struct vhost_frontend *fe, struct state *s)
{
    for (unsigned i = 0; i < fe->config.n_queues; i++) {
        struct frontend_queue *queue = &fe->queues[i];
        if (!queue->started)
            continue;
        if (fe->fd < 0 && !fe->config.is_net) {
            state_fail(s, "vhost: the back end is away, requests may be in flight; attach one and save again");
            return -ENOTCONN;
        }
        vhost_frontend_stop_queue(fe, i);
        queue->paused = true;
        if (fe->fd < 0 && !fe->config.is_net) {
            state_fail(s, "vhost: the back end went away while it was asked to finish queue %u", i);
            return -ENOTCONN;
        }
    }
    return 0;
}

static int loaded(struct vhost_frontend *fe, struct state *s)
{
    struct tv_error err = {0};
    for (unsigned i = 0; i < fe->config.n_queues; i++) {
        fe->queues[i].started = false;
        fe->queues[i].q.kick_fd = fe->queues[i].q.call_fd = -1;
    }
    forget_inflight(fe);
    int ret = fe->fd >= 0 ? check_promises(fe, &err) : 0;
    if (ret == 0 && fe->fd >= 0)
        ret = check_queues(fe, &err);
    if (ret == 0 && fe->fd >= 0 && fe->has_acked)
        ret = frontend_settle(fe, frontend_send_features(fe, &err));
    if (ret == 0 && fe->fd >= 0 && fe->status)
        ret = frontend_settle(fe, send_status(fe, &err));
    if (ret < 0)
        state_fail(s, "%s", err.text);
    return ret;
}

static void load_base_1(struct state *s, struct frontend_queue *queue)
{
    uint16_t next = 0;
    state_u16(s, "next", &next);
    queue->base = next;
    queue->has_base = true;
}

int vhost_frontend_state(struct vhost_frontend *fe, struct state *s)
{
    uint32_t n_queues = fe->config.n_queues;
    int ret = state_is_loading(s) ? 0 : pause_queues(fe, s);
    if (ret < 0)
        return ret;
    const uint32_t version = state_section_begin(s, "vhost-frontend", 3); // 2: packed queues, 3: queues can be disabled
    state_bool(s, "has_features", &fe->has_acked);
    state_u64(s, "features", &fe->acked);
    state_u8(s, "status", &fe->status);
    state_bool(s, "has_config", &fe->has_config);
    state_bytes(s, "config", fe->space, sizeof(fe->space));
    for (unsigned i = 0; i < VHOST_CONFIG_MAX; i++)
        state_bool(s, "is_written", &fe->is_written[i]);
    state_bytes(s, "written", fe->written, sizeof(fe->written));
    state_count(s, "queues", &n_queues, VHOST_QUEUES_MAX);
    if (n_queues != fe->config.n_queues)
        state_fail(s, "vhost: saved with %u queues, the device has %u", n_queues, fe->config.n_queues);
    for (unsigned i = 0; i < fe->config.n_queues; i++) {
        struct frontend_queue *queue = &fe->queues[i];
        state_bool(s, "started", &queue->paused);
        if (version < 2)
            load_base_1(s, queue);
        else
            state_u32(s, "base", &queue->base);
        if (version >= 2)
            state_bool(s, "has_base", &queue->has_base);
        if (version >= 3)
            state_bool(s, "disabled", &queue->q.disabled);
        state_u16(s, "size", &queue->q.size);
        state_u64(s, "desc_addr", &queue->q.desc_addr);
        state_u64(s, "avail_addr", &queue->q.avail_addr);
        state_u64(s, "used_addr", &queue->q.used_addr);
    }
    state_section_end(s);
    if (state_failed(s))
        return -EINVAL;
    return state_is_loading(s) ? loaded(fe, s) : 0;
}
