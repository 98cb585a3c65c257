// trivet disk create DISK --encrypt --key-file FILE: a disk that is encrypted at rest, and empty. Beside the volume file x.volume
// are x.luks, a LUKS2 header that lies apart from its data, and x.overlay, to which ciphertext is written. An overlay, so that the
// disk can have snapshots; apart, so that keys can be changed whatever lies on what.
#include "control/cleanup.h"
#include "control/command/disk.h"
#include "control/command/disk_access.h"
#include "control/paths.h"
#include "control/spec/volume_file.h"
#include "store/luks.h"
#include "store/open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct encryption {
    char passphrase[LUKS_PASSPHRASE_MOST + 1];
    size_t passphrase_bytes;
    int data_fd;
};

static int make_header(void *arg, const char *temp, struct tv_error *err)
{
    const struct encryption *e = arg;
    cleanup_close int fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: cannot be made: %s", temp, strerror(errno));
    return luks_format(fd, e->data_fd, temp, e->passphrase, e->passphrase_bytes, err);
}

static int take_key_file(const struct disk_command *c, struct encryption *e, char path[static PATH_MAX], struct tv_error *err)
{
    if (!c->key_file)
        return tv_error_set(err, -EINVAL,
                            "--encrypt: with which key? --key-file FILE, whose bytes are the passphrase; `(umask 77; head -c 32 "
                            "/dev/urandom > FILE)` makes one");
    struct stat st;
    if (!realpath(c->key_file, path) || stat(path, &st) < 0)
        return tv_error_set(err, -errno, "--key-file %s: %s", c->key_file, strerror(errno));
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return tv_error_set(err, -EPERM, "--key-file %s: others may read or change it; `chmod 600 %s`", c->key_file, c->key_file);
    return luks_read_passphrase(path, e->passphrase, &e->passphrase_bytes, err);
}

// What was never written reads as noise, in which somebody who looks for a file system could find anything.
static int blank(const char *path, struct tv_error *err)
{
    struct disk_access disk;
    cleanup_json json_t *result = NULL;
    int rc = disk_find(path, &disk, err);
    if (rc)
        return rc;
    rc = disk_call(&disk, false, "disk.blank", json_object(), -1, &result, err);
    disk_release(&disk);
    return rc;
}

// What the volume file names, and then the file itself: whatever fails, nothing is left.
static int make_all(const struct disk_access *disk, uint64_t size_bytes, const char *key_file, struct encryption *e,
                    struct tv_error *err)
{
    char header[PATH_MAX], data[PATH_MAX];
    int rc = path_format(header, err, "%.*s.luks", (int)(strlen(disk->path) - strlen(STORE_VOLUME_SUFFIX)), disk->path);
    if (rc)
        return rc;
    cleanup_close int fd = e->data_fd = volume_file_make_overlay(disk->path, size_bytes, data, err);
    if (fd < 0)
        return fd;
    rc = disk_make_whole(header, make_header, e, err);
    if (!rc) {
        cleanup_json json_t *volume =
            json_pack("{s:s, s:s, s:s, s:o}", "type", "crypt", "header", strrchr(header, '/') + 1, "passphrase", key_file, "over",
                      volume_file_overlay_of_nothing(strrchr(data, '/') + 1, size_bytes));
        rc = volume_file_make(disk->path, volume, err);
        if (!rc && (rc = blank(disk->path, err)))
            unlink(disk->path);
        if (rc)
            unlink(header);
    }
    if (rc)
        unlink(data);
    return rc;
}

int disk_create_encrypted(const struct disk_command *c, struct disk_access *disk, struct tv_error *err)
{
    char key_file[PATH_MAX];
    uint64_t size_bytes;
    struct encryption e = {0};
    int rc = disk_take_volume_path(c->words[0], disk, err);
    if (!rc)
        rc = spec_parse_size(c->size, "--size", &size_bytes, err);
    if (!rc)
        rc = take_key_file(c, &e, key_file, err);
    if (!rc)
        rc = make_all(disk, size_bytes, key_file, &e, err);
    explicit_bzero(&e, sizeof(e));
    return rc;
}
