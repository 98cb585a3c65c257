// trivet disk create DISK --size SIZE --mirror FILE[,FILE...]: a disk that is kept in several places.
#include "control/cleanup.h"
#include "control/command/disk.h"
#include "control/command/disk_access.h"
#include "control/paths.h"
#include "control/spec/volume_file.h"
#include "store/mirror_file.h"
#include "store/open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct legs {
    unsigned n;
    char paths[MIRROR_LEGS_MAX][PATH_MAX];
    int fds[MIRROR_LEGS_MAX];
};

// The disk may be opened from anywhere: the folder in full.
static int take_leg(struct legs *legs, const char *path, struct tv_error *err)
{
    char folder[PATH_MAX], real[PATH_MAX];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (legs->n == MIRROR_LEGS_MAX)
        return tv_error_set(err, -EINVAL, "--mirror: %u files at most beside the disk's own", MIRROR_LEGS_MAX - 1);
    int rc = slash ? path_format(folder, err, "%.*s/", (int)(slash - path), path) : path_format(folder, err, ".");
    if (!rc && !*name)
        rc = tv_error_set(err, -EINVAL, "--mirror: '%s' is no name of a file", path);
    if (!rc && !realpath(folder, real))
        rc = tv_error_set(err, -errno, "%s: %s", folder, strerror(errno));
    return rc ? rc : path_format(legs->paths[legs->n++], err, "%s/%s", strcmp(real, "/") == 0 ? "" : real, name);
}

static int take_legs(struct legs *legs, const char *volume, const char *list, struct tv_error *err)
{
    char own[PATH_MAX];
    int rc = path_format(own, err, "%.*s.leg", (int)(strlen(volume) - strlen(STORE_VOLUME_SUFFIX)), volume);
    cleanup_free char *words = strdup(list);
    if (!words)
        return tv_error_set(err, -ENOMEM, "out of memory");
    if (!rc)
        rc = take_leg(legs, own, err);
    for (char *rest = words, *word; !rc && (word = strsep(&rest, ","));)
        rc = take_leg(legs, word, err);
    return rc;
}

static int make_files(struct legs *legs, unsigned *made, uint64_t size_bytes, struct tv_error *err)
{
    for (; *made < legs->n; (*made)++) {
        legs->fds[*made] = open(legs->paths[*made], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (legs->fds[*made] < 0)
            return tv_error_set(err, -errno, "%s: cannot be made: %s", legs->paths[*made], strerror(errno));
    }
    return mirror_format(legs->fds, legs->n, size_bytes, err);
}

static json_t *specification(const struct legs *legs)
{
    json_t *volumes = json_array();
    for (unsigned i = 0; i < legs->n; i++) // the first lies beside the volume file, and goes where that goes
        json_array_append_new(
            volumes, json_pack("{s:s, s:s}", "type", "file", "path", i ? legs->paths[i] : strrchr(legs->paths[i], '/') + 1));
    return json_pack("{s:s, s:o}", "type", "mirror", "volumes", volumes);
}

int disk_create_mirror(const struct disk_command *c, struct disk_access *disk, uint64_t size_bytes, struct tv_error *err)
{
    struct legs legs = {0};
    unsigned made = 0;
    int rc = disk_take_volume_path(c->words[0], disk, err);
    if (!rc)
        rc = take_legs(&legs, disk->path, c->mirror, err);
    if (!rc)
        rc = make_files(&legs, &made, size_bytes, err);
    cleanup_json json_t *volume = rc ? NULL : specification(&legs);
    if (!rc && !volume)
        rc = tv_error_set(err, -EINVAL, "--mirror %s: names must be UTF-8", c->mirror);
    if (!rc)
        rc = volume_file_make(disk->path, volume, err);
    for (unsigned i = 0; i < made; i++) {
        close(legs.fds[i]);
        if (rc)
            unlink(legs.paths[i]);
    }
    return rc;
}
