// The dirty log: see dirty_log.h.
#include "vhost/dirty_log.h"

#include <errno.h>
#include <unistd.h>

void dirty_log_init(struct dirty_log *log)
{
    guest_memory_init(&log->file);
    log->touched = false;
}

void dirty_log_fini(struct dirty_log *log)
{
    guest_memory_fini(&log->file);
    log->touched = false;
}

int dirty_log_set(struct dirty_log *log, int fd, uint64_t size_bytes, uint64_t offset_bytes, struct tv_error *err)
{
    struct guest_memory file;
    guest_memory_init(&file);
    if (size_bytes == 0 || size_bytes > DIRTY_LOG_BYTES_MAX) {
        close(fd);
        return tv_error_set(err, -EPROTO, "dirty log: %llu bytes, not 1 to %llu", (unsigned long long)size_bytes,
                            DIRTY_LOG_BYTES_MAX);
    }
    int ret = guest_memory_add(&file, 0, size_bytes, fd, offset_bytes, 0, err);
    if (ret < 0)
        return ret;
    guest_memory_fini(&log->file);
    log->file = file;
    return 0;
}

static uint64_t n_pages(const struct dirty_log *log)
{
    return dirty_log_is_there(log) ? 8 * log->file.regions[0].size_bytes : 0;
}

bool dirty_log_covers(const struct dirty_log *log, uint64_t addr, uint64_t len_bytes)
{
    return len_bytes > 0 && addr <= UINT64_MAX - (len_bytes - 1) && (addr + (len_bytes - 1)) / DIRTY_PAGE_BYTES < n_pages(log);
}

// Release: what was written is there for whoever takes the bit.
void dirty_log_mark(struct dirty_log *log, uint64_t addr, uint64_t len_bytes)
{
    if (!dirty_log_covers(log, addr, len_bytes))
        return;
    uint8_t *bits = log->file.regions[0].host;
    const uint64_t last = (addr + (len_bytes - 1)) / DIRTY_PAGE_BYTES;
    for (uint64_t page = addr / DIRTY_PAGE_BYTES; page <= last; page = (page | 7) + 1) {
        const uint64_t to = last < (page | 7) ? last & 7 : 7;
        const unsigned mask = (0xffu << (page & 7)) & (0xffu >> (7 - to));
        __atomic_fetch_or(&bits[page / 8], (uint8_t)mask, __ATOMIC_RELEASE);
    }
    log->touched = true;
}

// Acquire: what is copied afterwards is what was written before the bit was set, or newer and marked again.
void dirty_log_take(struct dirty_log *log, uint64_t addr, uint64_t n_pages, uint64_t *bitmap)
{
    if (n_pages == 0 || !dirty_log_covers(log, addr, n_pages * DIRTY_PAGE_BYTES))
        return;
    uint8_t *bits = log->file.regions[0].host;
    const uint64_t first = addr / DIRTY_PAGE_BYTES, end = first + n_pages;
    for (uint64_t page = first; page < end; page = (page | 7) + 1) {
        const uint64_t to = end - 1 < (page | 7) ? (end - 1) & 7 : 7;
        const unsigned mask = (0xffu << (page & 7)) & (0xffu >> (7 - to));
        if (!(__atomic_load_n(&bits[page / 8], __ATOMIC_RELAXED) & mask))
            continue;
        const unsigned taken = __atomic_fetch_and(&bits[page / 8], (uint8_t)~mask, __ATOMIC_ACQUIRE) & mask;
        for (unsigned left = taken; left; left &= left - 1) {
            const uint64_t at = (page & ~7ull) + (unsigned)__builtin_ctz(left) - first;
            bitmap[at / 64] |= 1ull << (at % 64);
        }
    }
}

bool dirty_log_take_touched(struct dirty_log *log)
{
    const bool touched = log->touched;
    log->touched = false;
    return touched;
}
