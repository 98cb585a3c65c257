// The images with a Debian root: see parts.h.
//
// debootstrap's first stage runs here, its second in a machine that boots the disk of the first: no foreign program runs on this
// host, and nothing needs root. Where no machine can run it, since KVM does not work, but the host's own processor can, both stages
// run in namespaces of their own (why: docs/decisions/0032-debian-without-a-machine.md). What they say goes to
// STATE/images/.NAME.log, which stays only when one of them fails.
#include "control/image/parts.h"

#include "control/cleanup.h"
#include "control/files.h"
#include "control/image/guest_files.h"
#include "control/image/image.h"
#include "control/paths.h"
#include "control/tool.h"
#include "machine/engine/kvm/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#define DISK_SIZE "4G" // sparse: what is not used takes no room
#define STAGE_TWO_PATH "debootstrap/trivet"

// The root: names and patterns of apt-patterns(7). --no-install-recommends holds for all of them. debootstrap wants usr-is-merged
// where apt alone would take usrmerge.
static const char *const base[] = {"?essential", "?priority(required)", "usr-is-merged", "apt",    "systemd-sysv", "udev",
                                   "dbus",       "libpam-systemd",      "kmod",          "procps", "iproute2",     "less",
                                   "gcc",        "libc6-dev",           "python3",       NULL};
// What the package disk has besides.
static const char *const extra[] = {"make", "g++", "bc", "file", "pigz", "sqlite3", "strace", "zstd", NULL};

static const char *const modules[] = {"autofs4", "binfmt_misc", "configfs", "loop", "overlay", "squashfs", "tun", "vfat", NULL};

static const struct {
    const char *name, *path;
    mode_t mode;
} places[] = {
    {"second-stage", STAGE_TWO_PATH, 0755},
    {"control-port", "usr/sbin/control-port", 0755},
    {"trivet-control.service", "etc/systemd/system/trivet-control.service", 0644},
    {NULL, NULL, 0},
};

struct stages {
    struct image_job *job;
    char repository[PATH_MAX], files[PATH_MAX], disk[PATH_MAX], packages[PATH_MAX], log[PATH_MAX];
    int log_fd;
    bool in_namespaces; // both stages, and no machine
};

// --- progress

// The last "I: ..." of the log, of both stages of debootstrap.
static void show_log(void *arg)
{
    const struct stages *s = arg;
    char text[1025];
    struct stat st;
    if (fstat(s->log_fd, &st) < 0)
        return;
    off_t from = st.st_size > 1024 ? st.st_size - 1024 : 0;
    ssize_t len = pread(s->log_fd, text, sizeof(text) - 1, from);
    text[len > 0 ? len : 0] = 0;
    char *end = strrchr(text, '\n'); // a line that is whole
    if (!end)
        return;
    *end = 0;
    for (char *line; (line = strrchr(text, '\n')); *line = 0)
        if (strncmp(line + 1, "I: ", 3) == 0) {
            image_transient(s->job, "%.*s", (int)strcspn(line + 4, "\r"), line + 4);
            return;
        }
}

// --- the first stage

static int put_files(const struct stages *s, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = 0;
    for (size_t i = 0; places[i].name && !rc; i++) {
        const struct guest_file *file = image_guest_file(places[i].name);
        rc = path_format(path, err, "%s/%s", s->files, places[i].path);
        if (rc)
            return rc;
        char *slash = strrchr(path, '/');
        *slash = 0;
        rc = dir_make(path, 0755, err);
        *slash = '/';
        if (!rc)
            rc = file_write_all(path, file->data, file->len_bytes, places[i].mode, err);
    }
    if (!rc)
        rc = path_format(path, err, "%s/usr", s->files);
    return rc ? rc : image_modules_install(s->job, modules, path, err);
}

// What depmod(8) reads of the kernel's package beside the modules.
static int put_module_lists(const struct stages *s, struct tv_error *err)
{
    static const char *const lists[] = {"modules.builtin", "modules.builtin.modinfo", "modules.order", NULL};
    const char *version = s->job->kernel_version;
    char from[PATH_MAX], to[PATH_MAX], modules_dir[PATH_MAX];
    int rc = 0;
    for (const char *const *list = lists; *list && !rc; list++) {
        rc = image_modules_dir(s->job, modules_dir, err);
        if (!rc)
            rc = path_format(from, err, "%s/%s", modules_dir, *list);
        if (!rc)
            rc = path_format(to, err, "%s/usr/lib/modules/%s/%s", s->files, version, *list);
        if (!rc)
            rc = file_copy(from, to, 0644, err);
    }
    return rc;
}

// What gives the first stage the rights of root over its files: a pretence of it, or namespaces, a user's with the ids that
// /etc/subuid gives him. Ends with NULL.
static const char *const *wrapping(const struct stages *s)
{
    static const char *const pretend[] = {"fakeroot", "--", NULL};
    static const char *const root[] = {"unshare", "--mount", "--pid", "--fork", "--kill-child",
                                       "--ipc",   "--uts",   "--net", "--",     NULL};
    static const char *const user[] = {"unshare",      "--user", "--map-root-user", "--map-auto", "--mount", "--pid", "--fork",
                                       "--kill-child", "--ipc",  "--uts",           "--net",      "--",      NULL};
    return !s->in_namespaces ? pretend : geteuid() == 0 ? root : user;
}

static int check_programs(const struct stages *s, struct tv_error *err)
{
    static const char *const debootstrap[] = {"debootstrap", "--version", NULL};
    static const char *const newuidmap[] = {"sh", "-c", "command -v newuidmap", NULL};
    int rc = tool_run(&(struct tool){.argv = debootstrap, .package = "debootstrap"}, err);
    if (!rc && s->in_namespaces && geteuid() != 0 && tool_run(&(struct tool){.argv = newuidmap, .package = "dash"}, NULL))
        rc = tv_error_set(err, -ENOENT,
                          "program 'newuidmap' is missing: install the Debian package 'uidmap', or build the image as root");
    return rc;
}

static int first_stage(const struct stages *s, const char *names, struct tv_error *err)
{
    const struct guest_file *script = image_guest_file("first-stage");
    cleanup_free char *text = strndup((const char *)script->data, script->len_bytes);
    const char *argv[32], *const *wrap = wrapping(s);
    const char *const words[] = {"sh",
                                 "-c",
                                 text,
                                 "first-stage",
                                 s->job->arch->name,
                                 s->job->suite,
                                 s->repository,
                                 s->files,
                                 s->disk,
                                 DISK_SIZE,
                                 names,
                                 s->in_namespaces ? "all" : "first",
                                 NULL};
    if (!text)
        return tv_error_set(err, -ENOMEM, "no memory");
    int rc = check_programs(s, err);
    if (rc)
        return rc;
    size_t n = 0;
    for (; *wrap; wrap++)
        argv[n++] = *wrap;
    memcpy(argv + n, words, sizeof(words));
    image_step(s->job, s->in_namespaces ? "debootstrap, in namespaces of its own" : "debootstrap, first stage");
    rc = tool_run(&(struct tool){.argv = argv,
                                 .package = s->in_namespaces ? "util-linux" : "fakeroot",
                                 .stdout_fd = s->log_fd,
                                 .tick = show_log,
                                 .arg = (void *)s},
                  err);
    return rc && rc != -EINTR ? tv_error_prefix(err, "debootstrap's first stage (%s)", s->log) : rc;
}

// --- the package disk

static int write_packages(const struct stages *s, struct tv_error *err)
{
    char size[32];
    snprintf(size, sizeof(size), "%lluK", (unsigned long long)(tree_size(s->repository) / 1024 * 21 / 20 + 8192));
    const char *const argv[] = {"mke2fs", "-q",          "-F",           "-t", "ext4",
                                "-L",     "packages",    "-m",           "0",  "-N",
                                "4096",   "-O",          "^has_journal", "-E", "root_owner=0:0,lazy_itable_init=0",
                                "-d",     s->repository, s->packages,    size, NULL};
    image_step(s->job, "writing the package disk");
    return tool_run(&(struct tool){.argv = argv, .package = "e2fsprogs"}, err);
}

// --- the second stage

// The second stage's last line: "TRIVET-IMAGE done", or "TRIVET-IMAGE failed ...".
static int read_outcome(const struct stages *s, struct tv_error *err)
{
    static const char mark[] = "TRIVET-IMAGE ";
    cleanup_free char *text = NULL;
    int rc = file_read_all(s->log, 64u << 20, &text, NULL, err);
    if (rc)
        return rc;
    const char *said = NULL;
    for (const char *at = text; (at = strstr(at, mark)); at++)
        said = at + strlen(mark);
    if (said && strncmp(said, "done", 4) == 0)
        return 0;
    if (!said)
        said = "failed it ended before it was through";
    said += strncmp(said, "failed ", 7) == 0 ? 7 : 0;
    return tv_error_set(err, -EIO, "the second stage: %.*s; all that it said is in %s", (int)strcspn(said, "\r\n"), said, s->log);
}

static int second_stage(const struct stages *s, struct tv_error *err)
{
    if (s->in_namespaces) // it is over
        return read_outcome(s, err);
    char kernel[PATH_MAX], initrd[PATH_MAX], packages[PATH_MAX];
    int rc = path_format(kernel, err, "%s/kernel", s->job->out_dir);
    if (!rc)
        rc = path_format(initrd, err, "%s/initrd", s->job->out_dir);
    if (!rc)
        rc = path_format(packages, err, "%s,read-only", s->packages);
    if (rc)
        return rc;
    const char *const argv[] = {"/proc/self/exe",
                                "run",
                                "--name",
                                s->job->name,
                                "--kernel",
                                kernel,
                                "--initrd",
                                initrd,
                                "--memory",
                                "1G",
                                "--cpus",
                                get_nprocs() > 1 ? "2" : "1",
                                "--disk",
                                s->disk,
                                "--disk",
                                packages,
                                "--append",
                                ("console=ttyS0 quiet root=/dev/vda rw init=/" STAGE_TWO_PATH),
                                NULL};
    image_step(s->job, "debootstrap, second stage, in a machine (a few minutes)");
    rc = tool_run(&(struct tool){.argv = argv, .package = "trivet", .stdout_fd = s->log_fd, .tick = show_log, .arg = (void *)s},
                  err);
    if (rc && rc != -EINTR)
        return tv_error_prefix(err, "the machine for the second stage (its console: %s)", s->log);
    return rc ? rc : read_outcome(s, err);
}

// --- all of it

// An image for riscv64 has the software engine on any host.
static int choose_way(struct stages *s, struct tv_error *err)
{
    if (!image_is_amd64(s->job->name))
        return 0;
    struct kvm_fitness fitness = {.fit = false};
    struct utsname host;
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    kvm_probe(fd, &fitness);
    if (fd >= 0)
        close(fd);
    if (fitness.fit)
        return 0;
    if (uname(&host) < 0 || strcmp(host.machine, "x86_64") != 0)
        return tv_error_set(err, -ENODEV, "image '%s' is finished by programs for x86-64, which this host cannot run",
                            s->job->name);
    s->in_namespaces = true;
    return 0;
}

static int open_stages(struct stages *s, struct tv_error *err)
{
    const struct image_job *job = s->job;
    int rc = path_format(s->repository, err, "%s/repository", job->work_dir);
    if (!rc)
        rc = path_format(s->files, err, "%s/files", job->work_dir);
    if (!rc)
        rc = path_format(s->disk, err, "%s/disk.raw", job->out_dir);
    if (!rc)
        rc = path_format(s->packages, err, "%s/packages.raw", job->out_dir);
    if (!rc)
        rc = path_format(s->log, err, "%.*s.%s.log", (int)(strrchr(job->out_dir, '/') + 1 - job->out_dir), job->out_dir, job->name);
    if (rc)
        return rc;
    s->log_fd = open(s->log, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
    return s->log_fd < 0 ? tv_error_set(err, -errno, "%s: %s", s->log, strerror(errno)) : 0;
}

static int run_stages(const struct stages *s, struct tv_error *err)
{
    cleanup_free char *names = NULL;
    int rc = image_repository_make(s->job, base, extra, s->repository, &names, err);
    if (!rc)
        rc = put_files(s, err);
    if (!rc)
        rc = put_module_lists(s, err);
    if (!rc)
        rc = first_stage(s, names, err);
    if (!rc)
        rc = write_packages(s, err);
    return rc ? rc : second_stage(s, err);
}

int image_debian_write(struct image_job *job, struct tv_error *err)
{
    struct stages s = {.job = job};
    int rc = choose_way(&s, err);
    if (!rc)
        rc = open_stages(&s, err);
    if (rc)
        return rc;
    rc = run_stages(&s, err);
    struct stat st;
    if (!rc || rc == -EINTR || (fstat(s.log_fd, &st) == 0 && st.st_size == 0))
        unlink(s.log);
    close(s.log_fd);
    return rc;
}

uint64_t image_debian_recipe(void)
{
    uint64_t recipe = image_tree_recipe(); // the initrd is the busybox image's
    const char *const *const lists[] = {base, extra, modules, NULL};
    for (const char *const *const *list = lists; *list; list++)
        for (const char *const *word = *list; *word; word++)
            recipe = image_recipe_add(recipe, *word, strlen(*word) + 1);
    const struct guest_file *script = image_guest_file("first-stage");
    recipe = image_recipe_add(recipe, script->data, script->len_bytes);
    for (size_t i = 0; places[i].name; i++) {
        const struct guest_file *file = image_guest_file(places[i].name);
        recipe = image_recipe_add(recipe, places[i].path, strlen(places[i].path));
        recipe = image_recipe_add(recipe, file->data, file->len_bytes);
    }
    return recipe;
}
