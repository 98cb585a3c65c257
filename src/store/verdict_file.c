// The file in which verdicts outlive the store: see verdict_file.h.
#include "store/verdict_file.h"

#include "base/clock.h"
#include "base/log.h"
#include "promise/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES 65536u
#define WAIT_TOLD_TICKS 50u // of waiting for another store that has the file, ten seconds

// Invariant: is_busy while the operation is the engine's, and then `piece` is what it writes. is_open: locked, and loaded.
struct verdict_file {
    struct io_engine *io;
    int fd, file; // file -1: the engine does not know it
    struct promise_archive *archive;
    bool is_open, is_off, is_busy, told_full, told_failed;
    unsigned n_tries, turn;
    struct io_op op;
    struct iovec iov;
    uint8_t piece[PIECE_BYTES];
};

static struct promise_moment now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (struct promise_moment){.now_ns = clock_now_ns(),
                                   .unix_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / NS_PER_MS};
}

// ---- reading ----

static int read_all(int fd, uint8_t **bytes, size_t *len_bytes)
{
    struct stat st;
    if (fstat(fd, &st))
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    const size_t most = (uint64_t)st.st_size < PROMISE_ARCHIVE_BYTES_MAX ? (size_t)st.st_size : PROMISE_ARCHIVE_BYTES_MAX;
    *bytes = malloc(most + 1);
    if (!*bytes)
        return -ENOMEM;
    for (*len_bytes = 0; *len_bytes < most;) {
        const ssize_t n = pread(fd, *bytes + *len_bytes, most - *len_bytes, (off_t)*len_bytes);
        if (n < 0)
            return -errno;
        if (!n)
            break;
        *len_bytes += (size_t)n;
    }
    return 0;
}

static int load(struct promise_archive *a, int fd, struct tv_error *err)
{
    uint8_t *bytes = NULL;
    size_t len_bytes = 0;
    int r = read_all(fd, &bytes, &len_bytes);
    if (r)
        tv_error_set(err, r, "%s", r == -EINVAL ? "is no file" : strerror(-r));
    else
        r = promise_archive_load(a, bytes, len_bytes, err);
    free(bytes);
    return r;
}

int verdict_file_open(const char *path, struct tv_error *err)
{
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    struct promise_archive *a = promise_archive_create();
    int r = a ? load(a, fd, err) : tv_error_set(err, -ENOMEM, "out of memory");
    promise_archive_destroy(a);
    if (!r)
        return fd;
    close(fd);
    return tv_error_prefix(err, "%s", path);
}

// ---- life ----

static void turn_off(struct verdict_file *f, const char *because)
{
    log_event(LOG_WARN, "store", "verdicts are not recorded", LOG_STR("because", because));
    f->is_off = true;
}

struct verdict_file *verdict_file_create(struct io_engine *io, int fd, struct tv_error *err)
{
    struct verdict_file *f = calloc(1, sizeof(*f));
    if (!f || !(f->archive = promise_archive_create())) {
        free(f);
        tv_error_set(err, -ENOMEM, "record of verdicts: out of memory");
        return NULL;
    }
    f->io = io;
    f->fd = fd;
    f->file = io_add_file(io, fd, err);
    if (f->file >= 0)
        return f;
    verdict_file_destroy(f);
    return NULL;
}

// A file system without locks keeps nobody out, and is good enough for whoever starts one store.
static bool lock(struct verdict_file *f)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (!fcntl(f->fd, F_OFD_SETLK, &whole) || errno == ENOLCK || errno == EOPNOTSUPP || errno == ENOSYS)
        return true;
    if (errno != EAGAIN && errno != EACCES)
        turn_off(f, strerror(errno));
    else if (++f->n_tries == WAIT_TOLD_TICKS)
        log_event(LOG_WARN, "store", "verdicts are not recorded yet: another store has the file");
    return false;
}

static void open_when_free(struct verdict_file *f, struct promise_watch *w, uint32_t n_slots)
{
    struct tv_error err = {0};
    if (f->is_off || !lock(f))
        return;
    if (load(f->archive, f->fd, &err)) {
        turn_off(f, err.text);
        return;
    }
    f->is_open = true;
    for (uint32_t slot = 0; slot < n_slots; slot++)
        if (promise_watch_name(w, slot))
            verdict_file_resume(f, w, slot);
}

// ---- writing ----

static void tell_failed(struct verdict_file *f, int result)
{
    if (!f->told_failed)
        log_event(LOG_WARN, "store", "verdicts cannot be written; it is tried on", LOG_STR("because", strerror(-result)));
    f->told_failed = true;
}

static bool write_some(struct verdict_file *f);

static void written(struct io_op *op, int result)
{
    struct verdict_file *f = (struct verdict_file *)((char *)op - offsetof(struct verdict_file, op));
    f->is_busy = false;
    if (result == (int)f->iov.iov_len) {
        f->told_failed = false;
        write_some(f); // what lies elsewhere in the file, until all is written
        return;
    }
    promise_archive_untake(f->archive, op->offset_bytes, f->iov.iov_len);
    tell_failed(f, result < 0 ? result : -ENOSPC);
}

static bool write_some(struct verdict_file *f)
{
    uint64_t offset_bytes;
    const size_t n = f->is_busy ? 0 : promise_archive_take(f->archive, f->piece, sizeof(f->piece), &offset_bytes);
    if (!n)
        return false;
    f->iov = (struct iovec){.iov_base = f->piece, .iov_len = n};
    f->op = (struct io_op){.kind = IO_WRITE,
                           .file = f->file,
                           .offset_bytes = offset_bytes,
                           .len_bytes = n,
                           .iov = &f->iov,
                           .n_iov = 1,
                           .done = written};
    f->is_busy = true;
    io_start(f->io, &f->op);
    io_submit(f->io);
    return true;
}

void verdict_file_destroy(struct verdict_file *f)
{
    if (!f)
        return;
    do
        while (f->is_busy)
            io_wait(f->io);
    while (!f->told_failed && write_some(f));
    if (f->file >= 0)
        io_remove_file(f->io, f->file);
    promise_archive_destroy(f->archive);
    free(f);
}

// ---- disks ----

void verdict_file_resume(struct verdict_file *f, struct promise_watch *w, uint32_t slot)
{
    if (!f || !f->is_open)
        return;
    const struct promise_moment m = now();
    promise_archive_resume(f->archive, w, slot, &m);
}

static void save(struct verdict_file *f, struct promise_watch *w, uint32_t slot)
{
    const struct promise_moment m = now();
    const int r = promise_archive_save(f->archive, w, slot, &m);
    if (r && !f->told_full)
        log_event(LOG_WARN, "store", "not all verdicts are recorded", LOG_STR("disk", promise_watch_name(w, slot)),
                  LOG_STR("because", r == -ENOSPC ? "the file has as many promises as it may have" : strerror(-r)));
    f->told_full |= r != 0;
}

void verdict_file_save(struct verdict_file *f, struct promise_watch *w, uint32_t slot)
{
    if (!f || !f->is_open)
        return;
    save(f, w, slot);
    write_some(f);
}

void verdict_file_tick(struct verdict_file *f, struct promise_watch *w, uint32_t n_slots)
{
    if (!f || f->is_off)
        return;
    if (!f->is_open)
        open_when_free(f, w, n_slots);
    if (!f->is_open)
        return;
    f->turn = (f->turn + 1) % VERDICT_FILE_TURNS;
    for (uint32_t slot = f->turn; slot < n_slots; slot += VERDICT_FILE_TURNS)
        if (promise_watch_name(w, slot))
            save(f, w, slot);
    write_some(f);
}
