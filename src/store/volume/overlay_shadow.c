// Maps of overlays that outlive the store: see overlay_shadow.h.
#include "store/volume/overlay_shadow.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_BYTES 4096u
#define BOOT_ID_BYTES 36u // proc_sys_kernel(5), random/boot_id: a UUID

static const char magic[8] = "TVSHADOW";

struct shadow_head {
    char magic[8];
    uint64_t n_words;
    _Atomic uint64_t session; // stored last; 0: the rest means nothing
};

// ---- the folder ----

static int make_folder(const char *path, struct tv_error *err)
{
    struct stat st;
    if (mkdir(path, 0700) && errno != EEXIST)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    if (!fstat(fd, &st) && st.st_uid == geteuid() && !(st.st_mode & 022))
        return fd;
    close(fd);
    return tv_error_set(err, -EPERM, "%s: must be the user's own, and nobody else may write to it", path);
}

int overlay_shadow_open_folder(struct tv_error *err)
{
    char path[PATH_MAX];
    const char *runtime = geteuid() ? getenv("XDG_RUNTIME_DIR") : "/run";
    if (runtime && runtime[0] == '/')
        snprintf(path, sizeof(path), "%s/trivet-overlays", runtime);
    else
        snprintf(path, sizeof(path), "/dev/shm/trivet-overlays-%u", (unsigned)geteuid());
    return make_folder(path, err);
}

static int read_boot_id(char id[static BOOT_ID_BYTES + 1])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    const ssize_t n = read(fd, id, BOOT_ID_BYTES);
    close(fd);
    id[BOOT_ID_BYTES] = 0;
    return n == BOOT_ID_BYTES ? 0 : -EIO;
}

// ---- a file ----

static struct shadow_head *head_of(const struct overlay_shadow *shadow)
{
    return shadow->memory;
}

uint64_t *overlay_shadow_words(const struct overlay_shadow *shadow)
{
    return (uint64_t *)(void *)((uint8_t *)shadow->memory + HEAD_BYTES);
}

// Memory that is not to be had would end the store when it is written to: it is taken before.
int overlay_shadow_grow(struct overlay_shadow *shadow, uint64_t n_used)
{
    return shadow->fd < 0 ? 0 : -posix_fallocate(shadow->fd, 0, (off_t)(HEAD_BYTES + n_used * sizeof(uint64_t)));
}

static bool is_of(const struct overlay_shadow *shadow, const struct overlay_shadow_config *config)
{
    const struct shadow_head *head = head_of(shadow);
    return config->session && !memcmp(head->magic, magic, sizeof(magic)) && head->n_words == config->n_words &&
           head->session == config->session;
}

static int map_file(struct overlay_shadow *shadow, uint64_t n_used)
{
    int r = ftruncate(shadow->fd, (off_t)shadow->bytes) ? -errno : overlay_shadow_grow(shadow, n_used);
    if (r)
        return r;
    void *memory = mmap(NULL, shadow->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shadow->fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    shadow->memory = memory;
    return 0;
}

static void unmap(struct overlay_shadow *shadow)
{
    if (shadow->memory)
        munmap(shadow->memory, shadow->bytes);
    shadow->memory = NULL;
}

static int empty_file(struct overlay_shadow *shadow, uint64_t n_used)
{
    unmap(shadow);
    return ftruncate(shadow->fd, 0) ? -errno : map_file(shadow, n_used);
}

static int open_file(struct overlay_shadow *shadow, const struct overlay_shadow_config *config, bool *kept)
{
    struct stat st;
    const int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC | (config->read_only ? 0 : O_CREAT);
    shadow->fd = openat(config->folder_fd, shadow->name, flags, 0600);
    if (shadow->fd < 0)
        return config->read_only && errno == ENOENT ? 0 : -errno;
    if (fstat(shadow->fd, &st))
        return -errno;
    const bool is_whole = (size_t)st.st_size == shadow->bytes;
    int r = is_whole ? map_file(shadow, config->n_used) : 0;
    *kept = is_whole && !r && is_of(shadow, config);
    if (r || *kept)
        return r;
    if (!config->read_only)
        return empty_file(shadow, config->n_used);
    overlay_shadow_close(shadow, true);
    return 0;
}

int overlay_shadow_open(struct overlay_shadow *shadow, const struct overlay_shadow_config *config, bool *kept, struct tv_error *err)
{
    char boot_id[BOOT_ID_BYTES + 1];
    *shadow =
        (struct overlay_shadow){.folder_fd = config->folder_fd, .fd = -1, .bytes = HEAD_BYTES + config->n_words * sizeof(uint64_t)};
    *kept = false;
    int r = read_boot_id(boot_id);
    if (!r) {
        snprintf(shadow->name, sizeof(shadow->name), "%s-%s", boot_id, config->name);
        r = open_file(shadow, config, kept);
    }
    if (!r)
        return 0;
    overlay_shadow_close(shadow, true);
    return tv_error_set(err, r, "memory for its map, which a killed store leaves to the next one: %s", strerror(-r));
}

void overlay_shadow_begin(struct overlay_shadow *shadow, uint64_t session)
{
    struct shadow_head *head = head_of(shadow);
    memcpy(head->magic, magic, sizeof(magic));
    head->n_words = (shadow->bytes - HEAD_BYTES) / sizeof(uint64_t);
    head->session = session;
}

void overlay_shadow_close(struct overlay_shadow *shadow, bool keep)
{
    if (shadow->fd < 0)
        return;
    if (!keep)
        unlinkat(shadow->folder_fd, shadow->name, 0);
    unmap(shadow);
    close(shadow->fd);
    shadow->fd = -1;
}
