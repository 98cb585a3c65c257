// Volume files and what lies beside them: see volume_file.h.
#include "control/spec/volume_file.h"

#include "control/cleanup.h"
#include "control/files.h"
#include "control/paths.h"
#include "store/open.h"
#include "store/overlay_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define OVERLAYS_MAX 10000 // of one disk, by number

static int stem_len(const char *path)
{
    return (int)(strlen(path) - strlen(STORE_VOLUME_SUFFIX));
}

int volume_file_snapshot(const char *path, const char *name, char snapshot[static PATH_MAX], struct tv_error *err)
{
    return path_format(snapshot, err, "%.*s@%s" STORE_VOLUME_SUFFIX, stem_len(path), path, name);
}

const char *volume_file_snapshot_name(const char *path, const char *file, int *len)
{
    const char *slash = strrchr(path, '/'), *own = slash ? slash + 1 : path;
    const size_t stem = (size_t)stem_len(own);
    if (strncmp(file, own, stem) != 0 || file[stem] != '@' || !store_is_volume_file(file))
        return NULL;
    *len = stem_len(file + stem + 1);
    return *len > 0 ? file + stem + 1 : NULL;
}

// The name may have become that of another file meanwhile.
static bool is_still(int fd, const char *path)
{
    struct stat held, there;
    return fstat(fd, &held) == 0 && stat(path, &there) == 0 && held.st_ino == there.st_ino && held.st_dev == there.st_dev;
}

int volume_file_lock(const char *path, struct tv_error *err)
{
    for (;;) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_still(fd, path))
            return fd;
        const int why = is_still(fd, path) ? errno : 0;
        close(fd);
        if (why)
            return tv_error_set(err, -EBUSY, "%s: another command is changing it just now", path);
    }
}

int volume_file_read(const char *path, json_t **volume, struct tv_error *err)
{
    json_error_t where;
    *volume = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (!*volume)
        return tv_error_set(err, -EINVAL, "%s:%d: %s", path, where.line, where.text);
    return 0;
}

static int sync_folder(const char *path)
{
    char folder[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    if (slash)
        snprintf(folder, sizeof(folder), "%.*s/", (int)(slash - path), path);
    cleanup_close int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int write_synced(int fd, const char *text)
{
    if (dprintf(fd, "%s\n", text) < 0)
        return -errno;
    return fsync(fd) < 0 ? -errno : 0;
}

static int put(const char *path, const json_t *volume, bool is_new, struct tv_error *err)
{
    char temp[PATH_MAX];
    cleanup_free char *text = json_dumps(volume, JSON_INDENT(2));
    if (!text)
        return tv_error_set(err, -EINVAL, "%s: names must be UTF-8", path);
    int rc = path_format(temp, err, "%s.XXXXXX", path);
    if (rc)
        return rc;
    cleanup_close int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", temp, strerror(errno));
    rc = write_synced(fd, text);
    if (!rc)
        rc = is_new ? file_name_new(temp, path) : rename(temp, path) < 0 ? -errno : 0;
    if (rc)
        unlink(temp);
    else
        rc = sync_folder(path);
    return rc ? tv_error_set(err, rc, "%s: %s", path, strerror(-rc)) : 0;
}

int volume_file_replace(const char *path, const json_t *volume, struct tv_error *err)
{
    return put(path, volume, false, err);
}

int volume_file_make(const char *path, const json_t *volume, struct tv_error *err)
{
    return put(path, volume, true, err);
}

int volume_file_make_overlay(const char *path, uint64_t size_bytes, char overlay[static PATH_MAX], struct tv_error *err)
{
    int fd = -1;
    for (unsigned i = 0; i < OVERLAYS_MAX && fd < 0; i++) {
        char number[16] = "";
        if (i)
            snprintf(number, sizeof(number), ".%u", i);
        int rc = path_format(overlay, err, "%.*s%s.overlay", stem_len(path), path, number);
        if (rc)
            return rc;
        fd = open(overlay, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: cannot be made: %s", overlay, strerror(errno));
    int rc = overlay_format(fd, size_bytes, err);
    if (!rc)
        return fd;
    unlink(overlay);
    close(fd);
    return tv_error_prefix(err, "%s", overlay);
}

static bool is_encrypted(const json_t *volume)
{
    const char *type = json_string_value(json_object_get(volume, "type"));
    return type && strcmp(type, "crypt") == 0;
}

json_t *volume_file_root(json_t *volume)
{
    return is_encrypted(volume) ? json_object_get(volume, "over") : volume;
}

// As `like` is encrypted; a LUKS2 image is its own header. Takes `over`.
static json_t *encrypted(const json_t *like, json_t *over)
{
    const json_t *image = json_object_get(json_object_get(like, "over"), "path");
    json_t *volume = json_copy((json_t *)like);
    json_object_del(volume, "taken_s");
    if (!json_object_get(volume, "header"))
        json_object_set(volume, "header", (json_t *)image);
    json_object_set_new(volume, "over", over);
    return volume;
}

static json_t *overlay_over(const char *data, json_t *base)
{
    return json_pack("{s:s, s:{s:s, s:s}, s:o}", "type", "overlay", "data", "type", "file", "path", data, "base", base);
}

json_t *volume_file_overlay(const char *data, const char *base, const json_t *volume)
{
    const char *type = is_encrypted(volume) ? "ciphertext" : "file";
    json_t *overlay = overlay_over(data, json_pack("{s:s, s:s}", "type", type, "path", base));
    return is_encrypted(volume) && overlay ? encrypted(volume, overlay) : overlay;
}

json_t *volume_file_overlay_of_nothing(const char *data, uint64_t size_bytes)
{
    return overlay_over(data, json_pack("{s:s, s:I}", "type", "null", "size_bytes", (json_int_t)size_bytes));
}
