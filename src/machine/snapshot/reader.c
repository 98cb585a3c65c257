// Reading a saved machine: see snapshot.h.
#include "machine/snapshot/snapshot.h"
#include "machine/snapshot/snapshot_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct snapshot_reader {
    int fd;
    uint64_t size_bytes, pos;      // of the file
    struct snapshot_header header; // numbers as on disk
    char *config;
    void *state;
};

static int damaged(struct tv_error *err, const char *what)
{
    return tv_error_set(err, -EINVAL, "saved machine: %s; the file is damaged, take another copy of it", what);
}

static int reader_get(struct snapshot_reader *r, void *buf, uint64_t len_bytes, struct tv_error *err)
{
    uint8_t *p = buf;
    if (len_bytes > r->size_bytes - r->pos)
        return tv_error_set(err, -EINVAL, "saved machine: is cut short at %" PRIu64 " bytes; take another copy of it",
                            r->size_bytes);
    while (len_bytes > 0) {
        ssize_t n = pread(r->fd, p, (size_t)len_bytes, (off_t)r->pos);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return tv_error_set(err, -errno, "saved machine: reading: %s", strerror(errno));
        if (n == 0)
            return damaged(err, "became shorter while it was read");
        p += n;
        r->pos += (uint64_t)n;
        len_bytes -= (uint64_t)n;
    }
    return 0;
}

static int check_header(const struct snapshot_header *h, struct tv_error *err)
{
    if (memcmp(h->magic, SNAPSHOT_MAGIC, sizeof(h->magic)) != 0)
        return tv_error_set(err, -EINVAL, "saved machine: this file is none (no magic number)");
    if (le32toh(h->crc) != snapshot_crc(0, h, offsetof(struct snapshot_header, crc)))
        return damaged(err, "the header's checksum is wrong");
    if (le32toh(h->version) != SNAPSHOT_VERSION)
        return tv_error_set(err, -ENOTSUP,
                            "saved machine: has format %u, this program reads %u; load it with the one that saved it",
                            le32toh(h->version), SNAPSHOT_VERSION);
    if (le32toh(h->config_len_bytes) > SNAPSHOT_CONFIG_MAX || le64toh(h->state_len_bytes) > SNAPSHOT_STATE_MAX)
        return damaged(err, "the header's lengths are out of range");
    return 0;
}

// *buf gets len_bytes of the file and a NUL.
static int read_part(struct snapshot_reader *r, void *buf_ptr, uint64_t len_bytes, uint32_t crc, struct tv_error *err)
{
    if (len_bytes > r->size_bytes - r->pos) // before memory is taken for it
        return reader_get(r, NULL, len_bytes, err);
    char *buf = malloc((size_t)len_bytes + 1);
    if (!buf)
        return tv_error_set(err, -ENOMEM, "saved machine: no memory to read it");
    *(void **)buf_ptr = buf;
    buf[len_bytes] = 0;
    int rc = reader_get(r, buf, len_bytes, err);
    if (rc == 0 && snapshot_crc(0, buf, len_bytes) != crc)
        rc = damaged(err, "a checksum is wrong");
    return rc;
}

static int open_config(struct snapshot_reader *r, struct tv_error *err)
{
    struct stat st;
    if (fstat(r->fd, &st) < 0 || !S_ISREG(st.st_mode))
        return tv_error_set(err, -EINVAL, "saved machine: is no regular file");
    r->size_bytes = (uint64_t)st.st_size;
    int rc = reader_get(r, &r->header, sizeof(r->header), err);
    if (rc == 0)
        rc = check_header(&r->header, err);
    if (rc == 0)
        rc = read_part(r, &r->config, le32toh(r->header.config_len_bytes), le32toh(r->header.config_crc), err);
    return rc;
}

static int reader_open(struct snapshot_reader *r, struct tv_error *err)
{
    int rc = open_config(r, err);
    if (rc == 0)
        rc = read_part(r, &r->state, le64toh(r->header.state_len_bytes), le32toh(r->header.state_crc), err);
    return rc;
}

struct snapshot_reader *snapshot_reader_create(int fd, struct tv_error *err)
{
    struct snapshot_reader *r = calloc(1, sizeof(*r));
    if (!r) {
        tv_error_set(err, -ENOMEM, "saved machine: no memory to read it");
        return NULL;
    }
    r->fd = fd;
    if (reader_open(r, err) < 0) {
        snapshot_reader_destroy(r);
        return NULL;
    }
    return r;
}

int snapshot_read_config(int fd, char **config, struct tv_error *err)
{
    struct snapshot_reader r = {.fd = fd};
    *config = NULL;
    int rc = open_config(&r, err);
    if (rc == 0)
        *config = r.config;
    else
        free(r.config);
    return rc;
}

const char *snapshot_reader_config(const struct snapshot_reader *r, size_t *len_bytes)
{
    *len_bytes = le32toh(r->header.config_len_bytes);
    return r->config;
}

const void *snapshot_reader_state(const struct snapshot_reader *r, size_t *len_bytes)
{
    *len_bytes = (size_t)le64toh(r->header.state_len_bytes);
    return r->state;
}

uint64_t snapshot_reader_ram_size(const struct snapshot_reader *r)
{
    return le64toh(r->header.ram_size_bytes);
}

int snapshot_reader_load_ram(struct snapshot_reader *r, uint8_t *ram, uint64_t ram_size_bytes, struct tv_error *err)
{
    uint64_t next = 0; // lowest offset that the next record may have
    uint32_t records_crc = 0;
    if (ram_size_bytes != snapshot_reader_ram_size(r))
        return tv_error_set(err, -EINVAL, "saved machine: has %" PRIu64 " bytes of memory, this one %" PRIu64,
                            snapshot_reader_ram_size(r), ram_size_bytes);
    for (;;) {
        struct snapshot_record record;
        int rc = reader_get(r, &record, sizeof(record), err);
        if (rc < 0)
            return rc;
        uint64_t offset = le64toh(record.offset), len_bytes = le32toh(record.len_bytes);
        if (offset == SNAPSHOT_END)
            return len_bytes == 0 && le32toh(record.crc) == records_crc ? 0 : damaged(err, "the closing checksum is wrong");
        if (len_bytes == 0 || len_bytes > SNAPSHOT_RECORD_MAX || (offset | len_bytes) % SNAPSHOT_PAGE_BYTES != 0 || offset < next ||
            offset >= ram_size_bytes || len_bytes > ram_size_bytes - offset)
            return damaged(err, "a stretch of memory lies where none can be");
        rc = reader_get(r, ram + offset, len_bytes, err);
        if (rc == 0 && snapshot_crc(0, ram + offset, len_bytes) != le32toh(record.crc))
            rc = damaged(err, "the checksum of a stretch of memory is wrong");
        if (rc < 0)
            return rc;
        records_crc = snapshot_crc(records_crc, &record, sizeof(record));
        next = offset + len_bytes;
    }
}

void snapshot_reader_destroy(struct snapshot_reader *r)
{
    if (!r)
        return;
    free(r->config);
    free(r->state);
    free(r);
}
