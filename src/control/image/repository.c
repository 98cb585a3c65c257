// A set of packages with all that it needs, as a small archive: see parts.h.
//
// apt resolves, fetches and verifies. What debootstrap and the guest's apt then read has the layout of the distribution's own
// archive (pool/, dists/) and its packages' own stanzas, but nobody's signature: it never leaves the image.
#include "control/image/parts.h"

#include "control/cleanup.h"
#include "control/files.h"
#include "control/paths.h"
#include "control/tool.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define PACKAGES_MAX 1024
#define ARGV_MAX (PACKAGES_MAX + 16)
#define COMPONENT "main"

// Words for a program. The words are borrowed.
struct words {
    const char *argv[ARGV_MAX + 1];
    size_t n;
};

static int add_words(struct words *words, const char *const more[], struct tv_error *err)
{
    for (; *more; more++) {
        if (words->n == ARGV_MAX)
            return tv_error_set(err, -E2BIG, "more than %d packages", PACKAGES_MAX);
        words->argv[words->n++] = *more;
    }
    return 0;
}

// Packages as "NAME=VERSION", each once.
struct set {
    char *text[PACKAGES_MAX];
    size_t n;
};

static void set_clear(struct set *set)
{
    while (set->n)
        free(set->text[--set->n]);
}

static int set_add(struct set *set, const char *name, const char *version, struct tv_error *err)
{
    char text[512];
    int len = snprintf(text, sizeof(text), "%s=%s", name, version);
    for (size_t i = 0; i < set->n; i++)
        if (strcmp(set->text[i], text) == 0)
            return 0;
    if (set->n == PACKAGES_MAX || len >= (int)sizeof(text))
        return tv_error_set(err, -E2BIG, "more than %d packages", PACKAGES_MAX);
    set->text[set->n] = strdup(text);
    return set->text[set->n++] ? 0 : tv_error_set(err, -ENOMEM, "no memory");
}

struct repository {
    struct image_job *job;
    const char *env[2];
    char apt_config[PATH_MAX]; // "APT_CONFIG=..."
    char archives[PATH_MAX];   // where apt puts what it fetches
    const char *dir;
    uint64_t total_bytes;
};

// What apt would install on an empty system: "Inst NAME (VERSION SUITE [ARCH])".
static int resolve(const struct repository *r, const char *const base[], const char *const extra[], struct set *set,
                   struct tv_error *err)
{
    static const char *const command[] = {"apt-get", "-qq", "--simulate", "--no-install-recommends", "install", NULL};
    struct words words = {.n = 0};
    int rc = add_words(&words, command, err);
    if (!rc)
        rc = add_words(&words, base, err);
    if (!rc)
        rc = add_words(&words, extra, err);
    cleanup_free char *out = NULL;
    if (!rc)
        rc = tool_output(&(struct tool){.argv = words.argv, .package = "apt", .env = r->env}, &out, err);
    char *save = NULL;
    for (char *line = rc ? NULL : strtok_r(out, "\n", &save); line && !rc; line = strtok_r(NULL, "\n", &save)) {
        char name[256], version[128];
        if (sscanf(line, "Inst %255[^ :] (%127[^ )]", name, version) == 2)
            rc = set_add(set, name, version, err);
    }
    return rc || set->n ? rc : tv_error_set(err, -ENOENT, "apt would install nothing of suite %s", r->job->suite);
}

// A program with a set as its last words.
static int with_set(const char *const command[], const struct set *set, struct words *words, struct tv_error *err)
{
    int rc = add_words(words, command, err);
    for (size_t i = 0; i < set->n && !rc; i++)
        rc = add_words(words, (const char *const[]){set->text[i], NULL}, err);
    return rc;
}

// A field of a stanza of Packages; "" when it has none.
static void field(const char *stanza, const char *name, char *value, size_t size)
{
    size_t len = strlen(name);
    value[0] = 0;
    for (const char *line = stanza; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, len) == 0 && line[len] == ':') {
            line += len + 1 + strspn(line + len + 1, " ");
            snprintf(value, size, "%.*s", (int)strcspn(line, "\n"), line);
            return;
        }
    }
}

struct stanza {
    char name[256], version[128], arch[32], path[512]; // path: in the archive, pool/...
    uint64_t size_bytes;
};

static int read_stanza(const char *text, struct stanza *s, struct tv_error *err)
{
    char size[32];
    field(text, "Package", s->name, sizeof(s->name));
    field(text, "Version", s->version, sizeof(s->version));
    field(text, "Architecture", s->arch, sizeof(s->arch));
    field(text, "Filename", s->path, sizeof(s->path));
    field(text, "Size", size, sizeof(size));
    bool good = s->name[0] && s->version[0] && s->arch[0] && strncmp(s->path, "pool/", 5) == 0 && !strstr(s->path, "..") &&
                !strpbrk(s->name, "/ ") && !strpbrk(s->version, "/ ") && !strpbrk(s->arch, "/ ");
    if (!good || sscanf(size, "%" SCNu64, &s->size_bytes) != 1)
        return tv_error_set(err, -EINVAL, "package '%s': its entry in the index is not whole", s->name);
    return 0;
}

// Calls `each` for all stanzas of an index; they are separated by empty lines.
static int for_stanzas(const struct repository *r, const char *index,
                       int (*each)(const struct repository *r, const struct stanza *s, void *arg, struct tv_error *err), void *arg,
                       struct tv_error *err)
{
    cleanup_free char *copy = strdup(index);
    if (!copy)
        return tv_error_set(err, -ENOMEM, "no memory");
    int rc = 0;
    for (char *at = copy, *end; at && *at && !rc; at = end) {
        struct stanza s;
        at += strspn(at, "\n");
        end = strstr(at, "\n\n");
        if (end)
            *end++ = 0;
        if (!*at)
            break;
        rc = read_stanza(at, &s, err);
        if (!rc)
            rc = each(r, &s, arg, err);
    }
    return rc;
}

static int add_size(const struct repository *r, const struct stanza *s, void *total, struct tv_error *err)
{
    (void)r, (void)err;
    *(uint64_t *)total += s->size_bytes;
    return 0;
}

static void show_download(void *arg)
{
    const struct repository *r = arg;
    image_transient(r->job, "fetched: %" PRIu64 " of %" PRIu64 " MB", tree_size(r->archives) / 1000000, r->total_bytes / 1000000);
}

static int download(struct repository *r, const struct set *set, struct tv_error *err)
{
    static const char *const clean[] = {"apt-get", "-qq", "autoclean", NULL}; // versions that the archive no longer has
    static const char *const get[] = {"apt-get", "-q", "-y", "--download-only", "--no-install-recommends", "install", NULL};
    struct words words = {.n = 0};
    int rc = tool_run(&(struct tool){.argv = clean, .package = "apt", .env = r->env}, err);
    if (!rc)
        rc = with_set(get, set, &words, err);
    if (rc)
        return rc;
    image_step(r->job, "fetching %zu packages (%" PRIu64 " MB)", set->n, r->total_bytes / 1000000);
    return tool_run(&(struct tool){.argv = words.argv, .package = "apt", .env = r->env, .tick = show_download, .arg = r}, err);
}

// The file that apt fetched, by its name in the archive. apt's own name for it has the epoch of the version.
static int put_package(const struct repository *r, const struct stanza *s, void *arg, struct tv_error *err)
{
    (void)arg;
    char from[PATH_MAX], to[PATH_MAX], version[256];
    const char *colon = strchr(s->version, ':');
    if (colon)
        snprintf(version, sizeof(version), "%.*s%%3a%s", (int)(colon - s->version), s->version, colon + 1);
    else
        snprintf(version, sizeof(version), "%s", s->version);
    int rc = path_format(from, err, "%s/%s_%s_%s.deb", r->archives, s->name, version, s->arch);
    if (!rc)
        rc = path_format(to, err, "%s/%s", r->dir, s->path);
    if (rc)
        return rc;
    char *slash = strrchr(to, '/');
    *slash = 0;
    rc = dir_make(to, 0755, err);
    *slash = '/';
    if (!rc && link(from, to) < 0)
        rc = tv_error_set(err, -errno, "%s: %s", from, strerror(errno));
    return rc;
}

static int write_index(const struct repository *r, const char *index, struct tv_error *err)
{
    char path[PATH_MAX], release[1024], sum[65], when[64];
    int rc = path_format(path, err, "%s/dists/%s/" COMPONENT "/binary-%s", r->dir, r->job->suite, r->job->arch->name);
    if (!rc)
        rc = dir_make(path, 0755, err);
    if (!rc)
        rc = path_format(path, err, "%s/dists/%s/" COMPONENT "/binary-%s/Packages", r->dir, r->job->suite, r->job->arch->name);
    if (!rc)
        rc = file_write_all(path, index, strlen(index), 0644, err);
    const char *const argv[] = {"sha256sum", path, NULL};
    cleanup_free char *out = NULL;
    if (!rc)
        rc = tool_output(&(struct tool){.argv = argv, .package = "coreutils"}, &out, err);
    if (!rc && sscanf(out, "%64[0-9a-f]", sum) != 1)
        rc = tv_error_set(err, -EIO, "sha256sum: no sum of %s", path);
    if (rc)
        return rc;
    time_t now = time(NULL);
    strftime(when, sizeof(when), "%a, %d %b %Y %H:%M:%S UTC", gmtime(&now));
    int len = snprintf(release, sizeof(release),
                       "Suite: %s\nCodename: %s\nDate: %s\nArchitectures: %s\nComponents: " COMPONENT
                       "\nSHA256:\n %s %zu " COMPONENT "/binary-%s/Packages\n",
                       r->job->suite, r->job->suite, when, r->job->arch->name, sum, strlen(index), r->job->arch->name);
    rc = path_format(path, err, "%s/dists/%s/Release", r->dir, r->job->suite);
    return rc ? rc : file_write_all(path, release, (size_t)len, 0644, err);
}

static int join_names(struct image_job *job, const struct set *set, char **names, struct tv_error *err)
{
    size_t len = 1;
    for (size_t i = 0; i < set->n; i++)
        len += strlen(set->text[i]) + 1;
    char *at = *names = malloc(len);
    if (!at)
        return tv_error_set(err, -ENOMEM, "no memory");
    for (size_t i = 0; i < set->n; i++) {
        size_t name_len = strcspn(set->text[i], "=");
        json_array_append_new(job->packages,
                              json_pack("{s:s%, s:s}", "name", set->text[i], name_len, "version", set->text[i] + name_len + 1));
        at += sprintf(at, "%s%.*s", i ? "," : "", (int)name_len, set->text[i]);
    }
    return 0;
}

static int make(struct repository *r, const char *const base[], const char *const extra[], struct set *sets, char **names,
                struct tv_error *err)
{
    static const char *const none[] = {NULL};
    static const char *const show[] = {"apt-cache", "--no-all-versions", "show", NULL};
    struct words words = {.n = 0};
    cleanup_free char *index = NULL;
    int rc = resolve(r, base, none, &sets[0], err);
    if (!rc)
        rc = resolve(r, base, extra, &sets[1], err);
    if (!rc)
        rc = with_set(show, &sets[1], &words, err);
    if (!rc)
        rc = tool_output(&(struct tool){.argv = words.argv, .package = "apt", .env = r->env}, &index, err);
    if (!rc)
        rc = for_stanzas(r, index, add_size, &r->total_bytes, err);
    if (!rc)
        rc = download(r, &sets[1], err);
    if (!rc)
        rc = for_stanzas(r, index, put_package, NULL, err);
    if (!rc)
        rc = write_index(r, index, err);
    return rc ? rc : join_names(r->job, &sets[0], names, err);
}

int image_repository_make(struct image_job *job, const char *const base[], const char *const extra[], const char *dir, char **names,
                          struct tv_error *err)
{
    struct repository r = {.job = job, .dir = dir};
    r.env[0] = r.apt_config;
    int rc = path_format(r.apt_config, err, "APT_CONFIG=%s/apt.conf", job->apt_dir);
    if (!rc)
        rc = path_format(r.archives, err, "%s/cache/archives", job->apt_dir);
    cleanup_free struct set *sets = rc ? NULL : calloc(2, sizeof(*sets));
    if (!sets)
        return rc ? rc : tv_error_set(err, -ENOMEM, "no memory");
    rc = make(&r, base, extra, sets, names, err);
    set_clear(&sets[0]);
    set_clear(&sets[1]);
    return rc;
}
