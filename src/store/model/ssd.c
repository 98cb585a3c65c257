// Model of an SSD: the stages and their events. See ssd.h; the translation layer is in ftl.c, garbage collection in ssd_write.c.
#include "store/model/ssd_private.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

const struct ssd_config ssd_sata = {
    .capacity_bytes = 4ull << 30,
    .spare_percent = 28,
    .channels = 8,
    .dies_per_channel = 4,
    .pages_per_block = 512,
    .command_ns = 9500,
    .link_ns = 7700,
    .channel_ns = 10000,
    .read_ns = 50000,
    .program_ns = 160000,
    .erase_ns = 2000000,
    .buffer_pages = 4096,
};

const struct ssd_config ssd_nvme = {
    .capacity_bytes = 8ull << 30,
    .spare_percent = 28,
    .channels = 16,
    .dies_per_channel = 8,
    .pages_per_block = 256,
    .command_ns = 620,
    .link_ns = 630,
    .channel_ns = 3400,
    .read_ns = 40000,
    .program_ns = 120000,
    .erase_ns = 2000000,
    .buffer_pages = 16384,
};

// A server that takes one after another: when it will have done what comes at now_ns.
static uint64_t serve(uint64_t *free_ns, uint64_t now_ns, uint64_t busy_ns)
{
    *free_ns = (*free_ns > now_ns ? *free_ns : now_ns) + busy_ns;
    return *free_ns;
}

uint64_t ssd_serve_die(struct ssd *s, uint32_t die, uint64_t now_ns, uint64_t busy_ns, struct ssd_usage *owner)
{
    s->total.busy_ns[SSD_DIES] += busy_ns;
    owner->busy_ns[SSD_DIES] += busy_ns;
    return serve(&s->die_free_ns[die], now_ns, busy_ns);
}

uint64_t ssd_serve_channel(struct ssd *s, uint32_t die, uint64_t now_ns, struct ssd_usage *owner)
{
    s->total.busy_ns[SSD_CHANNELS] += s->config.channel_ns;
    owner->busy_ns[SSD_CHANNELS] += s->config.channel_ns;
    return serve(&s->channel_free_ns[die % s->config.channels], now_ns, s->config.channel_ns);
}

static uint64_t serve_link(struct ssd *s, enum ssd_stage way, uint64_t now_ns, uint64_t pages, struct ssd_usage *owner)
{
    s->total.busy_ns[way] += pages * s->config.link_ns;
    owner->busy_ns[way] += pages * s->config.link_ns;
    return serve(&s->link_free_ns[way == SSD_LINK_OUT], now_ns, pages * s->config.link_ns);
}

struct page_op *ssd_get_op(struct ssd *s)
{
    struct page_op *op = s->free_ops;
    if (op) {
        s->free_ops = op->link;
        return op;
    }
    op = calloc(1, sizeof(*op));
    if (!op || heap_reserve(&s->events, ++s->n_nodes + s->n_commands))
        abort(); // a model, not a service: there is nobody to tell
    op->link_all = s->all_ops;
    s->all_ops = op;
    return op;
}

void ssd_put_op(struct ssd *s, struct page_op *op)
{
    op->link = s->free_ops;
    s->free_ops = op;
}

void ssd_event_at(struct ssd *s, struct ssd_event *event, enum ssd_event_kind kind, uint64_t at_ns)
{
    event->kind = kind;
    heap_push(&s->events, &event->node, at_ns);
}

// ---- commands ----

static void start_read(struct ssd *s, struct ssd_command *command, uint64_t now_ns)
{
    for (uint64_t page = command->first_page, end = page + command->pages_left; page < end; page++) {
        struct page_op *op = ssd_get_op(s);
        uint32_t at = s->ftl.map[page];
        op->command = command;
        op->die = (at == FTL_NONE ? (uint32_t)page : at) % s->n_dies;
        ssd_event_at(s, &op->event, PAGE_SENSED, ssd_serve_die(s, op->die, now_ns, s->config.read_ns, command->owner));
    }
}

static void start_trim(struct ssd *s, struct ssd_command *command, uint64_t now_ns)
{
    for (unsigned i = 0; i < command->pages_left; i++)
        ftl_trim(&s->ftl, (uint32_t)(command->first_page + i));
    ssd_event_at(s, &command->event, COMMAND_DONE, now_ns);
}

void ssd_submit(struct ssd *s, struct ssd_command *command, uint64_t now_ns)
{
    assert(command->offset_bytes + command->len_bytes <= s->config.capacity_bytes);
    uint64_t last = (command->offset_bytes + command->len_bytes + SSD_PAGE_BYTES - 1) / SSD_PAGE_BYTES;
    if (!command->owner)
        command->owner = &s->nobody;
    command->first_page = command->offset_bytes / SSD_PAGE_BYTES;
    command->pages_left = (unsigned)(last - command->first_page);
    command->event.node.at = 0;
    if (heap_reserve(&s->events, s->n_nodes + ++s->n_commands))
        abort();
    s->total.busy_ns[SSD_CONTROLLER] += s->config.command_ns;
    command->owner->busy_ns[SSD_CONTROLLER] += s->config.command_ns;
    uint64_t at_ns = serve(&s->controller_free_ns, now_ns, s->config.command_ns);
    if (command->kind == DISPATCH_WRITE)
        at_ns = serve_link(s, SSD_LINK_IN, at_ns, command->pages_left, command->owner);
    ssd_event_at(s, &command->event, COMMAND_ARRIVED, at_ns);
}

static void arrive(struct ssd *s, struct ssd_command *command, uint64_t now_ns)
{
    switch (command->kind) {
    case DISPATCH_READ:
        start_read(s, command, now_ns);
        break;
    case DISPATCH_WRITE:
        ssd_buffer_write(s, command, now_ns);
        break;
    case DISPATCH_FLUSH:
        ssd_buffer_flush(s, command, now_ns);
        break;
    default:
        start_trim(s, command, now_ns);
        break;
    }
}

static void page_moved(struct ssd *s, struct page_op *op, uint64_t now_ns)
{
    struct ssd_command *command = op->command;
    uint64_t at_ns = serve_link(s, SSD_LINK_OUT, now_ns, 1, command->owner);
    if (!--command->pages_left)
        ssd_event_at(s, &command->event, COMMAND_DONE, at_ns);
    ssd_put_op(s, op);
}

uint64_t ssd_next_ns(const struct ssd *s)
{
    return heap_first_key(&s->events);
}

struct ssd_command *ssd_step(struct ssd *s, uint64_t now_ns)
{
    struct heap_node *node = heap_first(&s->events);
    if (!node || node->key > now_ns)
        return NULL;
    heap_remove(&s->events, node);
    struct ssd_event *event = (struct ssd_event *)node;
    struct ssd_command *command = (struct ssd_command *)((char *)event - offsetof(struct ssd_command, event));
    struct page_op *op = (struct page_op *)event;
    switch ((enum ssd_event_kind)event->kind) {
    case COMMAND_ARRIVED:
        arrive(s, command, node->key);
        break;
    case COMMAND_DONE:
        s->n_commands--;
        return command;
    case PAGE_SENSED:
        ssd_event_at(s, event, PAGE_MOVED, ssd_serve_channel(s, op->die, node->key, op->command->owner));
        break;
    case PAGE_MOVED:
        page_moved(s, op, node->key);
        break;
    default:
        ssd_write_step(s, op, node->key);
        break;
    }
    return NULL;
}

// ---- life ----

static void *zeroed(size_t n, size_t size, bool *failed)
{
    void *p = calloc(n, size);
    *failed |= !p;
    return p;
}

struct ssd *ssd_create(const struct ssd_config *config, struct tv_error *err)
{
    struct ssd *s = calloc(1, sizeof(*s));
    if (!s) {
        tv_error_set(err, -ENOMEM, "model of an SSD: out of memory");
        return NULL;
    }
    s->config = *config;
    s->n_dies = config->channels * config->dies_per_channel;
    bool failed = false;
    s->die_free_ns = zeroed(s->n_dies, sizeof(*s->die_free_ns), &failed);
    s->channel_free_ns = zeroed(config->channels, sizeof(*s->channel_free_ns), &failed);
    s->is_programming = zeroed(s->n_dies, sizeof(*s->is_programming), &failed);
    s->dirty = zeroed(config->buffer_pages, sizeof(*s->dirty), &failed);
    s->copied = zeroed(s->n_dies, sizeof(*s->copied), &failed);
    s->waiting_tail = &s->waiting;
    s->flushing_tail = &s->flushing;
    uint32_t n_logical = (uint32_t)(config->capacity_bytes / SSD_PAGE_BYTES);
    if (failed)
        tv_error_set(err, -ENOMEM, "model of an SSD: out of memory");
    else if (!ftl_init(&s->ftl, s->n_dies, config->pages_per_block, n_logical, config->spare_percent, err))
        return s;
    ssd_destroy(s);
    return NULL;
}

void ssd_destroy(struct ssd *s)
{
    if (!s)
        return;
    for (struct page_op *op = s->all_ops, *next; op; op = next) {
        next = op->link_all;
        free(op);
    }
    ftl_fini(&s->ftl);
    heap_fini(&s->events);
    free(s->die_free_ns);
    free(s->channel_free_ns);
    free(s->is_programming);
    free(s->dirty);
    free(s->copied);
    free(s);
}

uint64_t ssd_pages(const struct ssd *s)
{
    return s->ftl.n_logical;
}

unsigned ssd_stage_width(const struct ssd *s, enum ssd_stage stage)
{
    return stage == SSD_DIES ? s->n_dies : stage == SSD_CHANNELS ? s->config.channels : 1;
}

struct ssd_usage ssd_total(const struct ssd *s)
{
    return s->total;
}

uint64_t ssd_copied_pages(const struct ssd *s)
{
    return s->n_copied;
}

uint64_t ssd_programmed_pages(const struct ssd *s)
{
    return s->n_programmed;
}
