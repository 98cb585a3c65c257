// The guest's root folder: see parts.h.
#include "control/image/parts.h"

#include "control/files.h"
#include "control/image/guest_files.h"
#include "control/paths.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const folders[] = {"bin", "sbin", "usr/bin", "usr/sbin", "etc/init.d", "dev", "proc", "sys",
                                      "run", "tmp",  "mnt",     "root",     "data",       "var", "lib",  NULL};

// Where each file of guest/busybox goes, and its mode.
static const struct {
    const char *name, *path;
    mode_t mode;
} places[] = {
    {"init", "init", 0755},
    {"inittab", "etc/inittab", 0644},
    {"rcS", "etc/init.d/rcS", 0755},
    {"rcK", "etc/init.d/rcK", 0755},
    {"check", "etc/init.d/check", 0755},
    {"control-port", "sbin/control-port", 0755},
    {"console-shell", "sbin/console-shell", 0755},
    {"trivet.check", "usr/sbin/trivet.check", 0755},
    {"trivet.check.net", "usr/sbin/trivet.check.net", 0755},
    {"udhcpc.script", "etc/udhcpc.script", 0755},
    {"profile", "etc/profile", 0644},
    {"passwd", "etc/passwd", 0644},
    {"group", "etc/group", 0644},
    {NULL, NULL, 0},
};

const struct guest_file *image_guest_file(const char *name)
{
    for (const struct guest_file *f = guest_files; f->name; f++)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

static int make_folders(const char *tree, struct tv_error *err)
{
    char path[PATH_MAX];
    for (const char *const *f = folders; *f; f++) {
        int rc = path_format(path, err, "%s/%s", tree, *f);
        if (!rc)
            rc = dir_make(path, 0755, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int put_busybox(const struct image_job *job, const char *tree, struct tv_error *err)
{
    static const char *const sources[] = {"usr/bin/busybox", "bin/busybox", NULL}; // after and before the merge of /usr
    char from[PATH_MAX], to[PATH_MAX];
    int rc = path_format(to, err, "%s/bin/busybox", tree);
    for (const char *const *s = sources; *s && !rc; s++) {
        rc = path_format(from, err, "%s/root/%s", job->work_dir, *s);
        if (!rc && access(from, R_OK) == 0)
            return file_copy(from, to, 0755, err);
    }
    return rc ? rc : tv_error_set(err, -ENOENT, "package busybox-static has no busybox");
}

int image_tree_make(struct image_job *job, const char *tree, struct tv_error *err)
{
    int rc = make_folders(tree, err);
    if (!rc)
        rc = put_busybox(job, tree, err);
    char path[PATH_MAX];
    for (size_t i = 0; places[i].name && !rc; i++) {
        const struct guest_file *file = image_guest_file(places[i].name);
        rc = path_format(path, err, "%s/%s", tree, places[i].path);
        if (!rc)
            rc = file_write_all(path, file->data, file->len_bytes, places[i].mode, err);
    }
    // The two names that are needed before rcS gives every applet its own.
    static const char *const names[] = {"sbin/init", "bin/sh", NULL};
    for (const char *const *n = names; *n && !rc; n++) {
        rc = path_format(path, err, "%s/%s", tree, *n);
        if (!rc && symlink("/bin/busybox", path) < 0)
            rc = tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    }
    return rc ? rc : image_modules_install(job, (const char *const[]){NULL}, tree, err);
}

// FNV-1a.
uint64_t image_recipe_add(uint64_t recipe, const void *data, size_t len_bytes)
{
    for (const unsigned char *p = data; len_bytes; len_bytes--)
        recipe = (recipe ^ *p++) * 0x100000001b3ull;
    return recipe;
}

uint64_t image_tree_recipe(void)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    for (size_t i = 0; places[i].name; i++) {
        const struct guest_file *file = image_guest_file(places[i].name);
        hash = image_recipe_add(hash, places[i].path, strlen(places[i].path));
        hash = image_recipe_add(hash, file->data, file->len_bytes);
    }
    return hash;
}
