// virtio-pci, the device's life: queues, reset, interrupts, saved state. On the loop's thread; see virtio_pci.h.
#include "machine/device/virtio_pci_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { VENDOR_VIRTIO = 0x1af4, DEVICE_MODERN = 0x1040 }; // 4.1.2: 0x1040 + device type

// --- interrupts, 4.1.5

void virtio_pci_interrupt(struct virtio_pci *vp, unsigned queue)
{
    pthread_mutex_lock(&vp->lock);
    vp->isr |= ISR_QUEUE;
    if (vp->queues[queue].vector != VIRTIO_NO_VECTOR)
        pcie_msix_raise(vp->fn, vp->queues[queue].vector);
    pthread_mutex_unlock(&vp->lock);
}

static void interrupt_config(struct virtio_pci *vp) // lock held
{
    vp->isr |= ISR_CONFIG;
    if (vp->config_vector != VIRTIO_NO_VECTOR)
        pcie_msix_raise(vp->fn, vp->config_vector);
}

void virtio_pci_push(struct virtio_pci *vp, unsigned queue)
{
    if (virtqueue_needs_call(&vp->vqs[queue]))
        virtio_pci_interrupt(vp, queue);
}

void virtio_pci_needs_reset(struct virtio_pci *vp, const char *why)
{
    pthread_mutex_lock(&vp->lock);
    bool is_new = !(vp->status & VIRTIO_CONFIG_S_NEEDS_RESET) && !vp->resetting;
    if (is_new) {
        vp->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        if (vp->status & VIRTIO_CONFIG_S_DRIVER_OK)
            interrupt_config(vp);
    }
    bool told = is_new && log_limit_pass(&vp->told, vp->config.ops->name, clock_now_ns());
    pthread_mutex_unlock(&vp->lock);
    if (told)
        log_event(LOG_WARN, vp->config.ops->name, "device needs a reset", LOG_STR("why", why));
}

// --- configuration space

void virtio_pci_config_set(struct virtio_pci *vp, uint32_t offset, const void *bytes, uint32_t len_bytes, bool tell)
{
    assert(offset <= vp->config.config_len_bytes && len_bytes <= vp->config.config_len_bytes - offset);
    pthread_mutex_lock(&vp->lock);
    memcpy(vp->space + offset, bytes, len_bytes);
    if (tell) {
        vp->config_generation++;
        if (vp->status & VIRTIO_CONFIG_S_DRIVER_OK)
            interrupt_config(vp);
    }
    pthread_mutex_unlock(&vp->lock);
}

void virtio_pci_config_get(struct virtio_pci *vp, uint32_t offset, void *bytes, uint32_t len_bytes)
{
    assert(offset <= vp->config.config_len_bytes && len_bytes <= vp->config.config_len_bytes - offset);
    pthread_mutex_lock(&vp->lock);
    memcpy(bytes, vp->space + offset, len_bytes);
    pthread_mutex_unlock(&vp->lock);
}

void virtio_pci_config_writable(struct virtio_pci *vp, uint32_t offset, uint32_t len_bytes)
{
    assert(offset <= vp->config.config_len_bytes && len_bytes <= vp->config.config_len_bytes - offset);
    memset(vp->writable + offset, 1, len_bytes);
}

// --- queues

struct virtqueue *virtio_pci_queue(struct virtio_pci *vp, unsigned index)
{
    return &vp->vqs[index];
}

bool virtio_pci_queue_is_live(const struct virtio_pci *vp, unsigned index)
{
    return !vp->frozen && vp->started >> index & 1;
}

bool virtio_pci_queue_is_started(const struct virtio_pci *vp, unsigned index)
{
    return vp->started >> index & 1;
}

uint64_t virtio_pci_features(const struct virtio_pci *vp)
{
    return vp->features;
}

void virtio_pci_set_notify_fd(struct virtio_pci *vp, unsigned index, int fd)
{
    atomic_store_explicit(&vp->notify_fds[index], fd, memory_order_relaxed);
    pcie_set_doorbell(vp->fn, index, 0, BAR_NOTIFY + index * NOTIFY_MULTIPLIER, fd);
}

void virtio_pci_put_call(struct virtio_pci *vp, unsigned index)
{
    pcie_set_call(vp->fn, index, vp->queues[index].vector, vp->call_fds[index]);
}

// What was signalled while nobody looked is still in the eventfd.
static void watch_calls(struct virtio_pci *vp)
{
    uint64_t bound = atomic_load(&vp->bound);
    for (unsigned i = 0; i < vp->config.n_queues; i++)
        if ((bound ^ vp->unwatched) >> i & 1 && vp->call_sources[i])
            loop_set_events(vp->call_sources[i], bound >> i & 1 ? 0 : EPOLLIN);
    vp->unwatched = bound;
}

void virtio_pci_set_call(struct virtio_pci *vp, unsigned index, int fd, struct loop_source *source)
{
    if (vp->call_sources[index] && vp->call_sources[index] != source && vp->unwatched >> index & 1)
        loop_set_events(vp->call_sources[index], EPOLLIN);
    vp->unwatched &= ~(1ull << index);
    pthread_mutex_lock(&vp->lock);
    vp->call_fds[index] = fd;
    vp->call_sources[index] = source;
    virtio_pci_put_call(vp, index);
    pthread_mutex_unlock(&vp->lock);
    watch_calls(vp);
}

static void call_bound(void *arg, unsigned index, bool bound)
{
    struct virtio_pci *vp = arg;
    if (bound)
        atomic_fetch_or(&vp->bound, 1ull << index);
    else
        atomic_fetch_and(&vp->bound, ~(1ull << index));
    doorbell_ring(vp->bell);
}

void virtio_pci_notify_again(struct virtio_pci *vp, unsigned index)
{
    atomic_fetch_or_explicit(&vp->kicked, 1ull << index, memory_order_release);
    doorbell_ring(vp->bell);
}

static int start_queue(struct virtio_pci *vp, unsigned i, const struct virtio_queue_setup *setup, struct tv_error *err)
{
    if (!vp->vqs)
        return vp->config.ops->queue_start(vp->config.dev, i, setup);
    bool event_idx = vp->features >> VIRTIO_RING_F_EVENT_IDX & 1;
    return virtqueue_start(&vp->vqs[i], setup->size, setup->desc_addr, setup->avail_addr, setup->used_addr, 0,
                           event_idx ? VIRTQ_EVENT_IDX : 0, err);
}

static void stop_queues(struct virtio_pci *vp)
{
    for (unsigned i = 0; i < vp->config.n_queues; i++) {
        if (!(vp->started >> i & 1))
            continue;
        if (vp->vqs)
            virtqueue_stop(&vp->vqs[i]);
        else
            vp->config.ops->queue_stop(vp->config.dev, i);
    }
    vp->started = 0;
}

static bool is_enabled(struct virtio_pci *vp, unsigned i)
{
    pthread_mutex_lock(&vp->lock);
    bool enabled = vp->queues[i].enabled;
    pthread_mutex_unlock(&vp->lock);
    return enabled;
}

struct virtio_queue_setup virtio_pci_queue_setup(struct virtio_pci *vp, unsigned i)
{
    pthread_mutex_lock(&vp->lock);
    const struct virtio_pci_queue q = vp->queues[i];
    pthread_mutex_unlock(&vp->lock);
    return (struct virtio_queue_setup){q.size, q.desc_addr, q.avail_addr, q.used_addr};
}

// Starts what the driver enabled. The registers of an enabled queue do not change any more, but for a reset.
static void start_queues(struct virtio_pci *vp)
{
    for (unsigned i = 0; i < vp->config.n_queues; i++) {
        struct tv_error err = {.text = "the device refused it"};
        if (!is_enabled(vp, i) || vp->started >> i & 1)
            continue;
        const struct virtio_queue_setup setup = virtio_pci_queue_setup(vp, i);
        if (start_queue(vp, i, &setup, &err) != 0) {
            virtio_pci_needs_reset(vp, err.text);
            return;
        }
        vp->started |= 1ull << i;
        atomic_fetch_or_explicit(&vp->kicked, 1ull << i, memory_order_relaxed); // there may be buffers already
    }
}

static void reset_device(struct virtio_pci *vp)
{
    stop_queues(vp);
    vp->running = false;
    vp->features = 0;
    atomic_store(&vp->kicked, 0);
    vp->config.ops->reset(vp->config.dev);
}

// --- what vcpus left to the loop

static void serve_reset(struct virtio_pci *vp)
{
    pthread_mutex_lock(&vp->lock);
    bool resetting = vp->resetting;
    pthread_mutex_unlock(&vp->lock);
    if (!resetting)
        return;
    reset_device(vp); // the driver cannot do a thing meanwhile: its writes are ignored
    pthread_mutex_lock(&vp->lock);
    virtio_pci_reset_registers(vp);
    pthread_mutex_unlock(&vp->lock);
}

static void serve_start(struct virtio_pci *vp)
{
    pthread_mutex_lock(&vp->lock);
    bool go = vp->live && !(vp->status & VIRTIO_CONFIG_S_NEEDS_RESET);
    uint64_t features = vp->driver_features;
    pthread_mutex_unlock(&vp->lock);
    if (!go)
        return;
    if (!vp->running) {
        vp->running = true;
        vp->features = features;
        if (vp->config.ops->started && vp->config.ops->started(vp->config.dev, features) != 0) {
            virtio_pci_needs_reset(vp, "the device refused to start");
            return;
        }
    }
    start_queues(vp);
}

static void serve_config(struct virtio_pci *vp)
{
    pthread_mutex_lock(&vp->lock);
    bool written = vp->config_was_written;
    uint32_t from = vp->written_from, to = vp->written_to;
    vp->config_was_written = false;
    pthread_mutex_unlock(&vp->lock);
    if (written && vp->config.ops->config_written)
        vp->config.ops->config_written(vp->config.dev, from, to - from);
}

static void serve_notifications(struct virtio_pci *vp)
{
    if (!vp->config.ops->notified)
        return;
    uint64_t kicked = atomic_exchange_explicit(&vp->kicked, 0, memory_order_acquire) & vp->started;
    for (; kicked; kicked &= kicked - 1) {
        unsigned i = (unsigned)__builtin_ctzll(kicked);
        vp->config.ops->notified(vp->config.dev, i);
        if (vp->vqs && vp->vqs[i].broken)
            virtio_pci_needs_reset(vp, vp->vqs[i].why);
    }
}

static void serve(void *arg)
{
    struct virtio_pci *vp = arg;
    watch_calls(vp);
    if (vp->frozen) // thawing rings again
        return;
    serve_reset(vp);
    serve_start(vp);
    serve_config(vp);
    serve_notifications(vp);
}

// --- as a PCI function

static void pci_reset(void *arg)
{
    struct virtio_pci *vp = arg;
    reset_device(vp);
    pthread_mutex_lock(&vp->lock);
    virtio_pci_reset_registers(vp);
    vp->config_generation = 0;
    pthread_mutex_unlock(&vp->lock);
}

static void pci_freeze(void *arg)
{
    struct virtio_pci *vp = arg;
    vp->frozen = true;
}

static int pci_thaw(void *arg, struct tv_error *err)
{
    struct virtio_pci *vp = arg;
    if (!vp->frozen)
        return 0;
    vp->frozen = false;
    int rc = vp->config.ops->thawed ? vp->config.ops->thawed(vp->config.dev, err) : 0;
    atomic_fetch_or(&vp->kicked, vp->started);
    doorbell_ring(vp->bell);
    return rc;
}

static void queue_registers_state(struct virtio_pci *vp, struct state *s)
{
    for (unsigned i = 0; i < vp->config.n_queues; i++) {
        struct virtio_pci_queue *q = &vp->queues[i];
        state_u16(s, "size", &q->size);
        state_u16(s, "vector", &q->vector);
        state_bool(s, "enabled", &q->enabled);
        state_u64(s, "desc_addr", &q->desc_addr);
        state_u64(s, "avail_addr", &q->avail_addr);
        state_u64(s, "used_addr", &q->used_addr);
        if (q->size == 0 || q->size > VIRTIO_QUEUE_SIZE || (q->size & (q->size - 1)))
            state_fail(s, "%s: queue %u has a size of %u", vp->config.ops->name, i, q->size);
        q->vector = q->vector < vp->n_vectors ? q->vector : VIRTIO_NO_VECTOR;
    }
}

static void registers_state(struct virtio_pci *vp, struct state *s)
{
    state_u32(s, "device_feature_select", &vp->device_feature_select);
    state_u32(s, "driver_feature_select", &vp->driver_feature_select);
    state_u64(s, "driver_features", &vp->driver_features);
    state_u16(s, "config_vector", &vp->config_vector);
    state_u16(s, "queue_select", &vp->queue_select);
    state_u8(s, "status", &vp->status);
    state_u8(s, "isr", &vp->isr);
    state_u8(s, "config_generation", &vp->config_generation);
    state_bool(s, "resetting", &vp->resetting);
    state_bool(s, "live", &vp->live);
    state_bool(s, "config_was_written", &vp->config_was_written);
    state_u32(s, "written_from", &vp->written_from);
    state_u32(s, "written_to", &vp->written_to);
    state_bytes(s, "config", vp->space, vp->config.config_len_bytes);
    vp->config_vector = vp->config_vector < vp->n_vectors ? vp->config_vector : VIRTIO_NO_VECTOR;
    if (vp->config_was_written && (vp->written_from > vp->written_to || vp->written_to > vp->config.config_len_bytes))
        state_fail(s, "%s: the driver wrote to %u..%u of the configuration", vp->config.ops->name, vp->written_from,
                   vp->written_to);
    queue_registers_state(vp, s);
}

// The invariants between registers and what lives on the loop's thread, for what was loaded.
static void check_loaded(const struct virtio_pci *vp, struct state *s)
{
    if (vp->running && (!vp->live || vp->features != vp->driver_features))
        state_fail(s, "%s: it runs without a driver", vp->config.ops->name);
    if (vp->status & VIRTIO_CONFIG_S_FEATURES_OK && vp->driver_features & ~vp->config.features)
        state_fail(s, "%s: the driver has features 0x%llx, and only 0x%llx are here", vp->config.ops->name,
                   (unsigned long long)vp->driver_features, (unsigned long long)vp->config.features);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        if (vp->started >> i & 1 && (!vp->running || i >= vp->config.n_queues || !vp->queues[i].enabled))
            state_fail(s, "%s: queue %u is started but not enabled", vp->config.ops->name, i);
}

static int pci_state(void *arg, struct state *s)
{
    struct virtio_pci *vp = arg;
    assert(vp->frozen);
    if (state_is_loading(s) && vp->running)
        reset_device(vp);
    state_section_begin(s, "virtio", 1);
    pthread_mutex_lock(&vp->lock);
    registers_state(vp, s);
    state_bool(s, "running", &vp->running);
    state_u64(s, "features", &vp->features);
    state_u64(s, "started", &vp->started);
    if (state_is_loading(s)) {
        check_loaded(vp, s);
        if (state_failed(s)) {
            virtio_pci_reset_registers(vp);
            vp->running = false;
            vp->started = vp->features = 0;
        }
        for (unsigned i = 0; i < vp->config.n_queues; i++)
            virtio_pci_put_call(vp, i);
    }
    pthread_mutex_unlock(&vp->lock);
    for (unsigned i = 0; vp->vqs && i < vp->config.n_queues; i++) {
        virtqueue_state(&vp->vqs[i], s);
        if (state_is_loading(s) && vp->vqs[i].ready != (vp->started >> i & 1))
            state_fail(s, "%s: queue %u is started and has no rings, or the other way round", vp->config.ops->name, i);
    }
    vp->config.ops->state(vp->config.dev, s);
    state_section_end(s);
    return state_failed(s) ? -EINVAL : 0;
}

static void release(struct virtio_pci *vp)
{
    doorbell_destroy(vp->bell);
    pthread_mutex_destroy(&vp->lock);
    free(vp->vqs);
    free(vp);
}

static void pci_destroy(void *arg)
{
    struct virtio_pci *vp = arg;
    stop_queues(vp);
    vp->config.ops->destroy(vp->config.dev);
    release(vp);
}

static const struct pcie_function_ops *function_ops(struct pcie_function_ops *ops, const char *name)
{
    *ops = (struct pcie_function_ops){.name = name,
                                      .bar_read = virtio_pci_bar_read,
                                      .bar_write = virtio_pci_bar_write,
                                      .config_read = virtio_pci_config_space_read,
                                      .config_written = virtio_pci_config_space_written,
                                      .call_bound = call_bound,
                                      .reset = pci_reset,
                                      .freeze = pci_freeze,
                                      .thaw = pci_thaw,
                                      .state = pci_state,
                                      .destroy = pci_destroy};
    return ops;
}

static int create_parts(struct virtio_pci *vp, struct tv_error *err)
{
    const struct virtio_pci_config *c = &vp->config;
    vp->config.features |= 1ull << VIRTIO_F_VERSION_1;
    if (!c->ops->queue_start) {
        vp->config.features |= 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX;
        vp->vqs = calloc(c->n_queues, sizeof(*vp->vqs));
        if (!vp->vqs)
            return tv_error_set(err, -ENOMEM, "no memory for the queues of '%s'", c->ops->name);
        for (unsigned i = 0; i < c->n_queues; i++)
            virtqueue_init(&vp->vqs[i], c->home.mem);
    }
    vp->bell = doorbell_create(c->home.loop, serve, vp, err);
    return vp->bell ? 0 : -ENOMEM;
}

static int plug_in(struct virtio_pci *vp, struct tv_error *err)
{
    const struct virtio_ops *ops = vp->config.ops;
    const struct pcie_function_config function = {.vendor_id = VENDOR_VIRTIO,
                                                  .device_id = (uint16_t)(DEVICE_MODERN + ops->device_type),
                                                  .subsystem_vendor_id = VENDOR_VIRTIO,
                                                  .subsystem_id = (uint16_t)(DEVICE_MODERN + ops->device_type),
                                                  .revision = 1,
                                                  .class_code = ops->class_code,
                                                  .n_vectors = vp->n_vectors,
                                                  .msix_table_offset = BAR_MSIX_TABLE,
                                                  .msix_pba_offset = BAR_MSIX_PBA};
    vp->fn = pcie_add(vp->config.home.pcie, vp->config.home.slot, &function, function_ops(&vp->function_ops, ops->name), vp, err);
    if (!vp->fn)
        return -EBUSY;
    pcie_add_bar(vp->fn, 0, BAR_BYTES, true);
    virtio_pci_add_capabilities(vp);
    return 0;
}

struct virtio_pci *virtio_pci_create(const struct virtio_pci_config *config, struct tv_error *err)
{
    assert(config->n_queues >= 1 && config->n_queues <= VIRTIO_QUEUES_MAX && config->config_len_bytes <= VIRTIO_CONFIG_MAX);
    struct virtio_pci *vp = calloc(1, sizeof(*vp));
    if (!vp) {
        tv_error_set(err, -ENOMEM, "no memory for '%s'", config->ops->name);
        return NULL;
    }
    vp->config = *config;
    vp->n_vectors = config->n_queues + 1; // one a queue and one for configuration changes
    pthread_mutex_init(&vp->lock, NULL);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        atomic_store_explicit(&vp->notify_fds[i], -1, memory_order_relaxed);
        vp->call_fds[i] = -1;
    }
    virtio_pci_reset_registers(vp);
    if (create_parts(vp, err) != 0 || plug_in(vp, err) != 0) {
        release(vp);
        return NULL;
    }
    return vp;
}
