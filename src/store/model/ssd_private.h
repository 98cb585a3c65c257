// The insides of the modelled SSD, for its two parts. See ssd.h.
#pragma once

#include "store/model/ftl.h"
#include "store/model/ssd.h"

enum ssd_event_kind {
    COMMAND_ARRIVED, // taken by the controller; of a write: with its data
    COMMAND_DONE,
    PAGE_SENSED,     // read by the die
    PAGE_MOVED,      // over the channel
    PAGE_PROGRAMMED, // of a write
    COPY_SENSED,     // of garbage collection
    COPY_MOVED,
    COPY_PROGRAMMED,
    BLOCK_ERASED,
};

struct page_op {
    struct ssd_event event; // first
    union {
        struct ssd_command *command; // of a read
        struct ssd_usage *owner;
    };
    struct page_op *link, *link_all;
    uint32_t die, logical, physical;
};

struct dirty_page {
    uint32_t logical;
    struct ssd_usage *owner;
};

struct ssd {
    struct ssd_config config;
    unsigned n_dies;
    struct ftl ftl;
    struct heap events;
    size_t n_nodes, n_commands; // that may be in it: pages, commands
    struct ssd_usage total, nobody;
    // when each server will be done with what it has
    uint64_t controller_free_ns, link_free_ns[2], *channel_free_ns, *die_free_ns;
    struct page_op *free_ops, *all_ops;

    // writes: pages go from `waiting` commands to `dirty`, a ring, and hold their place in the buffer until they are programmed
    struct ssd_command *waiting, **waiting_tail;
    struct dirty_page *dirty;
    unsigned dirty_first, n_dirty, n_buffered; // n_dirty <= n_buffered <= buffer_pages
    uint64_t n_taken, n_settled;               // pages ever taken into the buffer, and out of it
    struct ssd_command *flushing, **flushing_tail;
    bool *is_programming; // by die: at most one program is with each

    // garbage collection: of `victim`, pages up to `scan` are being copied or done
    bool collecting;
    uint32_t victim, scan;
    unsigned n_copying, n_copied_waiting, copied_first; // copies under way; of those in `copied`, a ring of n_dies
    struct page_op **copied;
    uint64_t debt, debt_per_page; // copies owed, in 1/1024 pages
    unsigned erased, erasing;     // blocks of the victim
    uint64_t n_copied, n_programmed;
};

struct page_op *ssd_get_op(struct ssd *s);
void ssd_put_op(struct ssd *s, struct page_op *op);
void ssd_event_at(struct ssd *s, struct ssd_event *event, enum ssd_event_kind kind, uint64_t at_ns);
uint64_t ssd_serve_die(struct ssd *s, uint32_t die, uint64_t now_ns, uint64_t busy_ns, struct ssd_usage *owner);
uint64_t ssd_serve_channel(struct ssd *s, uint32_t die, uint64_t now_ns, struct ssd_usage *owner);

// ssd_write.c
void ssd_buffer_write(struct ssd *s, struct ssd_command *command, uint64_t now_ns);
void ssd_buffer_flush(struct ssd *s, struct ssd_command *command, uint64_t now_ns);
void ssd_write_step(struct ssd *s, struct page_op *op, uint64_t now_ns);
