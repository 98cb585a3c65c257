// A volume in memory: see ram.h.
#include "store/volume/ram.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct ram {
    struct volume volume;
    int fd;
    uint8_t *bytes;
};

static int zero(struct ram *ram, const struct volume_request *request)
{
    const bool punch = request->op == VOLUME_DISCARD || request->may_unmap;
    const int mode = punch ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0;
    if (punch)
        return fallocate(ram->fd, mode, (off_t)request->offset_bytes, (off_t)request->len_bytes) ? -errno : 0;
    memset(ram->bytes + request->offset_bytes, 0, request->len_bytes);
    return 0;
}

static int status(const struct ram *ram, struct volume_request *request)
{
    const off_t from = (off_t)request->offset_bytes, end = from + (off_t)request->len_bytes;
    off_t data = lseek(ram->fd, from, SEEK_DATA);
    if (data < 0)
        data = end; // nothing but a hole up to the end
    const bool hole = data > from;
    off_t next = hole ? data : lseek(ram->fd, from, SEEK_HOLE);
    if (next < 0)
        return -errno;
    next = next < end ? next : end;
    request->extent = (struct volume_extent){.len_bytes = (uint64_t)(next - from), .hole = hole, .zero = hole};
    return 0;
}

static int carry_out(struct ram *ram, struct volume_request *request)
{
    switch (request->op) {
    case VOLUME_READ:
        volume_data_write(request->data, ram->bytes + request->offset_bytes, request->len_bytes);
        return 0;
    case VOLUME_WRITE:
        volume_data_read(request->data, ram->bytes + request->offset_bytes, request->len_bytes);
        return 0;
    case VOLUME_FLUSH:
        return 0;
    case VOLUME_DISCARD:
    case VOLUME_ZERO:
        return zero(ram, request);
    case VOLUME_STATUS:
        return status(ram, request);
    case VOLUME_ABSORB:
        break;
    }
    return -EOPNOTSUPP;
}

static void ram_start(struct volume *volume, struct volume_request *request)
{
    volume_finish_later(volume->env, request, carry_out((struct ram *)volume, request));
}

static void ram_describe(const struct volume *volume, json_t *object)
{
    struct stat st;
    if (!fstat(((const struct ram *)volume)->fd, &st))
        json_object_set_new(object, "memory_bytes", json_integer((json_int_t)st.st_blocks * 512));
}

static void ram_destroy(struct volume *volume)
{
    struct ram *ram = (struct ram *)volume;
    if (ram->bytes)
        munmap(ram->bytes, volume->size_bytes);
    if (ram->fd >= 0)
        close(ram->fd);
    free(ram);
}

static const struct volume_ops ram_ops = {
    .kind = "ram",
    .start = ram_start,
    .describe = ram_describe,
    .destroy = ram_destroy,
};

static int map(struct ram *ram, uint64_t size_bytes, struct tv_error *err)
{
    ram->fd = memfd_create("disk", MFD_CLOEXEC);
    if (ram->fd < 0 || ftruncate(ram->fd, (off_t)size_bytes))
        return tv_error_set(err, -errno, "%llu bytes of memory: %s", (unsigned long long)size_bytes, strerror(errno));
    void *bytes = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ram->fd, 0);
    if (bytes == MAP_FAILED)
        return tv_error_set(err, -errno, "%llu bytes of memory: %s", (unsigned long long)size_bytes, strerror(errno));
    madvise(bytes, size_bytes, MADV_HUGEPAGE); // where the host has them for shared memory
    ram->bytes = bytes;
    ram->volume.size_bytes = size_bytes;
    return 0;
}

struct volume *ram_volume_create(struct volume_env *env, const struct ram_options *options, struct tv_error *err)
{
    struct ram *ram = calloc(1, sizeof(*ram));
    if (!ram) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    ram->volume = (struct volume){
        .ops = &ram_ops,
        .env = env,
        .block_bytes = options->block_bytes,
        .physical_bytes = 4096,
        .can_discard = true,
    };
    if (!map(ram, options->size_bytes, err))
        return &ram->volume;
    ram_destroy(&ram->volume);
    return NULL;
}

uint8_t *ram_volume_bytes(struct volume *volume)
{
    assert(volume->ops == &ram_ops);
    return ((struct ram *)volume)->bytes;
}
