// trivet disk create DISK --over TEMPLATE: a disk that shares what it does not change, made in no time.
#include "control/cleanup.h"
#include "control/cmd_disk.h"
#include "control/disk_access.h"
#include "control/paths.h"
#include "control/volume_file.h"
#include "store/open.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

// A disk of the state folder is given by its name alone.
static int take_path(const char *word, struct disk_access *disk, struct tv_error *err)
{
    const size_t len = strlen(disk->path) - strlen(".raw");
    char path[PATH_MAX];
    if (store_is_volume_file(disk->path))
        return 0;
    if (strchr(word, '/') || strchr(word, '.'))
        return tv_error_set(err, -EINVAL, "%s: a disk over a template is a volume file, whose name ends in " STORE_VOLUME_SUFFIX,
                            word);
    int rc = path_format(path, err, "%.*s" STORE_VOLUME_SUFFIX, (int)len, disk->path);
    return rc ? rc : path_format(disk->path, err, "%s", path);
}

// The template is locked as by a reader from here on, until it is released.
static int take_size(struct disk_access *template, const char *wanted, uint64_t *size_bytes, struct tv_error *err)
{
    cleanup_json json_t *stat = NULL;
    if (template->trivetd_fd >= 0)
        return tv_error_set(err, -EBUSY, "%s: a machine that runs has it as disk %s; stop it, since a template must not change",
                            template->path, template->label);
    int rc = disk_call(template, true, "disk.stat", json_object(), -1, &stat, err);
    if (rc)
        return rc;
    const uint64_t least = (uint64_t)json_integer_value(json_object_get(stat, "size_bytes"));
    *size_bytes = least;
    rc = wanted ? spec_parse_size(wanted, "--size", size_bytes, err) : 0;
    if (!rc && *size_bytes < least)
        rc = tv_error_set(err, -EINVAL, "--size %s: is less than the template's %" PRIu64 " bytes", wanted, least);
    return rc;
}

// First what it names, then the file that names it.
static int make_both(const struct disk_access *disk, json_t *base, uint64_t size_bytes, struct tv_error *err)
{
    char data[PATH_MAX];
    cleanup_close int fd = volume_file_make_overlay(disk->path, size_bytes, data, err);
    if (fd < 0)
        return fd;
    cleanup_json json_t *volume = json_pack("{s:s, s:{s:s, s:s}, s:O}", "type", "overlay", "data", "type", "file", "path",
                                            strrchr(data, '/') + 1, "base", base);
    int rc = volume_file_make(disk->path, volume, err);
    if (rc)
        unlink(data);
    return rc;
}

static int create_over_nothing(const struct disk_command *c, struct disk_access *disk, struct tv_error *err)
{
    uint64_t size_bytes;
    int rc = spec_parse_size(c->size, "--size", &size_bytes, err);
    if (rc)
        return rc;
    cleanup_json json_t *base = json_pack("{s:s, s:I}", "type", "null", "size_bytes", (json_int_t)size_bytes);
    return make_both(disk, base, size_bytes, err);
}

int disk_create_over(const struct disk_command *c, struct disk_access *disk, struct tv_error *err)
{
    struct disk_access template = {.trivetd_fd = -1};
    cleanup_json json_t *base = NULL;
    uint64_t size_bytes = 0;
    int rc = take_path(c->words[0], disk, err);
    if (rc || !c->over)
        return rc ? rc : create_over_nothing(c, disk, err);
    rc = disk_find(c->over, &template, err);
    if (!rc)
        rc = take_size(&template, c->size, &size_bytes, err);
    base = json_pack("{s:s, s:s}", "type", "file", "path", template.path);
    if (!rc && !base)
        rc = tv_error_set(err, -EINVAL, "%s: the name must be UTF-8", template.path);
    if (!rc)
        rc = make_both(disk, base, size_bytes, err);
    disk_release(&template);
    return rc;
}
