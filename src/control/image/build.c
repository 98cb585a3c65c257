// Images: see image.h.
#include "control/image/image.h"

#include "control/cleanup.h"
#include "control/files.h"
#include "control/image/parts.h"
#include "control/paths.h"
#include "control/tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#define TEMP_PREFIX ".new-"  // a build in progress; found under the lock, it was left by one that was killed
#define BUILD_SPACE "400 MB" // at its most, packages included (trixie, November 2026)

static const char *const riscv64_modules[] = {"virtio_blk",     "virtio-rng", "crc32c_generic", "ext4", "virtio_net",
                                              "virtio_balloon", NULL};
static const char *const amd64_modules[] = {"virtio_pci",     "virtio_blk",     "virtio_net",  "virtio_console",
                                            "virtio-rng",     "virtio_balloon", "pvpanic-pci", "button",
                                            "crc32c_generic", "ext4",           NULL};

// riscv64 is an architecture of Debian's since trixie.
static const struct image_arch riscv64 = {
    .name = "riscv64", .suite = "trixie", .kernel_meta = "linux-image-riscv64", .modules = riscv64_modules};
static const struct image_arch amd64 = {
    .name = "amd64", .suite = "bookworm", .kernel_meta = "linux-image-cloud-amd64", .modules = amd64_modules};

bool image_is_known(const char *name)
{
    return strcmp(name, IMAGE_BUSYBOX) == 0 || strcmp(name, IMAGE_BUSYBOX IMAGE_AMD64) == 0 || image_is_debian(name);
}

bool image_is_debian(const char *name)
{
    return strcmp(name, IMAGE_DEBIAN) == 0 || strcmp(name, IMAGE_DEBIAN IMAGE_AMD64) == 0;
}

bool image_is_amd64(const char *name)
{
    size_t len = strlen(name), end = strlen(IMAGE_AMD64);
    return len > end && strcmp(name + len - end, IMAGE_AMD64) == 0;
}

static const struct image_arch *arch_of(const char *name)
{
    return image_is_amd64(name) ? &amd64 : &riscv64;
}

int image_paths(struct image_paths *paths, const char *name, struct tv_error *err)
{
    char state[PATH_MAX];
    int rc = path_state_dir(state, err);
    if (!rc)
        rc = path_format(paths->dir, err, "%s/images/%s", state, name);
    if (!rc)
        rc = path_format(paths->kernel, err, "%s/kernel", paths->dir);
    if (!rc)
        rc = path_format(paths->initrd, err, "%s/initrd", paths->dir);
    if (!rc)
        rc = path_format(paths->disk, err, "%s/disk.raw", paths->dir);
    if (!rc)
        rc = path_format(paths->packages, err, "%s/packages.raw", paths->dir);
    if (!rc)
        rc = path_format(paths->json, err, "%s/image.json", paths->dir);
    return rc;
}

int image_find(struct image_paths *paths, const char *name, struct tv_error *err)
{
    if (!image_is_known(name))
        return tv_error_set(err, -ENOENT, "image '%s' is not known; there are " IMAGE_NAMES, name);
    int rc = image_paths(paths, name, err);
    if (rc)
        return rc;
    if (access(paths->json, R_OK) < 0)
        return tv_error_set(err, -errno, "image '%s' is not there (%s: %s); make it with `trivet image build %s`", name,
                            paths->json, strerror(errno), name);
    return 0;
}

int image_describe(const char *name, json_t **json, struct tv_error *err)
{
    struct image_paths paths;
    int rc = image_find(&paths, name, err);
    if (rc)
        return rc;
    json_error_t why;
    *json = json_load_file(paths.json, 0, &why);
    if (!*json)
        return tv_error_set(err, -EINVAL, "%s:%d: %s; make it anew with `trivet image build %s --rebuild`", paths.json, why.line,
                            why.text, name);
    return 0;
}

static void recipe_text(const char *name, char text[static 20])
{
    snprintf(text, 20, "%016" PRIx64, image_is_debian(name) ? image_debian_recipe() : image_tree_recipe());
}

static bool is_current(const struct image_request *request, const char *suite)
{
    cleanup_json json_t *json = NULL;
    if (image_describe(request->name, &json, NULL))
        return false;
    char recipe[20];
    recipe_text(request->name, recipe);
    const char *has_suite = json_string_value(json_object_get(json, "suite"));
    const char *has_recipe = json_string_value(json_object_get(json, "recipe"));
    return has_suite && has_recipe && strcmp(has_suite, suite) == 0 && strcmp(has_recipe, recipe) == 0;
}

// The lock of the folder of images; others wait for it, and can be interrupted in that.
static int lock_images(const char *images, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = path_format(path, err, "%s/.lock", images);
    if (rc)
        return rc;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    fprintf(stderr, "image: another build is going on (%s); waiting for it\n", path);
    while (flock(fd, LOCK_EX) < 0) {
        if (errno == EINTR && !tool_interrupted())
            continue;
        rc = tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
        close(fd);
        return rc;
    }
    return fd;
}

static void remove_leftovers(const char *images)
{
    DIR *dir = opendir(images);
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir));) {
        char path[PATH_MAX];
        if (strncmp(e->d_name, TEMP_PREFIX, strlen(TEMP_PREFIX)) == 0 && path_format(path, NULL, "%s/%s", images, e->d_name) == 0)
            tree_remove(path, NULL);
    }
    closedir(dir);
}

static int write_json(const struct image_job *job, struct tv_error *err)
{
    char recipe[20], when[32], path[PATH_MAX];
    recipe_text(job->name, recipe);
    time_t now = time(NULL);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    int rc = path_format(path, err, "%s/image.json", job->out_dir);
    if (rc)
        return rc;
    cleanup_json json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:O, s:s}", "name", job->name, "suite", job->suite,
                                          "mirror", job->mirror, "recipe", recipe, "kernel_version", job->kernel_version,
                                          "built_at", when, "packages", job->packages, "root", "/dev/vda");
    if (!json || json_dump_file(json, path, JSON_INDENT(2)) < 0)
        return tv_error_set(err, -EIO, "%s: cannot be written", path);
    return 0;
}

static int put_kernel(const struct image_job *job, struct tv_error *err)
{
    char from[PATH_MAX], to[PATH_MAX];
    int rc = path_format(from, err, "%s/root/boot/vmlinux-%s", job->work_dir, job->kernel_version);
    if (!rc && access(from, R_OK) < 0)
        rc = path_format(from, err, "%s/root/boot/vmlinuz-%s", job->work_dir, job->kernel_version);
    if (!rc)
        rc = path_format(to, err, "%s/kernel", job->out_dir);
    return rc ? rc : file_copy(from, to, 0644, err);
}

static int make_parts(struct image_job *job, struct tv_error *err)
{
    char tree[PATH_MAX], path[PATH_MAX];
    int rc = image_apt_fetch(job, err);
    if (!rc)
        rc = path_format(tree, err, "%s/tree", job->work_dir);
    image_step(job, "making the initrd, with the kernel's modules");
    if (!rc)
        rc = image_tree_make(job, tree, err);
    if (!rc)
        rc = put_kernel(job, err);
    if (rc)
        return rc;
    rc = path_format(path, err, "%s/initrd", job->out_dir);
    if (!rc)
        rc = image_initrd_write(tree, path, err);
    if (!rc && image_is_debian(job->name)) {
        rc = image_debian_write(job, err);
        return rc ? rc : write_json(job, err);
    }
    image_step(job, "writing the disk");
    if (!rc)
        rc = path_format(path, err, "%s/disk.raw", job->out_dir);
    if (!rc)
        rc = image_disk_write(tree, path, err);
    return rc ? rc : write_json(job, err);
}

// In place of what is there, at once: a reader sees the old image or the new one.
static int put_in_place(const struct image_job *job, const char *place, struct tv_error *err)
{
    if (rename(job->out_dir, place) == 0)
        return 0;
    if (errno == ENOTEMPTY || errno == EEXIST) {
        if (renameat2(AT_FDCWD, job->out_dir, AT_FDCWD, place, RENAME_EXCHANGE) == 0)
            return tree_remove(job->out_dir, err);
    }
    return tv_error_set(err, -errno, "%s: cannot be put in place: %s", place, strerror(errno));
}

static int explain_full(const char *images, int code, struct tv_error *err)
{
    struct statvfs fs;
    unsigned long long free_mb = statvfs(images, &fs) == 0 ? (unsigned long long)fs.f_bavail * fs.f_frsize / 1000000 : 0;
    return tv_error_set(err, code,
                        "%s: %s: building takes, with its packages, about " BUILD_SPACE
                        " there, and %llu MB are free; make room, or set "
                        "TRIVET_STATE_DIR to a folder on another disk",
                        images, strerror(-code), free_mb);
}

static int build_locked(struct image_job *job, const struct image_request *request, const char *images, const char *place,
                        struct tv_error *err)
{
    remove_leftovers(images);
    int rc = request->mirror ? path_format(job->mirror, err, "%s", request->mirror) : image_apt_mirror(job->mirror, err);
    if (!rc)
        rc = path_format(job->apt_dir, err, "%s/.apt-%s%s", images, job->suite, image_is_amd64(job->name) ? IMAGE_AMD64 : "");
    if (!rc)
        rc = path_format(job->work_dir, err, "%s/" TEMP_PREFIX "work", images);
    if (!rc)
        rc = path_format(job->out_dir, err, "%s/" TEMP_PREFIX "%s", images, job->name);
    if (!rc)
        rc = dir_make(job->work_dir, 0755, err);
    if (!rc)
        rc = dir_make(job->out_dir, 0755, err);
    if (!rc)
        rc = make_parts(job, err);
    if (!rc)
        rc = put_in_place(job, place, err);
    remove_leftovers(images);
    if (rc)
        image_apt_forget(job);
    return rc == -ENOSPC || rc == -EDQUOT ? explain_full(images, rc, err) : rc;
}

static int check_words(const struct image_request *request, const char *suite, struct tv_error *err)
{
    if (!image_is_known(request->name))
        return tv_error_set(err, -EINVAL, "image '%s' is not known; there are " IMAGE_NAMES, request->name);
    if (!suite[0] || strspn(suite, "abcdefghijklmnopqrstuvwxyz0123456789-.") != strlen(suite))
        return tv_error_set(err, -EINVAL, "--suite '%s' is no name of a suite, such as %s", suite, arch_of(request->name)->suite);
    if (request->mirror && (!strstr(request->mirror, ":/") || strpbrk(request->mirror, " \t\n[]")))
        return tv_error_set(err, -EINVAL, "--mirror '%s' is no URL, such as http://host/debian", request->mirror);
    return 0;
}

int image_build(const struct image_request *request, bool *built, struct tv_error *err)
{
    const char *suite = request->suite ? request->suite : arch_of(request->name)->suite;
    *built = false;
    int rc = check_words(request, suite, err);
    if (rc)
        return rc;
    if (!request->rebuild && is_current(request, suite))
        return 0;
    struct image_paths paths;
    char images[PATH_MAX], state[PATH_MAX];
    rc = image_paths(&paths, request->name, err);
    if (!rc)
        rc = path_format(images, err, "%.*s", (int)(strrchr(paths.dir, '/') - paths.dir), paths.dir);
    if (!rc)
        rc = path_state_dir(state, err);
    if (!rc)
        rc = dir_make_own(state, "TRIVET_STATE_DIR", err);
    if (!rc)
        rc = dir_make(images, 0755, err);
    if (rc)
        return rc;
    cleanup_close int lock = lock_images(images, err);
    if (lock < 0)
        return lock;
    if (!request->rebuild && is_current(request, suite)) // the one waited for has made it
        return 0;
    cleanup_json json_t *packages = json_array();
    struct image_job job = {
        .name = request->name, .suite = suite, .arch = arch_of(request->name), .packages = packages, .quiet = request->quiet};
    rc = build_locked(&job, request, images, paths.dir, err);
    *built = rc == 0;
    return rc;
}
