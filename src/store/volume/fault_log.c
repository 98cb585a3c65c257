// The log of a volume that fails: see fault_log.h.
#include "store/volume/fault_log.h"

#include "base/log.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum record { RECORD_OPEN, RECORD_BEGIN, RECORD_END };
enum record_op { OP_WRITE = 1, OP_FLUSH, OP_DISCARD, OP_ZERO };

struct record_head {
    char magic[4];
    uint8_t record, op, durable, zero;
    int32_t result;
    uint32_t zero2;
    uint64_t number, offset_bytes, len_bytes;
};
_Static_assert(sizeof(struct record_head) == 40, "as docs/formats/fault-log.md has it");

static struct record_head head(enum record record, uint64_t number)
{
    return (struct record_head){.magic = {'T', 'V', 'F', 'L'}, .record = (uint8_t)record, .number = htole64(number)};
}

static int write_all(int fd, struct iovec *iov, unsigned n)
{
    while (n) {
        ssize_t written = writev(fd, iov, (int)n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        size_t left = (size_t)written;
        for (; n && left >= iov->iov_len; n--)
            left -= iov++->iov_len;
        if (n) {
            iov->iov_base = (uint8_t *)iov->iov_base + left;
            iov->iov_len -= left;
        }
    }
    return 0;
}

// A record, and of a write the data behind it.
static void append(struct fault_log *log, struct record_head *h, const struct volume_request *request)
{
    unsigned n = 1;
    if (log->fd < 0 || log->has_failed)
        return;
    log->iov[0] = (struct iovec){.iov_base = h, .iov_len = sizeof(*h)};
    if (request && request->op == VOLUME_WRITE)
        n += volume_data_vector(request->data, request->len_bytes, log->iov + 1, VOLUME_SEGMENTS_MAX);
    int r = write_all(log->fd, log->iov, n);
    log->has_failed = r != 0;
    if (r)
        log_event(LOG_ERROR, "store", "log of a fault volume cannot be written; it ends here", LOG_STR("error", strerror(-r)));
}

int fault_log_init(struct fault_log *log, int fd, uint64_t size_bytes, struct tv_error *err)
{
    struct stat st;
    log->fd = fd;
    if (fd < 0)
        return 0;
    const int flags = fcntl(fd, F_GETFL);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (flags & O_ACCMODE) == O_RDONLY)
        return tv_error_set(err, -EINVAL, "its log must be a file that is open for writing");
    if (lseek(fd, 0, SEEK_END) < 0 || fcntl(fd, F_SETFL, flags & ~(O_DIRECT | O_NONBLOCK)))
        return tv_error_set(err, -errno, "its log: %s", strerror(errno));
    struct record_head h = head(RECORD_OPEN, 0);
    h.len_bytes = htole64(size_bytes);
    append(log, &h, NULL);
    return log->has_failed ? tv_error_set(err, -EIO, "its log cannot be written") : 0;
}

void fault_log_fini(struct fault_log *log)
{
    if (log->fd >= 0)
        close(log->fd);
    log->fd = -1;
}

static uint8_t op_of(const struct volume_request *request)
{
    switch (request->op) {
    case VOLUME_WRITE:
        return OP_WRITE;
    case VOLUME_FLUSH:
        return OP_FLUSH;
    case VOLUME_DISCARD:
        return OP_DISCARD;
    case VOLUME_ZERO:
        return OP_ZERO;
    default:
        return 0; // changes nothing
    }
}

uint64_t fault_log_begin(struct fault_log *log, const struct volume_request *request)
{
    struct record_head h = head(RECORD_BEGIN, log->next_number);
    h.op = op_of(request);
    h.durable = request->durable && request->op != VOLUME_FLUSH;
    h.offset_bytes = htole64(request->offset_bytes);
    h.len_bytes = htole64(request->len_bytes);
    if (h.op)
        append(log, &h, request);
    return log->next_number++;
}

void fault_log_end(struct fault_log *log, const struct volume_request *request, uint64_t number, int result)
{
    struct record_head h = head(RECORD_END, number);
    h.op = op_of(request);
    h.result = (int32_t)htole32((uint32_t)result);
    if (h.op)
        append(log, &h, NULL);
}
