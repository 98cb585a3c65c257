// trivet disk create, trivet disk clone: new disks.
#include "control/cleanup.h"
#include "control/command/disk.h"
#include "control/command/disk_access.h"
#include "control/files.h"
#include "control/paths.h"
#include "control/tool.h"
#include "store/open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int made(const struct disk_command *c, const struct disk_access *disk, const char *how)
{
    if (c->json)
        command_print_json(json_pack("{s:s}", "path", disk->path));
    else
        printf("%s: made, %s\n", disk->path, how);
    return EXIT_OK;
}

int disk_find_new(const char *word, struct disk_access *disk, struct tv_error *err)
{
    char state[PATH_MAX], folder[PATH_MAX];
    int rc = disk_find(word, disk, err);
    if (!rc && access(disk->path, F_OK) == 0)
        return tv_error_set(err, -EEXIST, "%s: is there already; remove it or take another name", disk->path);
    if (!rc)
        rc = path_state_dir(state, err);
    const size_t len = rc ? 0 : strlen(state);
    if (rc || strncmp(disk->path, state, len) != 0 || disk->path[len] != '/')
        return rc;
    rc = dir_make_own(state, "TRIVET_STATE_DIR", err);
    if (!rc)
        rc = path_format(folder, err, "%s/disks", state);
    return rc ? rc : dir_make(folder, 0700, err);
}

// --- create

static int create(const struct disk_command *c, struct disk_access *disk, struct tv_error *err)
{
    uint64_t size_bytes = 0;
    if (c->key_file && !c->encrypt)
        return tv_error_set(err, -EINVAL, "--key-file: is for --encrypt");
    if (c->mirror && (c->over || c->encrypt))
        return tv_error_set(err, -EINVAL, "--mirror: goes with neither --over nor --encrypt; a volume file can say more");
    if (c->over)
        return disk_create_over(c, disk, err);
    if (!c->size)
        return tv_error_set(err, -EINVAL, "%s: how large? --size 8G", disk->path);
    int rc = spec_parse_size(c->size, "--size", &size_bytes, err);
    if (!rc && size_bytes % 512)
        rc = tv_error_set(err, -EINVAL, "--size %s: is no multiple of 512 bytes", c->size);
    if (!rc && c->encrypt)
        return disk_create_encrypted(c, disk, err);
    if (!rc && c->mirror)
        return disk_create_mirror(c, disk, size_bytes, err);
    if (!rc && store_is_volume_file(disk->path))
        return disk_create_over(c, disk, err);
    return rc ? rc : file_make_sparse(disk->path, size_bytes, 0600, err);
}

int disk_create(const struct disk_command *c)
{
    struct tv_error err = {0};
    struct disk_access disk;
    int rc = disk_find_new(c->words[0], &disk, &err);
    if (!rc)
        rc = create(c, &disk, &err);
    int status = rc ? disk_failed(c, &err)
                    : made(c, &disk,
                           c->encrypt  ? "encrypted"
                           : c->over   ? "sharing what it does not change"
                           : c->mirror ? "kept in several places"
                                       : "sparse");
    disk_release(&disk);
    return status;
}

// --- clone

static int tell_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    const struct disk_command *c = arg;
    if (!c->quiet && isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[Kdisk %s: %.0f %% of %.1f MB copied", c->words[1], 100.0 * (double)done_bytes / (double)total_bytes,
                (double)total_bytes / 1e6);
    return tool_interrupted() ? -EINTR : 0;
}

static int copy_into(const struct disk_command *c, int in, const char *path, bool *reflinked, struct tv_error *err)
{
    const struct file_progress progress = {.tell = tell_progress, .arg = (void *)c};
    cleanup_close int out = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0)
        return tv_error_set(err, -errno, "%s: cannot be made: %s", path, strerror(errno));
    int rc = file_copy_data(in, out, &progress, reflinked);
    if (!rc && fsync(out) < 0)
        rc = -errno;
    if (!c->quiet && isatty(STDERR_FILENO) && !*reflinked)
        fputs("\r\033[K", stderr);
    return rc ? tv_error_set(err, rc, "%s: %s", path, rc == -EINTR ? "interrupted" : strerror(-rc)) : 0;
}

// Under another name until it is whole.
int disk_make_whole(const char *path, int (*make)(void *arg, const char *temp, struct tv_error *err), void *arg,
                    struct tv_error *err)
{
    char temp[PATH_MAX];
    int rc = path_format(temp, err, "%s.XXXXXX", path), fd = rc ? -1 : mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return rc ? rc : tv_error_set(err, -errno, "%s: cannot be made: %s", path, strerror(errno));
    close(fd);
    unlink(temp);
    rc = make(arg, temp, err);
    if (!rc && (rc = file_name_new(temp, path)))
        tv_error_set(err, rc, "%s: %s", path, strerror(-rc));
    if (rc)
        unlink(temp);
    return rc;
}

struct cloning {
    const struct disk_command *command;
    int in;
    bool reflinked;
};

static int make_clone(void *arg, const char *temp, struct tv_error *err)
{
    struct cloning *c = arg;
    return copy_into(c->command, c->in, temp, &c->reflinked, err);
}

// Nobody writes meanwhile: the source is locked as by a reader.
static int clone(struct cloning *c, const struct disk_access *from, const struct disk_access *to, struct tv_error *err)
{
    const struct store_open_options options = {.read_only = true, .lock_wait_ms = 1};
    struct store_fds fds = {0};
    cleanup_json json_t *volume = NULL;
    int rc = store_load_volume(from->path, &volume, err);
    if (!rc)
        rc = store_open_volume(volume, &options, &fds, err);
    c->in = fds.fd[0];
    if (!rc)
        rc = disk_make_whole(to->path, make_clone, c, err);
    store_close_fds(&fds);
    return rc;
}

int disk_clone(const struct disk_command *c)
{
    struct tv_error err = {0};
    struct disk_access from = {.trivetd_fd = -1}, to = {.trivetd_fd = -1};
    struct cloning cloning = {.command = c};
    tool_catch_signals();
    int rc = disk_find(c->words[0], &from, &err);
    if (!rc)
        rc = disk_find_new(c->words[1], &to, &err);
    if (!rc && (store_is_volume_file(from.path) || store_is_volume_file(to.path)))
        rc = tv_error_set(&err, -EOPNOTSUPP,
                          "%s: only raw disks are copied; `trivet disk create NEW.volume --over %s` makes one that shares it, and "
                          "`trivet disk export` a raw one of its own",
                          from.path, c->words[0]);
    if (!rc)
        rc = clone(&cloning, &from, &to, &err);
    int status = rc ? disk_failed(c, &err) : made(c, &to, cloning.reflinked ? "sharing blocks with its original" : "a copy");
    disk_release(&from);
    disk_release(&to);
    return status;
}
