// What is behind a disk: see disk_image.h.
#include "control/spec/disk_image.h"

#include "control/cleanup.h"
#include "control/files.h"
#include "control/image/image.h"
#include "control/paths.h"
#include "control/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int explain_open(const struct disk_spec *disk, int code, struct tv_error *err)
{
    if (code == ENOENT)
        return tv_error_set(err, -code, "disk '%s': %s: there is no such file; give a size to have it made", disk->name,
                            disk->path);
    if (code == EACCES || code == EROFS)
        return tv_error_set(err, -code, "disk '%s': %s: no permission to %s it", disk->name, disk->path,
                            disk->read_only ? "read" : "write");
    return tv_error_set(err, -code, "disk '%s': %s: %s", disk->name, disk->path, strerror(code));
}

// By a temporary name, so that a copy that was cut short never stands for the disk.
static int make_from_image(const struct disk_spec *disk, struct tv_error *err)
{
    struct image_paths image;
    char temp[PATH_MAX];
    int rc = image_find(&image, disk->image, err);
    if (!rc)
        rc = path_format(temp, err, "%s.new", disk->path);
    if (rc)
        return tv_error_prefix(err, "disk '%s'", disk->name);
    unlink(temp);
    rc = file_copy(image.disk, temp, 0600, err);
    if (!rc && rename(temp, disk->path) < 0)
        rc = tv_error_set(err, -errno, "%s: %s", disk->path, strerror(errno));
    if (rc)
        unlink(temp);
    return rc ? tv_error_prefix(err, "disk '%s'", disk->name) : 0;
}

static int make(const struct disk_spec *disk, struct tv_error *err)
{
    if (disk->image)
        return make_from_image(disk, err);
    int rc = file_make_sparse(disk->path, disk->size_bytes, 0600, err);
    return rc ? tv_error_prefix(err, "disk '%s'", disk->name) : 0;
}

// Grows a file that is smaller than stated; one that is larger is left: nobody's data is cut off by a number in a file. The file
// system of a disk from an image follows.
static int grow(const struct disk_spec *disk, int fd, const struct stat *st, struct tv_error *err)
{
    if (!S_ISREG(st->st_mode) || disk->read_only || (uint64_t)st->st_size >= disk->size_bytes)
        return 0;
    if (ftruncate(fd, (off_t)disk->size_bytes) < 0)
        return tv_error_set(err, -errno, "disk '%s': %s: cannot be grown: %s", disk->name, disk->path, strerror(errno));
    if (!disk->image)
        return 0;
    const char *const argv[] = {"resize2fs", "-f", disk->path, NULL};
    return tool_run(&(struct tool){.argv = argv, .package = "e2fsprogs"}, err);
}

static int open_image(const struct disk_spec *disk, struct tv_error *err)
{
    int flags = (disk->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK; // a FIFO must not hold us up
    int fd = open(disk->path, flags);
    if (fd < 0 && errno == ENOENT && (disk->size_bytes || disk->image) && !(disk->read_only && !disk->image)) {
        int rc = make(disk, err);
        if (rc)
            return rc;
        fd = open(disk->path, flags);
    }
    if (fd < 0)
        return explain_open(disk, errno, err);
    struct stat st;
    int rc = fstat(fd, &st) < 0 ? -errno : 0;
    if (!rc && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        rc = tv_error_set(err, -EINVAL, "disk '%s': %s: is neither a file nor a block device", disk->name, disk->path);
    else if (!rc && S_ISREG(st.st_mode) && st.st_size == 0 && !disk->size_bytes)
        rc = tv_error_set(err, -EINVAL, "disk '%s': %s: is empty; give it a size", disk->name, disk->path);
    else if (!rc)
        rc = grow(disk, fd, &st, err);
    if (rc) {
        close(fd);
        return rc;
    }
    return fd;
}

static int open_volume(const struct disk_spec *disk, bool without_keys, json_t **volume, struct store_fds *fds,
                       struct tv_error *err)
{
    const struct store_open_options options = {.read_only = disk->read_only, .without_keys = without_keys};
    if (access(disk->path, F_OK) < 0 && errno == ENOENT)
        return tv_error_set(err, -ENOENT, "disk '%s': %s: there is no such file; `trivet disk create` makes one", disk->name,
                            disk->path);
    int rc = store_load_volume(disk->path, volume, err);
    if (!rc)
        rc = store_open_volume(*volume, &options, fds, err);
    return rc ? tv_error_prefix(err, "disk '%s'", disk->name) : 0;
}

int disk_image_open(const struct disk_spec *disk, json_t **volume, struct store_fds *fds, struct tv_error *err)
{
    *volume = NULL;
    if (store_is_volume_file(disk->path))
        return open_volume(disk, false, volume, fds, err);
    int fd = open_image(disk, err);
    if (fd < 0)
        return fd;
    *volume = json_pack("{s:s, s:i}", "type", "file", "fd", (int)fds->n);
    fds->fd[fds->n++] = fd;
    return 0;
}

// Where a file would be made: the folder has to be there and writable.
static int check_folder(const struct disk_spec *disk, struct tv_error *err)
{
    char dir[PATH_MAX];
    int rc = path_format(dir, err, "%s", disk->path);
    if (rc)
        return rc;
    char *slash = strrchr(dir, '/');
    slash[slash == dir] = 0;
    if (access(dir, W_OK | X_OK) < 0)
        return tv_error_set(err, -errno, "disk '%s': %s: the file cannot be made: folder %s: %s; choose another path", disk->name,
                            disk->path, dir, strerror(errno));
    return 0;
}

static int check_volume(const struct disk_spec *disk, struct tv_error *err)
{
    cleanup_json json_t *volume = NULL;
    struct store_fds fds = {0};
    int rc = open_volume(disk, true, &volume, &fds, err);
    store_close_fds(&fds);
    return rc;
}

int disk_image_check(const struct disk_spec *disk, struct tv_error *err)
{
    struct stat st;
    if (store_is_volume_file(disk->path))
        return check_volume(disk, err);
    if (stat(disk->path, &st) < 0) {
        if (errno != ENOENT || (!disk->size_bytes && !disk->image))
            return explain_open(disk, errno, err);
        return check_folder(disk, err);
    }
    if (access(disk->path, disk->read_only ? R_OK : R_OK | W_OK) < 0)
        return explain_open(disk, errno, err);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return tv_error_set(err, -EINVAL, "disk '%s': %s: is neither a file nor a block device", disk->name, disk->path);
    if (S_ISREG(st.st_mode) && st.st_size == 0 && !disk->size_bytes)
        return tv_error_set(err, -EINVAL, "disk '%s': %s: is empty; give it a size", disk->name, disk->path);
    return 0;
}
