// Images: see image.h.
#include "store/volume/image.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/volume/holder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_SIZE_MAX 4096u

int image_open(const char *path, bool read_only, struct tv_error *err)
{
    // Not O_DIRECT yet: where it is missing, image_init() does without.
    int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        return fd;
    if (errno == EACCES || errno == EPERM || errno == EROFS)
        return tv_error_set(err, -errno, "%s: %s; give this user the right to read%s it", path, strerror(errno),
                            read_only ? "" : " and write");
    return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
}

static int try_lock(int fd, bool read_only)
{
    struct flock lock = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET}; // l_len 0: to the end, wherever that is
    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

// Looking for the holder takes a walk through /proc, so ever less often.
#define LOCK_PAUSE_MIN_NS 1000000l
#define LOCK_PAUSE_TELLS_NS (LOCK_PAUSE_MIN_NS * 64) // once, after an eighth of a second
#define LOCK_PAUSE_MAX_NS (LOCK_PAUSE_MIN_NS * 128)

int image_lock(int fd, bool read_only, const char *name, unsigned wait_ms, struct tv_error *err)
{
    uint64_t deadline_ns = clock_now_ns() + wait_ms * NS_PER_MS;
    for (long pause_ns = LOCK_PAUSE_MIN_NS;; pause_ns *= pause_ns < LOCK_PAUSE_MAX_NS ? 2 : 1) {
        int r = try_lock(fd, read_only);
        if (!r)
            return 0;
        if (r == -ENOLCK || r == -EOPNOTSUPP || r == -ENOSYS) {
            log_event(LOG_WARN, "store", "file system has no locks: nothing keeps others from the image", LOG_STR("image", name));
            return 0;
        }
        if (r != -EAGAIN && r != -EACCES)
            return tv_error_set(err, r, "%s: cannot be locked: %s", name, strerror(-r));
        struct holder holder;
        if (holder_find(fd, &holder))
            return tv_error_set(err, -EBUSY, "%s: in use by process %d (%s); stop it first, or open the image read-only in both",
                                name, (int)holder.pid, holder.command);
        if (clock_now_ns() >= deadline_ns)
            return tv_error_set(
                err, -EAGAIN,
                "%s: locked by a process that cannot be seen from here, or by the last writes of a dead one; try again later",
                name);
        // Nobody alive has it: I/O of a store that was killed is still landing, or the kernel has not got to closing its files yet.
        nanosleep(&(struct timespec){.tv_nsec = pause_ns}, NULL);
        if (pause_ns == LOCK_PAUSE_TELLS_NS)
            log_event(LOG_INFO, "store", "image still in use by a dead process, waiting", LOG_STR("image", name));
    }
}

static int read_size(const struct image *image, uint64_t *size_bytes)
{
    if (image->is_block)
        return ioctl(image->fd, BLKGETSIZE64, size_bytes) < 0 ? -errno : 0;
    struct stat st;
    if (fstat(image->fd, &st) < 0)
        return -errno;
    *size_bytes = (uint64_t)st.st_size;
    return 0;
}

static void set_usable_size(struct image *image, const char *name, uint64_t size_bytes)
{
    image->size_bytes = size_bytes & ~(uint64_t)(image->block_size_bytes - 1);
    if (image->size_bytes != size_bytes)
        log_event(LOG_WARN, "store", "image is no multiple of its block size; the rest is not used", LOG_STR("image", name),
                  LOG_U64("size_bytes", size_bytes), LOG_U64("block_size", image->block_size_bytes));
}

// What direct I/O wants of buffers and offsets: the kernel's own word (statx, since 6.1), else the device's sector, else 512.
static void probe_alignment(struct image *image)
{
    image->mem_align_bytes = image->offset_align_bytes = image->physical_bytes = 512;
    int sector = 0;
    unsigned physical = 0;
    if (image->is_block) {
        if (!ioctl(image->fd, BLKSSZGET, &sector) && sector > 0)
            image->mem_align_bytes = image->offset_align_bytes = (uint32_t)sector;
        if (!ioctl(image->fd, BLKPBSZGET, &physical) && physical >= 512 && physical <= 1u << 20)
            image->physical_bytes = physical;
    } else {
        struct stat st;
        if (!fstat(image->fd, &st) && st.st_blksize >= 512 && st.st_blksize <= 65536 && !(st.st_blksize & (st.st_blksize - 1)))
            image->physical_bytes = (uint32_t)st.st_blksize;
    }
#ifdef STATX_DIOALIGN
    struct statx sx;
    if (!statx(image->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) && (sx.stx_mask & STATX_DIOALIGN) && sx.stx_dio_offset_align) {
        image->mem_align_bytes = sx.stx_dio_mem_align;
        image->offset_align_bytes = sx.stx_dio_offset_align;
    }
#endif
}

static int set_direct(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    flags = on ? flags | O_DIRECT : flags & ~O_DIRECT;
    return fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ? -errno : 0;
}

static void choose_io(struct image *image, const char *name, uint32_t block_size_bytes)
{
    probe_alignment(image);
    const char *why = NULL;
    if (block_size_bytes && image->offset_align_bytes > block_size_bytes)
        why = "its device's blocks are larger than the disk's";
    else if (image->offset_align_bytes > BLOCK_SIZE_MAX)
        why = "its device's blocks are larger than 4096 bytes";
    else if (set_direct(image->fd, true))
        why = "its file system has no direct I/O";
    image->direct = !why;
    if (why) {
        set_direct(image->fd, false);
        image->mem_align_bytes = image->offset_align_bytes = 1;
        log_event(LOG_WARN, "store", "image goes through the page cache", LOG_STR("image", name), LOG_STR("because", why));
    }
    image->block_size_bytes = block_size_bytes ? block_size_bytes : image->offset_align_bytes;
    if (image->block_size_bytes < 512)
        image->block_size_bytes = 512;
    if (image->physical_bytes < image->block_size_bytes)
        image->physical_bytes = image->block_size_bytes;
}

// A hole beyond the end changes nothing and tells whether holes can be made. A block device tells when it is asked.
static bool probe_discard(const struct image *image)
{
    if (image->read_only)
        return false;
    if (image->is_block)
        return true;
    struct stat st;
    if (fstat(image->fd, &st) < 0)
        return false;
    off_t beyond = (st.st_size + 4095) & ~(off_t)4095;
    return !fallocate(image->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, beyond, 4096);
}

static int check_file(struct image *image, const char *name, struct tv_error *err)
{
    struct stat st;
    if (fstat(image->fd, &st) < 0)
        return tv_error_set(err, -errno, "%s: %s", name, strerror(errno));
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return tv_error_set(err, -EINVAL, "%s: neither a file nor a block device", name);
    image->is_block = S_ISBLK(st.st_mode);
    int flags = fcntl(image->fd, F_GETFL);
    if (flags < 0)
        return tv_error_set(err, -errno, "%s: %s", name, strerror(errno));
    if (!image->read_only && (flags & O_ACCMODE) != O_RDWR)
        return tv_error_set(err, -EINVAL, "%s: opened without the right to write; open it for both, or make the disk read-only",
                            name);
    return 0;
}

int image_init(struct image *image, int fd, const char *name, const struct image_options *options, struct tv_error *err)
{
    *image = (struct image){.fd = fd, .read_only = options->read_only, .is_locked = !options->unlocked};
    uint32_t block = options->block_size_bytes;
    int r = check_file(image, name, err);
    if (!r && block && (block < 512 || block > BLOCK_SIZE_MAX || (block & (block - 1))))
        r = tv_error_set(err, -EINVAL, "%s: block size %u: must be 512, 1024, 2048 or 4096", name, block);
    if (!r && !options->unlocked)
        r = image_lock(fd, image->read_only, name, 0, err);
    if (r) {
        image_fini(image);
        return r;
    }
    choose_io(image, name, block);
    image->can_discard = probe_discard(image);
    uint64_t size = 0;
    r = read_size(image, &size);
    if (r) {
        tv_error_set(err, r, "%s: cannot read its size: %s", name, strerror(-r));
        image_fini(image);
        return r;
    }
    set_usable_size(image, name, size);
    if (!image->size_bytes) {
        image_fini(image);
        return tv_error_set(err, -EINVAL, "%s: is empty; make it as large as the disk, say by truncate -s 10G", name);
    }
    return 0;
}

void image_fini(struct image *image)
{
    if (image->fd >= 0)
        close(image->fd);
    image->fd = -1;
}

// Whoever holds a lock can make it a reader's at once, and nobody comes between.
void image_freeze(struct image *image)
{
    struct flock whole = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    if (image->is_locked && fcntl(image->fd, F_OFD_SETLK, &whole) < 0)
        log_event(LOG_WARN, "store", "an image stays locked as by a writer", LOG_STR("error", strerror(errno)));
    image->read_only = true;
    image->can_discard = false;
}

int image_resize(struct image *image, const char *name, uint64_t size_bytes, struct tv_error *err)
{
    if (!image->is_block) {
        if (image->read_only)
            return tv_error_set(err, -EROFS, "%s: is read-only and cannot be resized", name);
        if (!size_bytes || size_bytes % image->block_size_bytes || size_bytes > INT64_MAX)
            return tv_error_set(err, -EINVAL, "%s: size %llu: must be a multiple of %u bytes and not 0", name,
                                (unsigned long long)size_bytes, image->block_size_bytes);
        if (ftruncate(image->fd, (off_t)size_bytes) < 0)
            return tv_error_set(err, -errno, "%s: cannot be resized to %llu bytes: %s", name, (unsigned long long)size_bytes,
                                strerror(errno));
    }
    uint64_t size = 0;
    int r = read_size(image, &size);
    if (r)
        return tv_error_set(err, r, "%s: cannot read its size: %s", name, strerror(-r));
    set_usable_size(image, name, size);
    return 0;
}
