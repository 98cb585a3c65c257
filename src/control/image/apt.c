// Packages of the distribution through apt, in a root of its own: see parts.h.
//
// The host's apt gives the mirror and the way to it (Acquire: proxies and the like), nothing else: lists, cache, status and sources
// are private, for another architecture and suite. Every package is verified by apt, from the signed Release file down to the
// hash of the .deb; all switches that would take an unsigned one are off.
#include "control/image/parts.h"

#include "control/cleanup.h"
#include "control/files.h"
#include "control/paths.h"
#include "control/tool.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define KEYRING "/usr/share/keyrings/debian-archive-keyring.gpg"
#define KERNEL_PREFIX "linux-image-"

// VERSION_CODENAME of os-release(5).
static int host_codename(char name[static 64], struct tv_error *err)
{
    cleanup_free char *text = NULL;
    int rc = file_read_all("/etc/os-release", 65536, &text, NULL, err);
    if (rc)
        return rc;
    const char *key = strstr(text, "VERSION_CODENAME=");
    if (!key || sscanf(key, "VERSION_CODENAME=%*1[\"]%63[a-z]", name) == 1 || sscanf(key, "VERSION_CODENAME=%63[a-z]", name) == 1)
        return key ? 0 : tv_error_set(err, -ENOENT, "/etc/os-release names no release; say the mirror with --mirror URL");
    return tv_error_set(err, -ENOENT, "/etc/os-release names no release; say the mirror with --mirror URL");
}

int image_apt_mirror(char mirror[static PATH_MAX], struct tv_error *err)
{
    char codename[64];
    int rc = host_codename(codename, err);
    if (rc)
        return rc;
    static const char *const argv[] = {
        "apt-get", "indextargets", "--format", "$(COMPONENT)|$(RELEASE)|$(ORIGIN)|$(CODENAME)|$(REPO_URI)", "Created-By: Packages",
        NULL};
    cleanup_free char *out = NULL;
    rc = tool_output(&(struct tool){.argv = argv, .package = "apt"}, &out, err);
    if (rc)
        return rc;
    // A field that apt does not know yet (no list was fetched) stays as it was written: "$(ORIGIN)".
    char *save = NULL;
    for (char *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *fields[5] = {0}, *rest = line;
        for (int i = 0; i < 5; i++)
            fields[i] = strsep(&rest, "|");
        if (!fields[4] || strcmp(fields[0], "main") != 0)
            continue;
        bool ours = strcmp(fields[2], "Debian") == 0 || fields[2][0] == '$';
        if (ours && (strcmp(fields[1], codename) == 0 || strcmp(fields[3], codename) == 0))
            return path_format(mirror, err, "%s", fields[4]);
    }
    return tv_error_set(err, -ENOENT, "the host's apt names no mirror with 'main' of Debian %s; say one with --mirror URL",
                        codename);
}

// How the host reaches its mirrors, without what would lower the guard.
static int host_acquire(FILE *conf, struct tv_error *err)
{
    static const char *const argv[] = {"apt-config", "dump", "Acquire", NULL};
    cleanup_free char *out = NULL;
    int rc = tool_output(&(struct tool){.argv = argv, .package = "apt"}, &out, err);
    if (rc)
        return rc;
    char *save = NULL;
    for (char *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (!strstr(line, "::Allow") && !strstr(line, "Verify-") && !strstr(line, "IndexTargets") && !strstr(line, "Languages"))
            fprintf(conf, "%s\n", line);
    return 0;
}

static int write_sources(const struct image_job *job, struct tv_error *err)
{
    char path[PATH_MAX], text[PATH_MAX + 256];
    int rc = path_format(path, err, "%s/sources.list", job->apt_dir);
    if (rc)
        return rc;
    int len =
        snprintf(text, sizeof(text), "deb [arch=%s signed-by=%s] %s %s main\n", job->arch->name, KEYRING, job->mirror, job->suite);
    return file_write_all(path, text, (size_t)len, 0644, err);
}

static int write_conf(const struct image_job *job, const char *path, struct tv_error *err)
{
    cleanup_fclose FILE *conf = fopen(path, "we");
    if (!conf)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    int rc = host_acquire(conf, err);
    if (rc)
        return rc;
    const char *dir = job->apt_dir;
    fprintf(conf, "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n");
    fprintf(conf, "Dir::Etc::sourcelist \"%s/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n", dir);
    fprintf(conf, "Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n");
    fprintf(conf, "Dir::State::Lists \"%s/lists\";\nDir::State::status \"%s/status\";\nDir::Cache \"%s/cache\";\n", dir, dir, dir);
    fprintf(conf, "APT::Architecture \"%s\";\nAPT::Architectures { \"%s\"; };\nAcquire::Languages \"none\";\n", job->arch->name,
            job->arch->name);
    fprintf(conf, "APT::Sandbox::User \"\";\n"); // the folders are ours alone, as a plain user there is no other choice
    fprintf(conf, "APT::Update::Error-Mode \"any\";\nAPT::Get::AllowUnauthenticated \"false\";\n");
    fprintf(conf, "Acquire::AllowInsecureRepositories \"false\";\nAcquire::AllowWeakRepositories \"false\";\n");
    fprintf(conf, "Acquire::AllowDowngradeToInsecureRepositories \"false\";\nAcquire::Retries \"3\";\n");
    errno = EIO;
    return fflush(conf) != 0 || ferror(conf) ? tv_error_set(err, -errno, "%s: cannot be written: %s", path, strerror(errno)) : 0;
}

static int prepare(struct image_job *job, char conf_env[static PATH_MAX], struct tv_error *err)
{
    static const char *const folders[] = {"lists/partial", "cache/archives/partial", "archives", NULL};
    char path[PATH_MAX];
    int rc = 0;
    for (const char *const *f = folders; *f && !rc; f++) {
        rc = path_format(path, err, "%s/%s", job->apt_dir, *f);
        if (!rc)
            rc = dir_make(path, 0755, err);
    }
    if (!rc)
        rc = path_format(path, err, "%s/status", job->apt_dir);
    if (!rc)
        rc = file_write_all(path, "", 0, 0644, err);
    if (!rc)
        rc = path_format(conf_env, err, "APT_CONFIG=%s/apt.conf", job->apt_dir);
    if (!rc)
        rc = write_conf(job, conf_env + strlen("APT_CONFIG="), err);
    if (!rc)
        rc = write_sources(job, err);
    return rc;
}

struct fetch {
    struct image_job *job;
    const char *what;
    const char *dir;
    uint64_t total_bytes; // 0: not known
};

static void show_fetch(void *arg)
{
    const struct fetch *f = arg;
    uint64_t have = tree_size(f->dir);
    if (f->total_bytes)
        image_transient(f->job, "%s: %llu of %llu MB", f->what, (unsigned long long)(have / 1000000),
                        (unsigned long long)(f->total_bytes / 1000000));
    else
        image_transient(f->job, "%s: %llu MB", f->what, (unsigned long long)(have / 1000000));
}

static int update_lists(struct image_job *job, const char *const env[], struct tv_error *err)
{
    char lists[PATH_MAX];
    int rc = path_format(lists, err, "%s/lists", job->apt_dir);
    if (rc)
        return rc;
    image_step(job, "reading the index of %s (%s) from %s", job->suite, job->arch->name, job->mirror);
    static const char *const argv[] = {"apt-get", "-q", "update", NULL};
    struct fetch fetch = {.job = job, .what = "index", .dir = lists};
    rc = tool_run(&(struct tool){.argv = argv, .package = "apt", .env = env, .tick = show_fetch, .arg = &fetch}, err);
    if (rc == -EINTR)
        return rc;
    if (rc)
        tv_error_prefix(err, "mirror %s (another one by --mirror URL)", job->mirror);
    return rc;
}

// The meta package depends on the kernel of the day.
static int resolve_kernel(const struct image_arch *arch, const char *const env[], char package[static 128], struct tv_error *err)
{
    const char *const argv[] = {"apt-cache", "depends", arch->kernel_meta, NULL};
    cleanup_free char *out = NULL;
    int rc = tool_output(&(struct tool){.argv = argv, .package = "apt", .env = env}, &out, err);
    if (rc)
        return rc;
    const char *line = strstr(out, "Depends: " KERNEL_PREFIX);
    if (!line || sscanf(line, "Depends: %127s", package) != 1)
        return tv_error_set(err, -ENOENT, "package %s depends on no kernel", arch->kernel_meta);
    return 0;
}

// One package as `apt-get download --print-uris` tells it: 'URI' NAME_VERSION_ARCH.deb SIZE HASH.
struct package {
    char file[256];
    uint64_t size_bytes;
};

static int list_packages(struct image_job *job, const char *const env[], const char *const argv[],
                         struct package packages[static 2], struct tv_error *err)
{
    cleanup_free char *out = NULL;
    int rc = tool_output(&(struct tool){.argv = argv, .package = "apt", .env = env}, &out, err);
    if (rc)
        return rc;
    size_t n = 0;
    char *save = NULL;
    for (char *line = strtok_r(out, "\n", &save); line && n < 2; line = strtok_r(NULL, "\n", &save)) {
        unsigned long long size;
        if (sscanf(line, "'%*[^']' %255s %llu", packages[n].file, &size) != 2)
            continue;
        packages[n].size_bytes = size;
        char name[256], version[128];
        if (strchr(packages[n].file, '/') || sscanf(packages[n].file, "%255[^_]_%127[^_]", name, version) != 2)
            return tv_error_set(err, -EINVAL, "package file '%s' has no name like NAME_VERSION_ARCH.deb", packages[n].file);
        json_array_append_new(job->packages,
                              json_pack("{s:s, s:s, s:s}", "name", name, "version", version, "file", packages[n].file));
        n++;
    }
    return n == 2 ? 0 : tv_error_set(err, -ENOENT, "the suite %s lacks one of %s, %s", job->suite, argv[3], argv[4]);
}

static int unpack(struct image_job *job, const char *archives, const struct package *package, struct tv_error *err)
{
    char deb[PATH_MAX], root[PATH_MAX];
    int rc = path_format(deb, err, "%s/%s", archives, package->file);
    if (!rc)
        rc = path_format(root, err, "%s/root", job->work_dir);
    if (rc)
        return rc;
    image_step(job, "unpacking %s", package->file);
    const char *const argv[] = {"dpkg-deb", "-x", deb, root, NULL};
    struct fetch fetch = {.job = job, .what = "unpacked", .dir = root};
    return tool_run(&(struct tool){.argv = argv, .package = "dpkg", .tick = show_fetch, .arg = &fetch}, err);
}

// Packages of an earlier day; what is current stays and is not fetched again.
static void remove_old(const char *archives, const struct package packages[static 2])
{
    DIR *dir = opendir(archives);
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir));)
        if (strcmp(e->d_name, packages[0].file) != 0 && strcmp(e->d_name, packages[1].file) != 0)
            unlinkat(dirfd(dir), e->d_name, 0);
    closedir(dir);
}

static int download(struct image_job *job, const char *const env[], const char *kernel, struct tv_error *err)
{
    char archives[PATH_MAX];
    struct package packages[2];
    const char *const print[] = {"apt-get", "download", "--print-uris", kernel, "busybox-static", NULL};
    const char *const get[] = {"apt-get", "-q", "download", kernel, "busybox-static", NULL};
    int rc = path_format(archives, err, "%s/archives", job->apt_dir);
    if (!rc)
        rc = list_packages(job, env, print, packages, err);
    if (rc)
        return rc;
    remove_old(archives, packages);
    struct fetch fetch = {.job = job, .what = "fetched", .dir = archives};
    for (int i = 0; i < 2; i++)
        fetch.total_bytes += packages[i].size_bytes;
    image_step(job, "fetching %s and busybox-static (%llu MB)", kernel, (unsigned long long)(fetch.total_bytes / 1000000));
    rc = tool_run(&(struct tool){.argv = get, .package = "apt", .cwd = archives, .env = env, .tick = show_fetch, .arg = &fetch},
                  err);
    for (int i = 0; i < 2 && !rc; i++)
        rc = unpack(job, archives, &packages[i], err);
    return rc;
}

void image_apt_forget(const struct image_job *job)
{
    char archives[PATH_MAX];
    if (path_format(archives, NULL, "%s/archives", job->apt_dir) == 0 && tree_size(archives) == 0)
        tree_remove(job->apt_dir, NULL);
}

int image_apt_fetch(struct image_job *job, struct tv_error *err)
{
    char conf_env[PATH_MAX], kernel[128];
    if (access(KEYRING, R_OK) < 0)
        return tv_error_set(err, -errno, "%s: the keys to verify packages with are missing: install debian-archive-keyring",
                            KEYRING);
    int rc = prepare(job, conf_env, err);
    const char *const env[] = {conf_env, NULL};
    if (!rc)
        rc = update_lists(job, env, err);
    if (!rc)
        rc = resolve_kernel(job->arch, env, kernel, err);
    if (rc)
        return rc;
    snprintf(job->kernel_version, sizeof(job->kernel_version), "%.*s", (int)(sizeof(job->kernel_version) - 1),
             kernel + strlen(KERNEL_PREFIX));
    return download(job, env, kernel, err);
}
