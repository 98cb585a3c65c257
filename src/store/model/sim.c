// The rig of the experiments: see sim.h.
#include "store/model/sim.h"

#include "base/clock.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

struct slot {
    struct heap_node due; // first; in sim->due while the request is still to come
    struct dispatch_item item;
    struct ssd_command command;
    struct disk *disk;
    struct slot *link; // free
    bool is_closed;    // of a closed loop
};

struct disk {
    struct sim_disk pub;
    struct sim_load load;
    struct heap_node due; // the next of an open loop
    struct slot *slots, *free;
    unsigned n_slots; // of the closed loop that are in use: queued, with the device or thinking
    uint64_t random, first_byte, len_bytes, next_byte;
    bool has_limit;
};

struct sim {
    struct dispatcher *dispatcher;
    struct ssd *ssd;
    struct heap due; // of slots and of disks
    struct disk *disks;
    unsigned n_disks, disks_max, in_flight, n_open; // n_open: queued requests of disks without limits
    uint64_t now_ns, wake_ns, idle;
};

// ---- numbers at random ----

static uint64_t draw(struct disk *disk)
{
    // xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators", section 3
    uint64_t x = disk->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    disk->random = x;
    return x * 2685821657736338717ull;
}

static uint64_t draw_below(struct disk *disk, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)draw(disk) * n) >> 64);
}

// ---- what comes ----

static bool is_of_disk(const struct sim *sim, const struct heap_node *node)
{
    const char *at = (const char *)node, *first = (const char *)sim->disks;
    return at >= first && at < first + sim->disks_max * sizeof(struct disk);
}

// The time, or the beginning of the next burst.
static uint64_t when_on(const struct disk *disk, uint64_t at_ns)
{
    const struct sim_load *load = &disk->load;
    if (!load->off_ns)
        return at_ns;
    uint64_t period_ns = load->on_ns + load->off_ns, into_ns = at_ns % period_ns;
    return into_ns < load->on_ns ? at_ns : at_ns - into_ns + period_ns;
}

static void make_request(struct sim *sim, struct slot *slot)
{
    struct disk *disk = slot->disk;
    const struct sim_load *load = &disk->load;
    struct dispatch_item *item = &slot->item;
    uint64_t len = draw_below(disk, 1000) < load->large_permille ? load->large_bytes : load->small_bytes;
    if (draw_below(disk, 1000) >= load->sequential_permille)
        disk->next_byte = draw_below(disk, disk->len_bytes / SSD_PAGE_BYTES) * SSD_PAGE_BYTES;
    if (disk->next_byte + len > disk->len_bytes)
        disk->next_byte = 0;
    item->kind = draw_below(disk, 1000) < load->read_permille ? DISPATCH_READ : DISPATCH_WRITE;
    item->offset_bytes = disk->first_byte + disk->next_byte;
    item->len_bytes = len;
    item->enqueued_ns = sim->now_ns;
    disk->next_byte += len;
    disk->pub.queued++;
    sim->n_open += !disk->has_limit;
    sim->dispatcher->ops->enqueue(sim->dispatcher, disk->pub.queue, item);
}

static struct slot *take_slot(struct disk *disk)
{
    struct slot *slot = disk->free;
    if (slot)
        disk->free = slot->link;
    return slot;
}

static void schedule_open(struct sim *sim, struct disk *disk)
{
    if (disk->load.depth || !disk->load.rate_per_s)
        return;
    uint64_t gap_ns = NS_PER_S / disk->load.rate_per_s;
    heap_push(&sim->due, &disk->due, when_on(disk, sim->now_ns + 1 + draw_below(disk, 2 * gap_ns)));
}

static void arrive_open(struct sim *sim, struct disk *disk)
{
    struct slot *slot = take_slot(disk);
    if (slot)
        make_request(sim, slot);
    else
        disk->pub.counts.late++;
    schedule_open(sim, disk);
}

// The slot's next request of a closed loop, or the end of its use.
static void go_on(struct sim *sim, struct slot *slot)
{
    struct disk *disk = slot->disk;
    if (disk->n_slots > disk->load.depth) {
        disk->n_slots--;
        slot->is_closed = false;
        slot->link = disk->free;
        disk->free = slot;
        return;
    }
    uint64_t think_ns = disk->load.think_ns ? draw_below(disk, 2 * disk->load.think_ns) : 0;
    uint64_t at_ns = when_on(disk, sim->now_ns + think_ns);
    if (at_ns == sim->now_ns)
        make_request(sim, slot);
    else
        heap_push(&sim->due, &slot->due, at_ns);
}

static void arrive(struct sim *sim)
{
    struct heap_node *node = heap_first(&sim->due);
    heap_remove(&sim->due, node);
    if (is_of_disk(sim, node)) {
        arrive_open(sim, (struct disk *)((char *)node - offsetof(struct disk, due)));
        return;
    }
    struct slot *slot = (struct slot *)node;
    if (slot->disk->n_slots > slot->disk->load.depth)
        go_on(sim, slot);
    else
        make_request(sim, slot);
}

// ---- the device ----

static void complete(struct sim *sim, struct ssd_command *command)
{
    struct slot *slot = (struct slot *)((char *)command - offsetof(struct slot, command));
    struct disk *disk = slot->disk;
    struct sim_disk *pub = &disk->pub;
    sim->in_flight--;
    pub->in_flight--;
    pub->counts.requests++;
    pub->counts.bytes += slot->item.len_bytes;
    histogram_add(&pub->latency, sim->now_ns - slot->item.enqueued_ns);
    sim->dispatcher->ops->complete(sim->dispatcher, &slot->item, sim->now_ns);
    if (slot->is_closed) {
        go_on(sim, slot);
    } else {
        slot->link = disk->free;
        disk->free = slot;
    }
}

static void dispatch(struct sim *sim)
{
    struct dispatcher *d = sim->dispatcher;
    for (struct dispatch_item *item; (item = d->ops->next(d, sim->now_ns));) {
        struct slot *slot = (struct slot *)((char *)item - offsetof(struct slot, item));
        item->dispatched_ns = sim->now_ns;
        slot->command.kind = item->kind;
        slot->command.offset_bytes = item->offset_bytes;
        slot->command.len_bytes = item->len_bytes;
        slot->disk->pub.queued--;
        slot->disk->pub.in_flight++;
        sim->n_open -= !slot->disk->has_limit;
        sim->in_flight++;
        ssd_submit(sim->ssd, &slot->command, sim->now_ns);
    }
    sim->idle += sim->n_open && !sim->in_flight;
    sim->wake_ns = d->ops->wake_ns(d);
    if (sim->wake_ns <= sim->now_ns)
        sim->wake_ns = sim->now_ns + 1;
}

void sim_run(struct sim *sim, uint64_t until_ns)
{
    for (;;) {
        uint64_t device_ns = ssd_next_ns(sim->ssd), due_ns = heap_first_key(&sim->due);
        uint64_t at_ns = device_ns < due_ns ? device_ns : due_ns;
        if (sim->wake_ns < at_ns)
            at_ns = sim->wake_ns;
        if (at_ns > until_ns)
            break;
        sim->now_ns = at_ns;
        bool changed = at_ns == sim->wake_ns;
        while (ssd_next_ns(sim->ssd) <= at_ns) {
            struct ssd_command *command = ssd_step(sim->ssd, at_ns);
            if (command)
                complete(sim, command);
            changed |= command != NULL;
        }
        for (; heap_first_key(&sim->due) <= at_ns; changed = true)
            arrive(sim);
        if (changed)
            dispatch(sim);
    }
    sim->now_ns = until_ns;
}

// ---- life ----

struct sim *sim_create(const struct sim_config *config, struct tv_error *err)
{
    struct sim *sim = calloc(1, sizeof(*sim));
    struct disk *disks = calloc(config->disks_max, sizeof(*disks));
    struct dispatch_config dispatch_config = {.window = config->window};
    if (!sim || !disks || heap_reserve(&sim->due, config->disks_max * (SIM_SLOTS + 1))) {
        tv_error_set(err, -ENOMEM, "simulation: out of memory");
        free(sim);
        free(disks);
        return NULL;
    }
    sim->disks = disks;
    sim->disks_max = config->disks_max;
    sim->wake_ns = UINT64_MAX;
    sim->ssd = ssd_create(config->ssd, err);
    if (sim->ssd && config->aged)
        ssd_age(sim->ssd, 1);
    sim->dispatcher = sim->ssd ? config->scheduler->create(&dispatch_config, err) : NULL;
    if (sim->dispatcher)
        return sim;
    sim_destroy(sim);
    return NULL;
}

static void drain(struct sim *sim)
{
    for (unsigned i = 0; i < sim->n_disks; i++) {
        sim_set_load(sim, &sim->disks[i].pub, &(struct sim_load){0});
        sim_set_terms(sim, &sim->disks[i].pub, &dispatch_no_terms, NULL);
    }
    dispatch(sim);
    for (uint64_t device_ns; (device_ns = ssd_next_ns(sim->ssd)) != UINT64_MAX;)
        sim_run(sim, device_ns);
}

void sim_destroy(struct sim *sim)
{
    if (sim->dispatcher) {
        drain(sim);
        for (unsigned i = 0; i < sim->n_disks; i++)
            sim->dispatcher->ops->queue_remove(sim->dispatcher, sim->disks[i].pub.queue);
        sim->dispatcher->ops->destroy(sim->dispatcher);
    }
    for (unsigned i = 0; i < sim->n_disks; i++)
        free(sim->disks[i].slots);
    ssd_destroy(sim->ssd);
    heap_fini(&sim->due);
    free(sim->disks);
    free(sim);
}

struct sim_disk *sim_add(struct sim *sim, const char *name, struct tv_error *err)
{
    if (sim->n_disks == sim->disks_max) {
        tv_error_set(err, -EINVAL, "simulation: more than %u disks", sim->disks_max);
        return NULL;
    }
    struct disk *disk = &sim->disks[sim->n_disks];
    disk->slots = calloc(SIM_SLOTS, sizeof(*disk->slots));
    if (!disk->slots) {
        tv_error_set(err, -ENOMEM, "simulation: out of memory");
        return NULL;
    }
    for (unsigned i = SIM_SLOTS; i--;) {
        disk->slots[i].disk = disk;
        disk->slots[i].command.owner = &disk->pub.usage;
        disk->slots[i].link = disk->free;
        disk->free = &disk->slots[i];
    }
    uint64_t pages = ssd_pages(sim->ssd) / sim->disks_max;
    disk->len_bytes = pages * SSD_PAGE_BYTES;
    disk->first_byte = sim->n_disks * disk->len_bytes;
    disk->random = 0x9e3779b97f4a7c15ull * (sim->n_disks + 1);
    disk->pub.name = name;
    disk->pub.queue = sim->dispatcher->ops->queue_add(sim->dispatcher, name, err);
    if (!disk->pub.queue) {
        free(disk->slots);
        return NULL;
    }
    sim->n_disks++;
    return &disk->pub;
}

void sim_set_load(struct sim *sim, struct sim_disk *disk, const struct sim_load *load)
{
    struct disk *own = (struct disk *)disk;
    own->load = *load;
    if (own->due.at)
        heap_remove(&sim->due, &own->due);
    for (struct slot *slot; own->n_slots < load->depth && (slot = take_slot(own));) {
        own->n_slots++;
        slot->is_closed = true;
        go_on(sim, slot);
    }
    schedule_open(sim, own);
    if (load->depth || load->rate_per_s)
        dispatch(sim);
}

int sim_set_terms(struct sim *sim, struct sim_disk *disk, const struct dispatch_terms *terms, struct tv_error *err)
{
    struct disk *own = (struct disk *)disk;
    int r = sim->dispatcher->ops->queue_set(sim->dispatcher, disk->queue, terms, sim->now_ns, err);
    if (r)
        return r;
    bool has_limit = terms->limit.bytes_per_s || terms->limit.ops_per_s || terms->limit.device_ppm;
    if (has_limit != own->has_limit)
        sim->n_open += has_limit ? -disk->queued : disk->queued;
    own->has_limit = has_limit;
    dispatch(sim);
    return 0;
}

uint64_t sim_now_ns(const struct sim *sim)
{
    return sim->now_ns;
}

void sim_reset_latency(struct sim_disk *disk)
{
    histogram_reset(&disk->latency);
}

const struct dispatcher *sim_dispatcher(const struct sim *sim)
{
    return sim->dispatcher;
}

const struct ssd *sim_ssd(const struct sim *sim)
{
    return sim->ssd;
}

uint64_t sim_idle(const struct sim *sim)
{
    return sim->idle;
}
