// Which pages of guest memory the back end has written to, for a front end that moves its machine elsewhere (vhost-user protocol,
// "Migration"): bits in memory that it shares with us, one for each page of 4096 bytes from guest-physical 0 on, set atomically and
// after the page was written.
//
// The loop's thread. What lies beyond the front end's log is not its memory, by its own word, and is not noted.
#pragma once

#include "vhost/memory.h"

#define DIRTY_LOG_PAGE 4096u

struct dirty_log {
    struct guest_memory buffer; // one region; none: there is no log
    int fd;                     // told when something was noted; -1: nobody is
    bool has_news;
};

void dirty_log_init(struct dirty_log *log);
void dirty_log_fini(struct dirty_log *log);
int dirty_log_open(struct dirty_log *log, int fd, uint64_t offset_bytes, uint64_t len_bytes, struct tv_error *err); // takes fd
void dirty_log_note(struct dirty_log *log, uint64_t guest_addr, uint64_t len_bytes);
// By where we have it mapped.
void dirty_log_note_host(struct dirty_log *log, const struct guest_memory *mem, const void *bytes, uint64_t len_bytes);
