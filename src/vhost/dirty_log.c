// The dirty log: see dirty_log.h.
#include "vhost/dirty_log.h"

#include <errno.h>
#include <unistd.h>

#define LOG_BYTES_MAX (64ull << 20) // of 2 TiB of memory

void dirty_log_init(struct dirty_log *log)
{
    *log = (struct dirty_log){.fd = -1};
    guest_memory_init(&log->buffer);
}

void dirty_log_fini(struct dirty_log *log)
{
    guest_memory_fini(&log->buffer);
    if (log->fd >= 0)
        close(log->fd);
    dirty_log_init(log);
}

int dirty_log_open(struct dirty_log *log, int fd, uint64_t offset_bytes, uint64_t len_bytes, struct tv_error *err)
{
    struct guest_memory buffer;
    guest_memory_init(&buffer);
    if (!len_bytes || len_bytes > LOG_BYTES_MAX) {
        close(fd);
        return tv_error_set(err, -EPROTO, "SET_LOG_BASE: %llu bytes: must be 1 to %llu", (unsigned long long)len_bytes,
                            LOG_BYTES_MAX);
    }
    int ret = guest_memory_add(&buffer, 0, len_bytes, fd, offset_bytes, 0, err);
    if (ret < 0)
        return ret;
    guest_memory_fini(&log->buffer);
    log->buffer = buffer;
    return 0;
}

void dirty_log_note(struct dirty_log *log, uint64_t guest_addr, uint64_t len_bytes)
{
    if (!log->buffer.n_regions || !len_bytes)
        return;
    const struct guest_region *bits = &log->buffer.regions[0];
    const uint64_t last = (guest_addr + len_bytes - 1) / DIRTY_LOG_PAGE;
    for (uint64_t page = guest_addr / DIRTY_LOG_PAGE; page <= last && page / 8 < bits->size_bytes; page++)
        __atomic_fetch_or(&bits->host[page / 8], (uint8_t)(1u << page % 8), __ATOMIC_RELEASE);
    log->has_news = true;
}

void dirty_log_note_host(struct dirty_log *log, const struct guest_memory *mem, const void *bytes, uint64_t len_bytes)
{
    for (unsigned i = 0; i < mem->n_regions; i++) {
        const struct guest_region *region = &mem->regions[i];
        const uint64_t offset = (uint64_t)((uintptr_t)bytes - (uintptr_t)region->host); // wraps to something large when it is below
        if (offset < region->size_bytes)
            dirty_log_note(log, region->guest_addr + offset, len_bytes);
    }
}
