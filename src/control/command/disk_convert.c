// trivet disk import, trivet disk export: images of other formats, through qemu-img(1).
#include "control/cleanup.h"
#include "control/command/disk.h"
#include "control/command/disk_access.h"
#include "control/tool.h"
#include "store/open.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// What qemu-img calls vpc is known as VHD.
static const char *const formats[] = {"raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed", "parallels", NULL};

static int check_format(const char *format, struct tv_error *err)
{
    for (const char *const *f = formats; *f; f++)
        if (strcmp(*f, format) == 0)
            return 0;
    return tv_error_set(err, -EINVAL, "--format %s: is not known; there are raw, qcow2, vmdk, vdi, vhdx, vpc, qed and parallels",
                        format);
}

// By the suffix of its name; NULL: it tells nothing.
static const char *format_of(const char *path)
{
    const char *dot = strrchr(path, '.');
    if (dot && (strcmp(dot, ".img") == 0 || strcmp(dot, ".raw") == 0))
        return "raw";
    if (dot && strcmp(dot, ".vhd") == 0)
        return "vpc";
    for (const char *const *f = formats; dot && *f; f++)
        if (strcmp(*f, dot + 1) == 0)
            return *f;
    return NULL;
}

static int take_format(const struct disk_command *c, const char *path, const char **format, struct tv_error *err)
{
    *format = c->format ? c->format : format_of(path);
    if (!*format)
        return tv_error_set(err, -EINVAL, "%s: the name does not tell its format; say --format qcow2 or another", path);
    return check_format(*format, err);
}

struct conversion {
    const struct disk_command *command;
    const char *from, *from_format, *to_format;
};

// Its progress is a line of its own that it writes over.
static int convert(void *arg, const char *temp, struct tv_error *err)
{
    const struct conversion *v = arg;
    const bool tell = !v->command->quiet && isatty(STDERR_FILENO);
    const char *const argv[] = {"qemu-img", "convert", tell ? "-p" : "-q", "-f", v->from_format, "-O", v->to_format, "--", v->from,
                                temp,       NULL};
    return tool_run(&(struct tool){.argv = argv, .package = "qemu-utils", .stdout_fd = tell ? STDERR_FILENO : 0}, err);
}

static int done(const struct disk_command *c, const char *path, const char *format)
{
    if (c->json)
        command_print_json(json_pack("{s:s, s:s}", "path", path, "format", format));
    else
        printf("%s: made, %s\n", path, format);
    return EXIT_OK;
}

// --- import

static int image_info(const char *path, const char *format, json_t **info, struct tv_error *err)
{
    const char *const argv[] = {"qemu-img", "info", "--output=json", "-f", format, "--", path, NULL};
    cleanup_free char *text = NULL;
    int rc = tool_output(&(struct tool){.argv = argv, .package = "qemu-utils"}, &text, err);
    if (rc)
        return tv_error_prefix(err, "%s", path);
    *info = json_loads(text, 0, NULL);
    return *info ? 0 : tv_error_set(err, -EIO, "%s: qemu-img says something that is not understood", path);
}

// In the folder of `path`, or in one below it?
static bool is_beside(const char *file, const char *path)
{
    const char *slash = strrchr(path, '/');
    const size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
    return strncmp(file, path, folder) == 0 && file[folder] != '/' && !strstr(file + folder, "..");
}

// An image can name other files, whose contents would become the disk's: what somebody else made could name any file of this host.
static int check_names(const char *path, const json_t *info, struct tv_error *err)
{
    const json_t *specific = json_object_get(json_object_get(info, "format-specific"), "data");
    const char *backing = json_string_value(json_object_get(info, "backing-filename"));
    const char *data = json_string_value(json_object_get(specific, "data-file"));
    if (backing || data)
        return tv_error_set(err, -EINVAL,
                            "%s: is not whole, the rest is in %s; if you trust it: `qemu-img convert` makes one that is", path,
                            backing ? backing : data);
    size_t i;
    json_t *extent;
    json_array_foreach(json_object_get(specific, "extents"), i, extent)
    {
        const char *file = json_string_value(json_object_get(extent, "filename"));
        if (file && !is_beside(file, path))
            return tv_error_set(err, -EINVAL,
                                "%s: part of it is in another folder, %s; if you trust it: `qemu-img convert` makes one "
                                "that is whole",
                                path, file);
    }
    return 0;
}

int disk_import(const struct disk_command *c)
{
    struct tv_error err = {0};
    struct disk_access to = {.trivetd_fd = -1};
    struct conversion v = {.command = c, .from = c->words[0], .to_format = "raw"};
    cleanup_json json_t *info = NULL;
    tool_catch_signals();
    int rc = take_format(c, v.from, &v.from_format, &err);
    if (!rc && access(v.from, R_OK) < 0)
        rc = tv_error_set(&err, -errno, "%s: %s", v.from, strerror(errno));
    if (!rc)
        rc = disk_find_new(c->words[1], &to, &err);
    if (!rc && store_is_volume_file(to.path))
        rc = tv_error_set(&err, -EINVAL, "%s: an image becomes a raw one; `trivet disk create --over` makes a volume file over it",
                          to.path);
    if (!rc)
        rc = image_info(v.from, v.from_format, &info, &err);
    if (!rc)
        rc = check_names(v.from, info, &err);
    if (!rc)
        rc = disk_make_whole(to.path, convert, &v, &err);
    int status = rc ? disk_failed(c, &err) : done(c, to.path, "raw");
    disk_release(&to);
    return status;
}

// --- export

int disk_export(const struct disk_command *c)
{
    struct tv_error err = {0};
    struct disk_access from = {.trivetd_fd = -1};
    struct conversion v = {.command = c, .from_format = "raw"};
    cleanup_free char *served = NULL; // a volume file's disk is read as it is served
    tool_catch_signals();
    int rc = take_format(c, c->words[1], &v.to_format, &err);
    if (!rc && access(c->words[1], F_OK) == 0)
        rc = tv_error_set(&err, -EEXIST, "%s: is there already; remove it or take another name", c->words[1]);
    if (!rc)
        rc = disk_find(c->words[0], &from, &err);
    v.from = from.path;
    if (!rc && store_is_volume_file(from.path) && !(rc = disk_serve(&from, &served, &err)))
        v.from = served;
    if (!rc)
        rc = disk_make_whole(c->words[1], convert, &v, &err);
    int status = rc ? disk_failed(c, &err) : done(c, c->words[1], v.to_format);
    disk_release(&from);
    return status;
}
