// Reading a kernel file by its descriptor: see kernel.h. pread(2) and no mapping, so that a file which shrinks under us is an
// error and no SIGBUS.
#include "machine/loader/kernel.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

int kernel_source_open(struct kernel_source *source, int fd, const char *name, struct tv_error *err)
{
    struct stat st;
    *source = (struct kernel_source){.name = name, .fd = fd};
    if (fstat(fd, &st) < 0)
        return tv_error_set(err, -errno, "%s: descriptor %d: %s", name, fd, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return tv_error_set(err, -EINVAL, "%s: is no regular file; give the path of a file", name);
    if (st.st_size <= 0)
        return tv_error_set(err, -EINVAL, "%s: is empty", name);
    source->size_bytes = (uint64_t)st.st_size;
    return 0;
}

void kernel_source_close(struct kernel_source *source)
{
    if (source->owned)
        close(source->fd);
    source->owned = false;
}

int kernel_source_read(const struct kernel_source *source, uint64_t offset, void *buf, uint64_t len_bytes, struct tv_error *err)
{
    uint8_t *p = buf;
    if (offset > source->size_bytes || len_bytes > source->size_bytes - offset)
        return tv_error_set(err, -EINVAL, "%s: is cut short: %" PRIu64 " bytes where %" PRIu64 " are needed; copy it again",
                            source->name, source->size_bytes, offset + len_bytes);
    while (len_bytes > 0) {
        size_t want = len_bytes < (1u << 30) ? (size_t)len_bytes : 1u << 30;
        ssize_t n = pread(source->fd, p, want, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return tv_error_set(err, -errno, "%s: reading: %s", source->name, strerror(errno));
        if (n == 0)
            return tv_error_set(err, -EINVAL, "%s: became shorter while it was read", source->name);
        p += n;
        offset += (uint64_t)n;
        len_bytes -= (uint64_t)n;
    }
    return 0;
}
