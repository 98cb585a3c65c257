// trivet disk create DISK --over TEMPLATE: a disk that shares what it does not change, made in no time.
#include "control/cleanup.h"
#include "control/command/disk.h"
#include "control/command/disk_access.h"
#include "control/paths.h"
#include "control/spec/volume_file.h"
#include "store/open.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

int disk_take_volume_path(const char *word, struct disk_access *disk, struct tv_error *err)
{
    const size_t len = strlen(disk->path) - strlen(".raw");
    char path[PATH_MAX];
    if (store_is_volume_file(disk->path))
        return 0;
    if (strchr(word, '/') || strchr(word, '.'))
        return tv_error_set(
            err, -EINVAL,
            "%s: a disk over a template, an encrypted or a mirrored one is a volume file, whose name ends in " STORE_VOLUME_SUFFIX,
            word);
    int rc = path_format(path, err, "%.*s" STORE_VOLUME_SUFFIX, (int)len, disk->path);
    return rc ? rc : path_format(disk->path, err, "%s", path);
}

static bool is_encrypted(const json_t *volume)
{
    const char *type = json_string_value(json_object_get(volume, "type"));
    return type && strcmp(type, "crypt") == 0;
}

static json_int_t size_in(const json_t *object)
{
    return json_integer_value(json_object_get(object, "size_bytes"));
}

uint64_t disk_overlay_bytes(const json_t *stat)
{
    const json_t *volume = json_object_get(stat, "volume");
    return (uint64_t)size_in(is_encrypted(volume) ? json_object_get(volume, "over") : stat);
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
    const uint64_t least = (uint64_t)size_in(stat);
    *size_bytes = least;
    rc = wanted ? spec_parse_size(wanted, "--size", size_bytes, err) : 0;
    if (!rc && *size_bytes < least)
        rc = tv_error_set(err, -EINVAL, "--size %s: is less than the template's %" PRIu64 " bytes", wanted, least);
    *size_bytes += disk_overlay_bytes(stat) - least; // a LUKS2 image begins with its header
    return rc;
}

// Of a template that is encrypted the ciphertext is shared, and the disk is encrypted with its key.
static int take_template(const struct disk_command *c, struct disk_access *template, json_t **volume, uint64_t *size_bytes,
                         struct tv_error *err)
{
    int rc = disk_find(c->over, template, err);
    if (!rc)
        rc = take_size(template, c->size, size_bytes, err);
    if (!rc)
        rc = store_load_volume(template->path, volume, err);
    if (!rc && c->encrypt)
        rc = is_encrypted(*volume)
                 ? tv_error_set(err, -EINVAL, "%s: is encrypted, and so is what shares it, with its key; leave out --encrypt",
                                c->over)
                 : tv_error_set(err, -EOPNOTSUPP,
                                "%s: is not encrypted, and a disk that shares it cannot be; make one with --size, and copy",
                                c->over);
    return rc;
}

// First what it names, then the file that names it.
static int make_both(const struct disk_access *disk, uint64_t size_bytes, const char *base, const json_t *base_volume,
                     struct tv_error *err)
{
    char data[PATH_MAX];
    cleanup_close int fd = volume_file_make_overlay(disk->path, size_bytes, data, err);
    if (fd < 0)
        return fd;
    const char *name = strrchr(data, '/') + 1;
    cleanup_json json_t *volume =
        base ? volume_file_overlay(name, base, base_volume) : volume_file_overlay_of_nothing(name, size_bytes);
    int rc = volume_file_make(disk->path, volume, err);
    if (rc)
        unlink(data);
    return rc;
}

int disk_create_over(const struct disk_command *c, struct disk_access *disk, struct tv_error *err)
{
    struct disk_access template = {.trivetd_fd = -1};
    cleanup_json json_t *base = NULL;
    uint64_t size_bytes = 0;
    int rc = disk_take_volume_path(c->words[0], disk, err);
    if (!rc)
        rc = c->over ? take_template(c, &template, &base, &size_bytes, err) : spec_parse_size(c->size, "--size", &size_bytes, err);
    if (!rc)
        rc = make_both(disk, size_bytes, c->over ? template.path : NULL, base, err);
    disk_release(&template);
    return rc;
}
