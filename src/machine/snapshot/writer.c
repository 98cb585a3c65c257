// Writing a saved machine: see snapshot.h.
#include "machine/snapshot/snapshot.h"
#include "machine/snapshot/snapshot_format.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP_BYTES (8u << 20)

struct snapshot_writer {
    int fd;
    struct snapshot_contents contents;
    uint64_t pos;                     // in RAM: all before it is written
    uint64_t extent_end;              // end of the data extent that pos is in; == pos between two
    uint64_t done_bytes, total_bytes; // of RAM that is not a hole
    uint32_t records_crc;
    uint64_t file_pos;
};

static int writer_put(struct snapshot_writer *w, const void *buf, uint64_t len_bytes, struct tv_error *err)
{
    const uint8_t *p = buf;
    while (len_bytes > 0) {
        ssize_t n = pwrite(w->fd, p, (size_t)len_bytes, (off_t)w->file_pos);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
            return tv_error_set(err, -errno, "saving: %s after %llu MiB; free some, or save elsewhere", strerror(errno),
                                (unsigned long long)(w->file_pos >> 20));
        if (n < 0)
            return tv_error_set(err, -errno, "saving: %s", strerror(errno));
        p += n;
        w->file_pos += (uint64_t)n;
        len_bytes -= (uint64_t)n;
    }
    return 0;
}

static int writer_put_head(struct snapshot_writer *w, struct tv_error *err)
{
    const struct snapshot_contents *c = &w->contents;
    struct snapshot_header header = {
        .magic = SNAPSHOT_MAGIC,
        .version = htole32(SNAPSHOT_VERSION),
        .config_crc = htole32(snapshot_crc(0, c->config, c->config_len_bytes)),
        .state_crc = htole32(snapshot_crc(0, c->state, c->state_len_bytes)),
        .config_len_bytes = htole32((uint32_t)c->config_len_bytes),
        .state_len_bytes = htole64(c->state_len_bytes),
        .ram_size_bytes = htole64(c->ram_size_bytes),
    };
    header.crc = htole32(snapshot_crc(0, &header, offsetof(struct snapshot_header, crc)));
    int rc = writer_put(w, &header, sizeof(header), err);
    if (rc == 0)
        rc = writer_put(w, c->config, c->config_len_bytes, err);
    if (rc == 0)
        rc = writer_put(w, c->state, c->state_len_bytes, err);
    return rc;
}

// The next stretch of RAM from `from` on that is not a hole; *start == the RAM's size when there is none.
static int next_extent(const struct snapshot_contents *c, uint64_t from, uint64_t *start, uint64_t *end, struct tv_error *err)
{
    *start = *end = c->ram_size_bytes;
    off_t data = lseek(c->ram_fd, (off_t)from, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
        return 0;
    off_t hole = data < 0 ? -1 : lseek(c->ram_fd, data, SEEK_HOLE);
    if (hole < 0)
        return tv_error_set(err, -errno, "saving: looking for the memory in use: %s", strerror(errno));
    *start = (uint64_t)data;
    *end = (uint64_t)hole < c->ram_size_bytes ? (uint64_t)hole : c->ram_size_bytes;
    return 0;
}

static int sum_extents(struct snapshot_writer *w, struct tv_error *err)
{
    uint64_t start, end = 0;
    do {
        int rc = next_extent(&w->contents, end, &start, &end, err);
        if (rc < 0)
            return rc;
        w->total_bytes += end - start;
    } while (start < w->contents.ram_size_bytes && end < w->contents.ram_size_bytes);
    return 0;
}

struct snapshot_writer *snapshot_writer_create(int fd, const struct snapshot_contents *contents, struct tv_error *err)
{
    struct stat st;
    struct snapshot_writer *w = calloc(1, sizeof(*w));
    if (!w) {
        tv_error_set(err, -ENOMEM, "saving: no memory");
        return NULL;
    }
    w->fd = fd;
    w->contents = *contents;
    int rc = fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ? tv_error_set(err, -EINVAL, "saving: the target is no regular file") : 0;
    if (rc == 0 && (contents->config_len_bytes > SNAPSHOT_CONFIG_MAX || contents->state_len_bytes > SNAPSHOT_STATE_MAX))
        rc = tv_error_set(err, -EFBIG, "saving: the state is too large");
    if (rc == 0 && ftruncate(fd, 0) < 0)
        rc = tv_error_set(err, -errno, "saving: %s; open the target for writing", strerror(errno));
    if (rc == 0)
        rc = sum_extents(w, err);
    if (rc == 0)
        rc = writer_put_head(w, err);
    if (rc == 0)
        return w;
    if (w->file_pos > 0 && ftruncate(fd, 0) < 0)
        tv_error_prefix(err, "and emptying the file failed");
    free(w);
    return NULL;
}

static bool page_is_zero(const uint8_t *page)
{
    uint64_t first;
    memcpy(&first, page, sizeof(first));
    return first == 0 && memcmp(page, page + 8, SNAPSHOT_PAGE_BYTES - 8) == 0;
}

static int put_record(struct snapshot_writer *w, uint64_t start, uint64_t end, struct tv_error *err)
{
    const uint8_t *bytes = w->contents.ram + start;
    struct snapshot_record record = {.offset = htole64(start),
                                     .len_bytes = htole32((uint32_t)(end - start)),
                                     .crc = htole32(snapshot_crc(0, bytes, end - start))};
    w->records_crc = snapshot_crc(w->records_crc, &record, sizeof(record));
    int rc = writer_put(w, &record, sizeof(record), err);
    return rc < 0 ? rc : writer_put(w, bytes, end - start, err);
}

// Writes the pages of [pos, pos + at most one record), which lie in one extent.
static int put_pages(struct snapshot_writer *w, struct tv_error *err)
{
    const uint8_t *ram = w->contents.ram;
    uint64_t end = w->extent_end - w->pos < SNAPSHOT_RECORD_MAX ? w->extent_end : w->pos + SNAPSHOT_RECORD_MAX;
    uint64_t at = w->pos;
    w->done_bytes += end - w->pos;
    w->pos = end;
    while (at < end) {
        while (at < end && page_is_zero(ram + at))
            at += SNAPSHOT_PAGE_BYTES;
        uint64_t start = at;
        while (at < end && !page_is_zero(ram + at))
            at += SNAPSHOT_PAGE_BYTES;
        int rc = start < at ? put_record(w, start, at, err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int put_end(struct snapshot_writer *w, struct tv_error *err)
{
    struct snapshot_record record = {.offset = SNAPSHOT_END, .crc = htole32(w->records_crc)};
    int rc = writer_put(w, &record, sizeof(record), err);
    if (rc == 0 && fdatasync(w->fd) < 0)
        rc = tv_error_set(err, -errno, "saving: %s", strerror(errno));
    return rc;
}

static int writer_advance(struct snapshot_writer *w, struct tv_error *err)
{
    uint64_t stop = w->done_bytes + STEP_BYTES;
    while (w->done_bytes < stop) {
        if (w->pos == w->extent_end) {
            int rc = next_extent(&w->contents, w->pos, &w->pos, &w->extent_end, err);
            if (rc < 0)
                return rc;
        }
        if (w->pos >= w->contents.ram_size_bytes)
            return put_end(w, err);
        int rc = put_pages(w, err);
        if (rc < 0)
            return rc;
    }
    return 1;
}

int snapshot_writer_step(struct snapshot_writer *w, struct tv_error *err)
{
    int rc = writer_advance(w, err);
    if (rc < 0 && ftruncate(w->fd, 0) < 0)
        tv_error_prefix(err, "the file is incomplete");
    return rc;
}

void snapshot_writer_progress(const struct snapshot_writer *w, uint64_t *done_bytes, uint64_t *total_bytes)
{
    *done_bytes = w->done_bytes;
    *total_bytes = w->total_bytes;
}

void snapshot_writer_destroy(struct snapshot_writer *w)
{
    free(w);
}
