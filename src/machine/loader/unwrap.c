// Wrapped kernels: gzip (RFC 1952) and EFI zboot (linux/drivers/firmware/efi/libstub/zboot-header.S: a PE file whose DOS header
// names a compressed payload). Both are unpacked into a memfd, which then stands for the file; it goes as soon as the kernel is in
// guest memory. What a file may grow to is bounded.
#include "machine/loader/kernel.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define CHUNK_BYTES (128u << 10)
#define UNWRAP_DEPTH_MAX 3

struct unpack {
    const struct kernel_source *source;
    uint64_t offset, left_bytes; // of the packed data
    int out_fd;
    uint64_t written_bytes;
    uint8_t in[CHUNK_BYTES], out[CHUNK_BYTES];
};

// Fills u->in; *n is 0 at the end of the packed data.
static int unpack_fill(struct unpack *u, size_t *n, struct tv_error *err)
{
    *n = u->left_bytes < CHUNK_BYTES ? (size_t)u->left_bytes : CHUNK_BYTES;
    int rc = kernel_source_read(u->source, u->offset, u->in, *n, err);
    u->offset += *n;
    u->left_bytes -= *n;
    return rc;
}

static int unpack_emit(struct unpack *u, size_t len_bytes, struct tv_error *err)
{
    const uint8_t *p = u->out;
    u->written_bytes += len_bytes;
    if (u->written_bytes > KERNEL_UNPACKED_MAX)
        return tv_error_set(err, -EFBIG, "%s: unpacks to more than %llu MiB; that is no kernel", u->source->name,
                            KERNEL_UNPACKED_MAX >> 20);
    while (len_bytes > 0) {
        ssize_t n = write(u->out_fd, p, len_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return tv_error_set(err, -errno, "%s: unpacking: %s", u->source->name, strerror(errno));
        p += n;
        len_bytes -= (size_t)n;
    }
    return 0;
}

static int unpack_damaged(const struct unpack *u, const char *format, struct tv_error *err)
{
    return tv_error_set(err, -EINVAL, "%s: its %s data are damaged or cut short; copy it again", u->source->name, format);
}

static int unpack_gzip_run(struct unpack *u, z_stream *z, struct tv_error *err)
{
    int status = Z_OK;
    while (status != Z_STREAM_END) {
        size_t n;
        if (z->avail_in == 0) {
            int rc = unpack_fill(u, &n, err);
            if (rc < 0)
                return rc;
            if (n == 0)
                return unpack_damaged(u, "gzip", err);
            z->next_in = u->in;
            z->avail_in = (uInt)n;
        }
        z->next_out = u->out;
        z->avail_out = CHUNK_BYTES;
        status = inflate(z, Z_NO_FLUSH);
        if (status == Z_MEM_ERROR)
            return tv_error_set(err, -ENOMEM, "%s: no memory to unpack it", u->source->name);
        if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
            return unpack_damaged(u, "gzip", err);
        int rc = unpack_emit(u, CHUNK_BYTES - z->avail_out, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int unpack_gzip(struct unpack *u, struct tv_error *err)
{
    z_stream z = {0};
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) // 16: a gzip header and its checksum
        return tv_error_set(err, -ENOMEM, "%s: no memory to unpack it", u->source->name);
    int rc = unpack_gzip_run(u, &z, err);
    inflateEnd(&z);
    return rc;
}

static int unpack_zstd_run(struct unpack *u, ZSTD_DStream *z, struct tv_error *err)
{
    size_t pending = 1; // bytes that the frame still needs; 0 at its end
    ZSTD_inBuffer in = {.src = u->in};
    while (pending != 0) {
        if (in.pos == in.size) {
            int rc = unpack_fill(u, &in.size, err);
            in.pos = 0;
            if (rc < 0)
                return rc;
            if (in.size == 0)
                return unpack_damaged(u, "zstd", err);
        }
        ZSTD_outBuffer out = {.dst = u->out, .size = CHUNK_BYTES};
        do {
            out.pos = 0;
            pending = ZSTD_decompressStream(z, &out, &in);
            if (ZSTD_isError(pending))
                return unpack_damaged(u, "zstd", err);
            int rc = unpack_emit(u, out.pos, err);
            if (rc < 0)
                return rc;
        } while (pending != 0 && out.pos == out.size);
    }
    return 0;
}

static int unpack_zstd(struct unpack *u, struct tv_error *err)
{
    ZSTD_DStream *z = ZSTD_createDStream();
    if (!z)
        return tv_error_set(err, -ENOMEM, "%s: no memory to unpack it", u->source->name);
    int rc = unpack_zstd_run(u, z, err);
    ZSTD_freeDStream(z);
    return rc;
}

typedef int unpack_fn(struct unpack *u, struct tv_error *err);

// Unpacks [offset, offset + len) and puts the result in the source's place.
static int unwrap_with(struct kernel_source *source, uint64_t offset, uint64_t len_bytes, unpack_fn *fn, struct tv_error *err)
{
    struct unpack *u = malloc(sizeof(*u));
    if (!u)
        return tv_error_set(err, -ENOMEM, "%s: no memory to unpack it", source->name);
    u->source = source;
    u->offset = offset;
    u->left_bytes = len_bytes;
    u->written_bytes = 0;
    u->out_fd = memfd_create("trivet-kernel", MFD_CLOEXEC);
    int rc = u->out_fd < 0 ? tv_error_set(err, -errno, "%s: unpacking: %s", source->name, strerror(errno)) : fn(u, err);
    if (rc == 0 && u->written_bytes == 0)
        rc = tv_error_set(err, -EINVAL, "%s: there is nothing in its compressed data", source->name);
    if (rc == 0) {
        kernel_source_close(source);
        source->fd = u->out_fd;
        source->owned = true;
        source->size_bytes = u->written_bytes;
        rc = 1;
    } else if (u->out_fd >= 0) {
        close(u->out_fd);
    }
    free(u);
    return rc;
}

static int unwrap_zboot(struct kernel_source *source, const uint8_t header[static 64], struct tv_error *err)
{
    uint64_t offset = kernel_le32(header + 8), len_bytes = kernel_le32(header + 12);
    char type[33] = {0}; // a string from byte 24 up to the PE magic at 56
    memcpy(type, header + 24, 32);
    if (offset > source->size_bytes || len_bytes > source->size_bytes - offset)
        return tv_error_set(err, -EINVAL,
                            "%s: is cut short: its payload ends at %" PRIu64 ", the file at %" PRIu64 "; copy it again",
                            source->name, offset + len_bytes, source->size_bytes);
    if (strcmp(type, "gzip") == 0)
        return unwrap_with(source, offset, len_bytes, unpack_gzip, err);
    if (strncmp(type, "zstd", 4) == 0) // "zstd" and "zstd22"
        return unwrap_with(source, offset, len_bytes, unpack_zstd, err);
    return tv_error_set(err, -ENOEXEC, "%s: EFI zboot image compressed by '%.32s'; only gzip and zstd are understood", source->name,
                        type);
}

// 1: there was one, and what was inside is in its place.
static int unwrap_once(struct kernel_source *source, struct tv_error *err)
{
    uint8_t header[64];
    if (source->size_bytes < sizeof(header))
        return 0;
    int rc = kernel_source_read(source, 0, header, sizeof(header), err);
    if (rc < 0)
        return rc;
    if (header[0] == 0x1f && header[1] == 0x8b)
        return unwrap_with(source, 0, source->size_bytes, unpack_gzip, err);
    if (memcmp(header, "MZ", 2) == 0 && memcmp(header + 4, "zimg", 4) == 0)
        return unwrap_zboot(source, header, err);
    return 0;
}

int kernel_unwrap(struct kernel_source *source, struct tv_error *err)
{
    int rc = 1;
    for (unsigned depth = 0; rc == 1; depth++) {
        if (depth > UNWRAP_DEPTH_MAX)
            return tv_error_set(err, -EINVAL, "%s: is packed more than %d times; unpack it first", source->name, UNWRAP_DEPTH_MAX);
        rc = unwrap_once(source, err);
    }
    return rc;
}
