// trivet disk snapshot, snapshots, revert, drop: what a disk was at some time. A snapshot is a volume file beside the disk's own,
// and the disk is an overlay over it from then on (volume_file.h says how they are named).
#include "control/cleanup.h"
#include "control/command/disk.h"
#include "control/command/disk_access.h"
#include "control/paths.h"
#include "control/spec/volume_file.h"
#include "control/tool.h"
#include "store/open.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

// A disk whose volume file is going to be changed, and a snapshot of it.
struct subject {
    struct disk_access disk;
    char snapshot[PATH_MAX];
    int lock_fd;
    json_t *volume; // as it is written
};

static int take_subject(const struct disk_command *c, struct subject *s, struct tv_error *err)
{
    *s = (struct subject){.disk = {.trivetd_fd = -1}, .lock_fd = -1};
    int rc = spec_name_is_good(c->words[1])
                 ? disk_find(c->words[0], &s->disk, err)
                 : tv_error_set(err, -EINVAL, "snapshot '%s': should be letters, digits, '-', '_' and '.'", c->words[1]);
    if (!rc && !store_is_volume_file(s->disk.path))
        rc = tv_error_set(
            err, -EINVAL,
            "%s: a raw disk has no snapshots; stop what uses it, `trivet disk create NEW.volume --over` it, and use that",
            s->disk.path);
    if (!rc)
        rc = volume_file_snapshot(s->disk.path, c->words[1], s->snapshot, err);
    if (!rc)
        rc = s->lock_fd = volume_file_lock(s->disk.path, err);
    return rc < 0 ? rc : volume_file_read(s->disk.path, &s->volume, err);
}

static void release_subject(struct subject *s)
{
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    json_decref(s->volume);
    disk_release(&s->disk);
}

static const char *name_of(const char *path)
{
    return strrchr(path, '/') + 1;
}

static const char *path_in(const json_t *volume, const char *key)
{
    return json_string_value(json_object_get(json_object_get(volume, key), "path"));
}

// The file that the disk's root overlay writes to; relative to the folder of the volume file.
static int data_path(const char *volume_path, json_t *disk, char path[static PATH_MAX], struct tv_error *err)
{
    const json_t *volume = volume_file_root(disk);
    const char *type = json_string_value(json_object_get(volume, "type")), *data = path_in(volume, "data");
    if (!type || strcmp(type, "overlay") != 0 || !data)
        return tv_error_set(err, -EOPNOTSUPP, "%s: is not an overlay that writes to a file", volume_path);
    return data[0] == '/' ? path_format(path, err, "%s", data)
                          : path_format(path, err, "%.*s%s", (int)(name_of(volume_path) - volume_path), volume_path, data);
}

// As its overlays count.
static int size_of(struct disk_access *disk, bool read_only, uint64_t *size_bytes, struct tv_error *err)
{
    cleanup_json json_t *stat = NULL;
    int rc = disk_call(disk, read_only, "disk.stat", json_object(), -1, &stat, err);
    *size_bytes = rc ? 0 : disk_overlay_bytes(stat);
    return rc;
}

// Could the next store open it, so many files as it consists of now?
static int check_opens(const char *path, struct tv_error *err)
{
    struct store_fds fds = {0};
    cleanup_json json_t *volume = NULL;
    int rc = store_load_volume(path, &volume, err);
    if (!rc)
        rc = store_open_volume(volume, &(struct store_open_options){.without_keys = true}, &fds, err);
    store_close_fds(&fds);
    return rc;
}

// --- snapshot

// The file is changed first: should all end between the two, then the new overlay has nothing yet and is over all there is.
static int change_over(struct subject *s, const char *overlay, int overlay_fd, struct tv_error *err)
{
    cleanup_json json_t *volume = volume_file_overlay(name_of(overlay), name_of(s->snapshot), s->volume), *result = NULL;
    cleanup_json json_t *snapshot = json_copy(s->volume);
    json_object_set_new(snapshot, "taken_s", json_integer((json_int_t)time(NULL)));
    int rc = volume_file_make(s->snapshot, snapshot, err);
    if (rc)
        return rc == -EEXIST ? tv_error_set(err, rc, "%s: is there already; drop it or take another name", s->snapshot) : rc;
    rc = volume_file_replace(s->disk.path, volume, err);
    if (!rc)
        rc = check_opens(s->disk.path, err);
    if (!rc)
        rc = disk_call(&s->disk, false, "disk.snapshot", json_object(), overlay_fd, &result, err);
    if (!rc)
        return 0;
    volume_file_replace(s->disk.path, s->volume, NULL);
    unlink(s->snapshot);
    return rc;
}

static int take_snapshot(struct subject *s, struct tv_error *err)
{
    char overlay[PATH_MAX];
    uint64_t size_bytes;
    int rc = size_of(&s->disk, false, &size_bytes, err);
    if (rc)
        return rc;
    cleanup_close int fd = volume_file_make_overlay(s->disk.path, size_bytes, overlay, err);
    if (fd < 0)
        return fd;
    rc = change_over(s, overlay, fd, err);
    if (rc)
        unlink(overlay);
    return rc;
}

static int finish(const struct disk_command *c, struct subject *s, int rc, const struct tv_error *err, const char *what)
{
    if (!rc && c->json)
        command_print_json(json_pack("{s:s, s:s}", "path", s->disk.path, "snapshot", s->snapshot));
    else if (!rc)
        printf("%s: %s\n", s->snapshot, what);
    release_subject(s);
    return rc ? disk_failed(c, err) : EXIT_OK;
}

int disk_snapshot(const struct disk_command *c)
{
    struct tv_error err = {0};
    struct subject s;
    int rc = take_subject(c, &s, &err);
    if (!rc)
        rc = take_snapshot(&s, &err);
    return finish(c, &s, rc, &err, "what the disk had at this moment");
}

// --- snapshots

static json_t *describe(const char *folder, int folder_len, const char *file, const char *name, int name_len)
{
    char path[PATH_MAX], data[PATH_MAX];
    struct stat own = {0};
    cleanup_json json_t *volume = NULL;
    if (path_format(path, NULL, "%.*s%s", folder_len, folder, file) || volume_file_read(path, &volume, NULL))
        return NULL;
    if (data_path(path, volume, data, NULL) == 0)
        stat(data, &own);
    return json_pack("{s:s%, s:s, s:I, s:I}", "name", name, name_len, "path", path, "taken_s",
                     json_integer_value(json_object_get(volume, "taken_s")), "own_bytes", (json_int_t)own.st_blocks * 512);
}

static bool is_older(const json_t *a, const json_t *b)
{
    const json_int_t x = json_integer_value(json_object_get(a, "taken_s")), y = json_integer_value(json_object_get(b, "taken_s"));
    return x != y ? x < y
                  : strcmp(json_string_value(json_object_get(a, "name")), json_string_value(json_object_get(b, "name"))) < 0;
}

static void insert_by_age(json_t *snapshots, json_t *snapshot)
{
    size_t at = json_array_size(snapshots);
    while (at && is_older(snapshot, json_array_get(snapshots, at - 1)))
        at--;
    json_array_insert_new(snapshots, at, snapshot);
}

static int list(const char *path, json_t *snapshots, struct tv_error *err)
{
    char folder[PATH_MAX];
    const int folder_len = (int)(name_of(path) - path);
    snprintf(folder, sizeof(folder), "%.*s", folder_len, path);
    DIR *dir = opendir(folder);
    if (!dir)
        return tv_error_set(err, -errno, "%s: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));) {
        int len;
        const char *name = volume_file_snapshot_name(path, entry->d_name, &len);
        json_t *snapshot = name ? describe(path, folder_len, entry->d_name, name, len) : NULL;
        if (snapshot)
            insert_by_age(snapshots, snapshot);
    }
    closedir(dir);
    return 0;
}

static void print_list(const json_t *snapshots)
{
    size_t i;
    json_t *snapshot;
    printf("%-24s %-20s %12s\n", "SNAPSHOT", "TAKEN", "OWN MB");
    json_array_foreach(snapshots, i, snapshot)
    {
        char when[32];
        const time_t taken = (time_t)json_integer_value(json_object_get(snapshot, "taken_s"));
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime(&taken));
        printf("%-24s %-20s %12.1f\n", json_string_value(json_object_get(snapshot, "name")), when,
               (double)json_integer_value(json_object_get(snapshot, "own_bytes")) / 1e6);
    }
}

int disk_snapshots(const struct disk_command *c)
{
    struct tv_error err = {0};
    struct disk_access disk;
    cleanup_json json_t *snapshots = json_array();
    int rc = disk_find(c->words[0], &disk, &err);
    if (!rc && store_is_volume_file(disk.path))
        rc = list(disk.path, snapshots, &err);
    if (!rc && c->json)
        command_print_json(json_incref(snapshots));
    else if (!rc)
        print_list(snapshots);
    disk_release(&disk);
    return rc ? disk_failed(c, &err) : EXIT_OK;
}

// --- revert

static int revert(struct subject *s, struct tv_error *err)
{
    char overlay[PATH_MAX], data[PATH_MAX];
    struct disk_access snapshot;
    uint64_t size_bytes, now_bytes;
    if (s->disk.trivetd_fd >= 0)
        return tv_error_set(err, -EBUSY, "%s: a machine that runs has it; stop it, since its guest would not know", s->disk.path);
    int rc = data_path(s->disk.path, s->volume, data, err);
    if (!rc)
        rc = size_of(&s->disk, false, &now_bytes, err); // from here on it is ours
    if (!rc)
        rc = disk_find(s->snapshot, &snapshot, err);
    if (rc)
        return rc;
    rc = size_of(&snapshot, true, &size_bytes, err);
    disk_release(&snapshot);
    if (rc)
        return rc;
    cleanup_close int fd = volume_file_make_overlay(s->disk.path, size_bytes, overlay, err);
    if (fd < 0)
        return fd;
    cleanup_json json_t *volume = volume_file_overlay(name_of(overlay), name_of(s->snapshot), s->volume);
    rc = volume_file_replace(s->disk.path, volume, err);
    unlink(rc ? overlay : data);
    return rc;
}

int disk_revert(const struct disk_command *c)
{
    struct tv_error err = {0};
    struct subject s;
    int rc = take_subject(c, &s, &err);
    if (!rc)
        rc = revert(&s, &err);
    return finish(c, &s, rc, &err, "is what the disk has again");
}

// --- drop

static void tell(const struct disk_command *c, const char *path, uint64_t done, uint64_t total)
{
    if (!c->quiet && isatty(STDERR_FILENO))
        fprintf(stderr, done < total ? "\r\033[K%s: %.0f %% taken over" : "\r\033[K", path, 100.0 * (double)done / (double)total);
}

static int absorb(const struct disk_command *c, struct disk_access *disk, struct tv_error *err)
{
    uint64_t size_bytes = 0, at = 0;
    cleanup_json json_t *stat = NULL;
    int rc = disk_call(disk, false, "disk.stat", json_object(), -1, &stat, err);
    if (!rc)
        size_bytes = (uint64_t)json_integer_value(json_object_get(stat, "size_bytes"));
    while (!rc && at < size_bytes) {
        cleanup_json json_t *result = NULL;
        tell(c, disk->path, at, size_bytes);
        rc = disk_call(disk, false, "disk.absorb", json_pack("{s:I}", "offset_bytes", (json_int_t)at), -1, &result, err);
        at += rc ? 0 : (uint64_t)json_integer_value(json_object_get(result, "len_bytes"));
        if (!rc && tool_interrupted())
            rc = tv_error_set(err, -EINTR, "%s: interrupted; the snapshot is there still", disk->path);
    }
    tell(c, disk->path, 1, 1);
    cleanup_json json_t *result = NULL;
    return rc ? rc : disk_call(disk, false, "disk.absorb", json_object(), -1, &result, err);
}

// Does the disk lie on the snapshot? Both are in the same folder, unless it is named otherwise.
static bool lies_on(json_t *volume, const char *snapshot)
{
    const char *base = path_in(volume_file_root(volume), "base");
    return base && strcmp(base[0] == '/' ? base : name_of(snapshot), base[0] == '/' ? snapshot : base) == 0;
}

// One disk that lies on the snapshot comes to lie on what that lies on. `held`: the volume file that is locked already.
static int take_over(const struct disk_command *c, const char *path, const char *held, json_t *base, struct tv_error *err)
{
    struct disk_access disk;
    cleanup_json json_t *volume = NULL;
    const bool is_held = strcmp(path, held) == 0;
    cleanup_close int lock_fd = is_held ? -1 : volume_file_lock(path, err);
    int rc = lock_fd < 0 && !is_held ? lock_fd : volume_file_read(path, &volume, err);
    if (!rc)
        rc = disk_find(path, &disk, err);
    if (rc)
        return rc;
    rc = absorb(c, &disk, err);
    if (!rc) {
        json_object_set(volume_file_root(volume), "base", base);
        rc = volume_file_replace(path, volume, err);
    }
    disk_release(&disk);
    return rc;
}

static int take_over_all(const struct disk_command *c, const struct subject *s, json_t *base, struct tv_error *err)
{
    const char *snapshot = s->snapshot;
    char path[PATH_MAX];
    const int folder_len = (int)(name_of(snapshot) - snapshot);
    snprintf(path, sizeof(path), "%.*s", folder_len, snapshot);
    DIR *dir = opendir(path);
    int rc = dir ? 0 : tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    for (struct dirent *entry; !rc && (entry = readdir(dir));) {
        cleanup_json json_t *volume = NULL;
        rc = path_format(path, err, "%.*s%s", folder_len, snapshot, entry->d_name);
        if (!rc && store_is_volume_file(path) && !volume_file_read(path, &volume, NULL) && lies_on(volume, snapshot))
            rc = take_over(c, path, s->disk.path, base, err);
    }
    if (dir)
        closedir(dir);
    return rc;
}

static int drop(const struct disk_command *c, struct subject *s, struct tv_error *err)
{
    char data[PATH_MAX];
    cleanup_json json_t *volume = NULL;
    int rc = volume_file_read(s->snapshot, &volume, err);
    if (!rc)
        rc = data_path(s->snapshot, volume, data, err);
    if (!rc)
        rc = take_over_all(c, s, json_object_get(volume_file_root(volume), "base"), err);
    if (!rc && unlink(s->snapshot) < 0)
        rc = tv_error_set(err, -errno, "%s: %s", s->snapshot, strerror(errno));
    if (!rc)
        unlink(data);
    return rc;
}

int disk_drop(const struct disk_command *c)
{
    struct tv_error err = {0};
    struct subject s;
    tool_catch_signals();
    int rc = take_subject(c, &s, &err);
    if (!rc)
        rc = drop(c, &s, &err);
    return finish(c, &s, rc, &err, "dropped");
}
