// The kernel's modules for the image: see parts.h.
//
// A module says in its .modinfo what it depends on; soft dependencies are named below where they matter. Modules are unpacked
// from xz here, once, since a guest on a software engine would take seconds for it at each start.
#include "control/image/parts.h"

#include "control/cleanup.h"
#include "control/files.h"
#include "control/paths.h"
#include "control/tool.h"

#include <errno.h>
#include <ftw.h>
#include <string.h>
#include <unistd.h>

#define MODULES_MAX 64

struct module {
    char name[64];            // as in the file's name
    char path[256];           // kernel/..., without .xz
    char depends[512];        // comma-separated names
    char xz[PATH_MAX];        // in the package
    char installed[PATH_MAX]; // in the tree
};

struct closure {
    struct module modules[MODULES_MAX];
    size_t n;
};

// Names of modules treat '-' and '_' as the same.
static bool same_name(const char *a, const char *b, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((a[i] == '-' ? '_' : a[i]) != (b[i] == '-' ? '_' : b[i]))
            return false;
    return true;
}

static struct {
    const char *name;
    char *path;
    bool found;
} search; // nftw() has no argument for its callback

static int look(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    if (type != FTW_F)
        return 0;
    const char *base = path + ftw->base;
    size_t len = strlen(search.name);
    if (strlen(base) < len + 3 || !same_name(base, search.name, len) || strncmp(base + len, ".ko", 3) != 0)
        return 0;
    search.found = path_format(search.path, NULL, "%s", path) == 0;
    return search.found;
}

// 0 and an empty path when the kernel has it built in.
static int find_module(const char *root, const char *name, char path[static PATH_MAX], struct tv_error *err)
{
    path[0] = 0;
    search.name = name;
    search.path = path;
    search.found = false;
    if (nftw(root, look, 16, FTW_PHYS) < 0)
        return tv_error_set(err, -errno, "%s: %s", root, strerror(errno));
    return search.found ? 0 : -ENOENT;
}

// In modules.builtin: a line with a path for each.
static bool is_built_in(const char *root, const char *name)
{
    char path[PATH_MAX];
    cleanup_free char *text = NULL;
    if (path_format(path, NULL, "%s/modules.builtin", root) != 0 || file_read_all(path, 4u << 20, &text, NULL, NULL) != 0)
        return false;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *base = strrchr(line, '/') ? strrchr(line, '/') + 1 : line;
        if (strlen(base) == strlen(name) + 3 && same_name(base, name, strlen(name)))
            return true;
    }
    return false;
}

// "depends=a,b" in .modinfo, a section of NUL-terminated strings.
static void read_depends(struct module *module, const char *elf, size_t len)
{
    static const char key[] = "\0depends=";
    const char *at = memmem(elf, len, key, sizeof(key) - 1);
    if (!at)
        return;
    at += sizeof(key) - 1;
    size_t room = (size_t)(elf + len - at);
    snprintf(module->depends, sizeof(module->depends), "%.*s", (int)strnlen(at, room < 500 ? room : 500), at);
    // ext4 asks for its checksum by the name of an algorithm (softdep: crypto-crc32c), which busybox's modprobe does not follow.
    if (strcmp(module->name, "ext4") == 0)
        strcat(module->depends, module->depends[0] ? ",crc32c_generic" : "crc32c_generic");
}

static int install_module(struct module *module, struct tv_error *err)
{
    char dir[PATH_MAX];
    int rc = path_format(dir, err, "%s", module->installed);
    if (rc)
        return rc;
    *strrchr(dir, '/') = 0;
    rc = dir_make(dir, 0755, err);
    if (rc)
        return rc;
    size_t len = strlen(module->xz);
    bool packed = len > 3 && strcmp(module->xz + len - 3, ".xz") == 0;
    const char *const argv[] = {packed ? "xz" : "cat", packed ? "-dc" : "-u", module->xz, NULL};
    cleanup_fclose FILE *f = fopen(module->installed, "we");
    if (!f)
        return tv_error_set(err, -errno, "%s: %s", module->installed, strerror(errno));
    rc = tool_run(&(struct tool){.argv = argv, .package = "xz-utils", .stdout_fd = fileno(f)}, err);
    cleanup_free char *elf = NULL;
    if (!rc)
        rc = file_read_all(module->installed, 64u << 20, &elf, &len, err);
    if (!rc)
        read_depends(module, elf, len);
    return rc;
}

int image_modules_dir(const struct image_job *job, char dir[static PATH_MAX], struct tv_error *err)
{
    int rc = path_format(dir, err, "%s/root/usr/lib/modules/%s", job->work_dir, job->kernel_version);
    if (!rc && access(dir, R_OK) < 0)
        rc = path_format(dir, err, "%s/root/lib/modules/%s", job->work_dir, job->kernel_version);
    return rc;
}

static int add_module(struct image_job *job, struct closure *closure, const char *tree, const char *name, struct tv_error *err);

static int add_depends(struct image_job *job, struct closure *closure, const char *tree, const char *depends, struct tv_error *err)
{
    char names[512];
    snprintf(names, sizeof(names), "%s", depends);
    char *save = NULL;
    for (char *name = strtok_r(names, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        int rc = add_module(job, closure, tree, name, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int add_module(struct image_job *job, struct closure *closure, const char *tree, const char *name, struct tv_error *err)
{
    for (size_t i = 0; i < closure->n; i++)
        if (strlen(closure->modules[i].name) == strlen(name) && same_name(closure->modules[i].name, name, strlen(name)))
            return 0;
    if (closure->n == MODULES_MAX)
        return tv_error_set(err, -E2BIG, "more than %d kernel modules", MODULES_MAX);
    char root[PATH_MAX];
    int rc = image_modules_dir(job, root, err);
    struct module *module = &closure->modules[closure->n];
    memset(module, 0, sizeof(*module));
    if (!rc)
        rc = find_module(root, name, module->xz, err);
    if (rc == -ENOENT && is_built_in(root, name))
        return 0;
    if (rc == -ENOENT)
        return tv_error_set(err, rc, "kernel %s has no module '%s'", job->kernel_version, name);
    if (rc)
        return rc;
    snprintf(module->name, sizeof(module->name), "%.63s", name);
    const char *relative = module->xz + strlen(root) + 1;
    size_t path_len = (size_t)(strstr(relative, ".ko") + 3 - relative);
    if (path_len >= sizeof(module->path))
        return tv_error_set(err, -ENAMETOOLONG, "%s: the path is too long", module->xz);
    memcpy(module->path, relative, path_len);
    rc = path_format(module->installed, err, "%s/lib/modules/%s/%s", tree, job->kernel_version, module->path);
    if (!rc)
        rc = install_module(module, err);
    closure->n++;
    return rc ? rc : add_depends(job, closure, tree, module->depends, err);
}

static const struct module *by_name(const struct closure *closure, const char *name)
{
    for (size_t i = 0; i < closure->n; i++)
        if (strlen(closure->modules[i].name) == strlen(name) && same_name(closure->modules[i].name, name, strlen(name)))
            return &closure->modules[i];
    return NULL;
}

// modules.dep(5): a module and all it needs, directly or not, the last to be loaded first.
static void write_chain(FILE *f, const struct closure *closure, const struct module *module, unsigned depth)
{
    char names[512];
    snprintf(names, sizeof(names), "%s", module->depends);
    char *save = NULL;
    for (char *name = strtok_r(names, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        const struct module *needed = by_name(closure, name);
        if (!needed || depth == MODULES_MAX)
            continue;
        fprintf(f, " %s", needed->path);
        write_chain(f, closure, needed, depth + 1);
    }
}

static int add_modules(struct image_job *job, struct closure *closure, const char *tree, const char *const names[],
                       struct tv_error *err)
{
    for (const char *const *name = names; *name; name++) {
        int rc = add_module(job, closure, tree, *name, err);
        if (rc)
            return rc;
    }
    return 0;
}

int image_modules_install(struct image_job *job, const char *const more[], const char *tree, struct tv_error *err)
{
    cleanup_free struct closure *closure = calloc(1, sizeof(*closure));
    if (!closure)
        return tv_error_set(err, -ENOMEM, "no memory");
    char path[PATH_MAX];
    int rc = add_modules(job, closure, tree, job->arch->modules, err);
    if (!rc)
        rc = add_modules(job, closure, tree, more, err);
    if (!rc)
        rc = path_format(path, err, "%s/lib/modules/%s/modules.dep", tree, job->kernel_version);
    if (rc)
        return rc;
    cleanup_fclose FILE *f = fopen(path, "we");
    if (!f)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    for (size_t i = 0; i < closure->n; i++) {
        fprintf(f, "%s:", closure->modules[i].path);
        write_chain(f, closure, &closure->modules[i], 0);
        fputc('\n', f);
    }
    return 0;
}
