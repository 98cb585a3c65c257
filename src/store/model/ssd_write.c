// Model of an SSD: the write buffer and garbage collection. See ssd.h and ssd_private.h.
#include "store/model/ssd_private.h"

#include <assert.h>

#define GC_FREE_LOW 2    // superblocks: with so few free, what is written is paid for by copies
#define GC_ERASE_SHARE 8 // one of so many dies erases at once
#define DEBT_ONE 1024u

static void collect(struct ssd *s, struct ssd_usage *owner, uint64_t now_ns);

// ---- programming ----

static void program(struct ssd *s, struct page_op *op, enum ssd_event_kind kind, uint64_t now_ns)
{
    op->die = ftl_next_die(&s->ftl);
    ftl_write(&s->ftl, op->logical);
    s->is_programming[op->die] = true;
    s->n_programmed++;
    uint64_t moved_ns = ssd_serve_channel(s, op->die, now_ns, op->owner);
    ssd_event_at(s, &op->event, kind, ssd_serve_die(s, op->die, moved_ns, s->config.program_ns, op->owner));
}

static void program_dirty(struct ssd *s, uint64_t now_ns)
{
    struct dirty_page page = s->dirty[s->dirty_first];
    s->dirty_first = (s->dirty_first + 1) % s->config.buffer_pages;
    s->n_dirty--;
    struct page_op *op = ssd_get_op(s);
    op->logical = page.logical;
    op->owner = page.owner;
    program(s, op, PAGE_PROGRAMMED, now_ns);
    if (s->collecting)
        s->debt += s->debt_per_page;
    if (s->collecting || ftl_is_low(&s->ftl, GC_FREE_LOW))
        collect(s, op->owner, now_ns);
}

static void program_copy(struct ssd *s, uint64_t now_ns)
{
    struct page_op *op = s->copied[s->copied_first];
    s->copied_first = (s->copied_first + 1) % s->n_dies;
    s->n_copied_waiting--;
    s->n_copying--;
    if (s->ftl.map[op->logical] != op->physical) { // overwritten meanwhile
        ssd_put_op(s, op);
        return;
    }
    s->n_copied++;
    program(s, op, COPY_PROGRAMMED, now_ns);
}

// The last free superblock is for copies alone: without it nothing would ever become free again.
static bool may_program_dirty(const struct ssd *s)
{
    return s->n_dirty && (s->ftl.n_free > 1 || (s->ftl.n_free == 1 && s->ftl.position < s->ftl.pages_per_superblock));
}

static void pump(struct ssd *s, uint64_t now_ns)
{
    for (uint32_t die; (die = ftl_next_die(&s->ftl)) != FTL_NONE && !s->is_programming[die];) {
        if (s->n_copied_waiting)
            program_copy(s, now_ns);
        else if (may_program_dirty(s))
            program_dirty(s, now_ns);
        else
            break;
    }
}

// ---- garbage collection ----

static void erase_some(struct ssd *s, struct ssd_usage *owner, uint64_t now_ns)
{
    while (s->erased + s->erasing < s->n_dies && s->erasing < (s->n_dies + GC_ERASE_SHARE - 1) / GC_ERASE_SHARE) {
        struct page_op *op = ssd_get_op(s);
        op->die = s->erased + s->erasing++;
        op->owner = owner;
        ssd_event_at(s, &op->event, BLOCK_ERASED, ssd_serve_die(s, op->die, now_ns, s->config.erase_ns, owner));
    }
}

static void start_copy(struct ssd *s, uint32_t physical, struct ssd_usage *owner, uint64_t now_ns)
{
    struct page_op *op = ssd_get_op(s);
    op->owner = owner;
    op->physical = physical;
    op->logical = s->ftl.back[physical];
    op->die = physical % s->n_dies;
    s->n_copying++;
    ssd_event_at(s, &op->event, COPY_SENSED, ssd_serve_die(s, op->die, now_ns, s->config.read_ns, owner));
}

static bool take_victim(struct ssd *s)
{
    uint32_t victim = ftl_take_victim(&s->ftl);
    if (victim == FTL_NONE)
        return false;
    uint64_t pages = s->ftl.pages_per_superblock, valid = s->ftl.valid[victim];
    s->collecting = true;
    s->victim = victim;
    s->scan = s->erased = s->erasing = 0;
    // A victim gives pages - valid for valid copies; a little more than that, so that it is done in time.
    s->debt_per_page = valid == pages ? pages * DEBT_ONE : valid * (DEBT_ONE + DEBT_ONE / 8) / (pages - valid);
    return true;
}

// As much as is owed: copies while there are valid pages, then the erasing.
static void collect(struct ssd *s, struct ssd_usage *owner, uint64_t now_ns)
{
    if (!s->collecting && !take_victim(s))
        return;
    uint32_t pages = s->ftl.pages_per_superblock, base = s->victim * pages;
    bool hurry = s->ftl.n_free <= 1;
    while (s->scan < pages && s->n_copying < s->n_dies && (s->debt >= DEBT_ONE || hurry)) {
        uint32_t physical = base + s->scan++;
        if (s->ftl.back[physical] == FTL_NONE)
            continue;
        s->debt -= s->debt < DEBT_ONE ? s->debt : DEBT_ONE;
        start_copy(s, physical, owner, now_ns);
    }
    if (s->scan == pages && !s->n_copying)
        erase_some(s, owner, now_ns);
}

static void block_erased(struct ssd *s, struct ssd_usage *owner, uint64_t now_ns)
{
    s->erasing--;
    s->erased++;
    erase_some(s, owner, now_ns);
    if (s->erased < s->n_dies)
        return;
    ftl_free(&s->ftl, s->victim);
    s->collecting = false;
    s->debt = 0;
}

// ---- the buffer ----

static void end_flushes(struct ssd *s, uint64_t now_ns)
{
    while (s->flushing && s->flushing->until <= s->n_settled) {
        struct ssd_command *command = s->flushing;
        s->flushing = command->link;
        if (!s->flushing)
            s->flushing_tail = &s->flushing;
        ssd_event_at(s, &command->event, COMMAND_DONE, now_ns);
    }
}

static void take_waiting(struct ssd *s, uint64_t now_ns)
{
    while (s->waiting && s->n_buffered < s->config.buffer_pages) {
        struct ssd_command *command = s->waiting;
        unsigned at = (s->dirty_first + s->n_dirty++) % s->config.buffer_pages;
        s->dirty[at] = (struct dirty_page){(uint32_t)command->first_page++, command->owner};
        s->n_buffered++;
        s->n_taken++;
        if (--command->pages_left)
            continue;
        s->waiting = command->link;
        if (!s->waiting)
            s->waiting_tail = &s->waiting;
        ssd_event_at(s, &command->event, COMMAND_DONE, now_ns);
    }
}

static void push(struct ssd_command ***tail, struct ssd_command *command)
{
    command->link = NULL;
    **tail = command;
    *tail = &command->link;
}

void ssd_buffer_write(struct ssd *s, struct ssd_command *command, uint64_t now_ns)
{
    push(&s->waiting_tail, command);
    take_waiting(s, now_ns);
    pump(s, now_ns);
}

// Pages settle in the order in which they were taken, but for the few that are with the dies: near enough for a count.
void ssd_buffer_flush(struct ssd *s, struct ssd_command *command, uint64_t now_ns)
{
    command->until = s->n_taken;
    push(&s->flushing_tail, command);
    end_flushes(s, now_ns);
}

void ssd_write_step(struct ssd *s, struct page_op *op, uint64_t now_ns)
{
    switch ((enum ssd_event_kind)op->event.kind) {
    case COPY_SENSED:
        ssd_event_at(s, &op->event, COPY_MOVED, ssd_serve_channel(s, op->die, now_ns, op->owner));
        return;
    case COPY_MOVED:
        s->copied[(s->copied_first + s->n_copied_waiting++) % s->n_dies] = op;
        pump(s, now_ns);
        return;
    case PAGE_PROGRAMMED:
        s->n_buffered--;
        s->n_settled++;
        s->is_programming[op->die] = false;
        end_flushes(s, now_ns);
        take_waiting(s, now_ns);
        break;
    case COPY_PROGRAMMED:
        s->is_programming[op->die] = false;
        break;
    default:
        block_erased(s, op->owner, now_ns);
        break;
    }
    if (s->collecting)
        collect(s, op->owner, now_ns);
    ssd_put_op(s, op);
    pump(s, now_ns);
}

void ssd_age(struct ssd *s, uint64_t seed)
{
    struct ftl *f = &s->ftl;
    uint32_t n = f->n_logical;
    assert(n);
    for (uint64_t i = 0; i < 2 * (uint64_t)n; i++) {
        while (ftl_is_low(f, GC_FREE_LOW)) {
            uint32_t victim = ftl_take_victim(f), base = victim * f->pages_per_superblock;
            for (uint32_t at = base; at < base + f->pages_per_superblock; at++)
                if (f->back[at] != FTL_NONE)
                    ftl_write(f, f->back[at]);
            ftl_free(f, victim);
        }
        seed = seed * 6364136223846793005ull + 1442695040888963407ull; // Knuth, MMIX
        ftl_write(f, i < n ? (uint32_t)i : (uint32_t)((seed >> 33) % n));
    }
}
