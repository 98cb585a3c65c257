// The dirty log of guest memory: a bitmap that is shared with the front end, one bit for each page of 4096 bytes from
// guest-physical address 0 on, in which the back end marks what it has written (vhost-user protocol, "Migration").
//
// The front end takes bits out meanwhile, so each is set atomically, and after the write that it tells of: whoever takes it finds
// the page as it was written. The loop's thread, of either.
#pragma once

#include "vhost/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIRTY_PAGE_BYTES 4096u
#define DIRTY_LOG_BYTES_MAX (1ull << 30) // guest addresses up to 32 TiB

struct dirty_log {
    struct guest_memory file; // one region, the bitmap; none: there is no log
    bool touched;             // since dirty_log_take_touched()
};

void dirty_log_init(struct dirty_log *log);
void dirty_log_fini(struct dirty_log *log); // back to there being none
// Takes fd. The log that was there, if any, gives way; on failure it stays.
int dirty_log_set(struct dirty_log *log, int fd, uint64_t size_bytes, uint64_t offset_bytes, struct tv_error *err);
static inline bool dirty_log_is_there(const struct dirty_log *log)
{
    return log->file.n_regions > 0;
}
// Whether all of [addr, addr + len_bytes) has its bits.
bool dirty_log_covers(const struct dirty_log *log, uint64_t addr, uint64_t len_bytes);
// What lies beyond the log is left out: who sets things up checks that nothing does.
void dirty_log_mark(struct dirty_log *log, uint64_t addr, uint64_t len_bytes);
// The front end's end: takes the bits of n_pages from addr on, a page's address, out of the log, and adds them to `bitmap`, page 0
// of which is the one at addr.
void dirty_log_take(struct dirty_log *log, uint64_t addr, uint64_t n_pages, uint64_t *bitmap);
bool dirty_log_take_touched(struct dirty_log *log);
