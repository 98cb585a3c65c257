// A model of an SSD, in simulated time: it says when a real one of this build would have been done with each command, and keeps no
// data. Every run with the same commands at the same times gives the same answers, to the nanosecond.
//
// What there is of a drive: a controller that takes commands one after another; a host link with its two directions; channels, and
// on each of them dies that read, program and erase, one page at a time; a write buffer, out of which pages are programmed in the
// order in which they came, one at a time on each die; and a page-mapped translation layer that writes to superblocks (a block of
// every die), and frees the one with the fewest valid pages when they run short. What is copied is paced by what the host writes.
// Every stage serves in the order of arrival. There is no cache of reads, and reads do not suspend programs or erases.
//
// The busy time of each stage is booked to the owner of the command that caused it, garbage collection to the writes that made it
// necessary: so who used how much of the device is known, and not estimated.
#pragma once

#include "base/error.h"
#include "base/heap.h"
#include "store/sched/dispatch.h"

#include <stdbool.h>
#include <stdint.h>

#define SSD_PAGE_BYTES 4096u

struct ssd_config {
    uint64_t capacity_bytes;
    unsigned spare_percent; // of flash beyond the capacity
    unsigned channels, dies_per_channel, pages_per_block;
    uint64_t command_ns;                    // the controller, for each command
    uint64_t link_ns;                       // a page over the host link
    uint64_t channel_ns;                    // a page over a channel
    uint64_t read_ns, program_ns, erase_ns; // a die: a page's share, when planes work together; a block
    unsigned buffer_pages;
};

extern const struct ssd_config ssd_sata; // of the time of the decks: 530 MB/s, 100k requests/s
extern const struct ssd_config ssd_nvme; // 6.5 GB/s, 1.6M requests/s

enum ssd_stage { SSD_CONTROLLER, SSD_LINK_IN, SSD_LINK_OUT, SSD_CHANNELS, SSD_DIES, SSD_STAGES };

struct ssd_usage {
    uint64_t busy_ns[SSD_STAGES]; // summed over the stage's members
};

struct ssd_event {
    struct heap_node node;
    unsigned kind;
};

struct ssd_command {
    enum dispatch_kind kind;
    uint64_t offset_bytes, len_bytes; // touched pages count whole
    struct ssd_usage *owner;          // may be NULL; must live on until the device is idle
    // the model's
    struct ssd_event event;
    struct ssd_command *link;
    unsigned pages_left;
    uint64_t first_page, until;
};

struct ssd;

struct ssd *ssd_create(const struct ssd_config *config, struct tv_error *err);
void ssd_destroy(struct ssd *s); // commands that are under way are forgotten

// As after long use: every page is written, and as often again at random, in no time. From then on garbage is collected.
void ssd_age(struct ssd *s, uint64_t seed);

// now_ns: not before the last event. The command is the caller's again when ssd_step() has returned it.
void ssd_submit(struct ssd *s, struct ssd_command *command, uint64_t now_ns);
uint64_t ssd_next_ns(const struct ssd *s); // when something happens next; UINT64_MAX: nothing, until a command comes
// Lets the next event happen, if it is not after now_ns; returns the command that is done by it, or NULL.
struct ssd_command *ssd_step(struct ssd *s, uint64_t now_ns);

uint64_t ssd_pages(const struct ssd *s);
unsigned ssd_stage_width(const struct ssd *s, enum ssd_stage stage); // how many members work at once
struct ssd_usage ssd_total(const struct ssd *s);
uint64_t ssd_copied_pages(const struct ssd *s); // by garbage collection
uint64_t ssd_programmed_pages(const struct ssd *s);
