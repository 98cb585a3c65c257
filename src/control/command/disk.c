// trivet disk VERB ...: the verbs, and those that ask a disk's store: stat, resize.
#include "control/command/disk.h"

#include "control/cleanup.h"
#include "control/command/disk_access.h"
#include "control/tool.h"
#include "store/open.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int disk_failed(const struct disk_command *c, const struct tv_error *err)
{
    int status = command_failed("disk", c->json, command_status(err), err);
    return tool_interrupted() ? 128 + tool_interrupted() : status;
}

// --- stat

static json_int_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static uint64_t allocated_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

#define TREE_DEPTH_MAX 64

static void print_volume(const json_t *volume, int depth);

static void print_children(const json_t *volume, int depth)
{
    const char *key;
    json_t *member, *element;
    size_t i;
    json_object_foreach((json_t *)volume, key, member)
    {
        if (json_is_object(member))
            print_volume(member, depth);
        json_array_foreach(member, i, element) print_volume(element, depth);
    }
}

// The tree of a volume, a line for each, with what it takes of the host. Where it names a volume file, what that tells of follows.
static void print_volume(const json_t *volume, int depth)
{
    const char *type = json_string_value(json_object_get(volume, "type"));
    const char *path = json_string_value(json_object_get(volume, "path"));
    cleanup_json json_t *named = NULL;
    if (!type || depth > TREE_DEPTH_MAX)
        return;
    if (path && store_is_volume_file(path) && store_load_volume(path, &named, NULL) == 0) {
        printf("  %*s%s\n", 2 * depth, "", path);
        print_volume(named, depth + 1);
        return;
    }
    printf("  %*s%s", 2 * depth, "", type);
    if (path)
        printf("  %s, %.1f MB on the host", path, (double)allocated_bytes(path) / 1e6);
    putchar('\n');
    print_children(volume, depth + 1);
}

// Of the mirrors in what a store tells of a volume: the legs that cannot stand in for others now.
static void print_legs(const json_t *volume)
{
    const char *key;
    json_t *member, *element;
    size_t i;
    json_object_foreach((json_t *)volume, key, member)
    {
        if (json_is_object(member))
            print_legs(member);
        json_array_foreach(member, i, element)
        {
            const char *state = json_string_value(json_object_get(element, "state"));
            if (state && strcmp(state, "in sync") != 0)
                printf("  leg %" JSON_INTEGER_FORMAT " of the mirror is %s\n", number(element, "leg"), state);
            print_legs(element);
        }
    }
    if (json_is_true(json_object_get(volume, "degraded")))
        printf("  the mirror of %" JSON_INTEGER_FORMAT " legs is degraded, %.1f MB are to be made equal\n", number(volume, "legs"),
               (double)number(volume, "unsynced_bytes") / 1e6);
}

static void print_latency(const json_t *stat, const char *what, const char *count, const char *bytes)
{
    const json_t *latency = json_object_get(json_object_get(stat, "latency"), what);
    printf("%-6s %12" JSON_INTEGER_FORMAT " %12.1f MB   p50 %8.3f ms   p99 %8.3f ms   p99.9 %8.3f ms\n", what, number(stat, count),
           (double)number(stat, bytes) / 1e6, (double)number(latency, "p50_ns") / 1e6, (double)number(latency, "p99_ns") / 1e6,
           (double)number(latency, "p999_ns") / 1e6);
}

static void print_stat(const struct disk_access *disk, const json_t *stat, const json_t *volume)
{
    const char *promises = json_string_value(json_object_get(stat, "promises"));
    printf("%s: %s, %.1f MB, blocks of %d bytes%s\n", disk->label[0] ? disk->label : "disk", disk->path,
           (double)number(stat, "size_bytes") / 1e6, (int)number(stat, "block_size"),
           json_is_true(json_object_get(stat, "read_only")) ? ", read-only" : "");
    print_volume(volume, 0);
    print_legs(json_object_get(stat, "volume"));
    if (disk->trivetd_fd < 0)
        return;
    if (promises && promises[0])
        printf("promised %s\n", promises);
    print_latency(stat, "read", "reads", "read_bytes");
    print_latency(stat, "write", "writes", "written_bytes");
    printf("%" JSON_INTEGER_FORMAT " flushes, %" JSON_INTEGER_FORMAT " in flight, %" JSON_INTEGER_FORMAT " errors\n",
           number(stat, "flushes"), number(stat, "in_flight"), number(stat, "errors"));
}

static int disk_stat(const struct disk_command *c)
{
    struct tv_error err = {0};
    struct disk_access disk;
    cleanup_json json_t *stat = NULL, *volume = NULL;
    int rc = disk_find(c->words[0], &disk, &err);
    if (!rc)
        rc = disk_call(&disk, true, "disk.stat", json_object(), -1, &stat, &err);
    if (!rc)
        rc = store_load_volume(disk.path, &volume, &err);
    if (!rc && c->json) {
        json_object_set_new(stat, "path", json_string(disk.path));
        json_object_set_new(stat, "running", json_boolean(disk.trivetd_fd >= 0));
        json_object_set(stat, "specification", volume);
        command_print_json(json_incref(stat));
    } else if (!rc) {
        print_stat(&disk, stat, volume);
    }
    disk_release(&disk);
    return rc ? disk_failed(c, &err) : EXIT_OK;
}

// --- resize

static int resize(struct disk_access *disk, uint64_t size_bytes, json_t **result, struct tv_error *err)
{
    cleanup_json json_t *stat = NULL;
    int rc = disk_call(disk, false, "disk.stat", json_object(), -1, &stat, err);
    if (rc)
        return rc;
    const uint64_t now_bytes = (uint64_t)number(stat, "size_bytes");
    if (size_bytes < now_bytes)
        return tv_error_set(err, -EINVAL,
                            "%s: has %" PRIu64 " bytes; a disk is not made smaller, since its guest may have data there",
                            disk->path, now_bytes);
    return disk_call(disk, false, "disk.resize", json_pack("{s:I}", "size_bytes", (json_int_t)size_bytes), -1, result, err);
}

static int disk_resize(const struct disk_command *c)
{
    struct tv_error err = {0};
    struct disk_access disk;
    uint64_t size_bytes;
    cleanup_json json_t *result = NULL;
    int rc = spec_parse_size(c->words[1], "size", &size_bytes, &err);
    if (rc)
        return disk_failed(c, &err);
    rc = disk_find(c->words[0], &disk, &err);
    if (!rc)
        rc = resize(&disk, size_bytes, &result, &err);
    if (!rc && c->json)
        command_print_json(json_pack("{s:s, s:I}", "path", disk.path, "size_bytes", (json_int_t)size_bytes));
    else if (!rc)
        printf("%s: has %s now%s\n", disk.path, c->words[1], disk.trivetd_fd >= 0 ? ", and its machine was told" : "");
    disk_release(&disk);
    return rc ? disk_failed(c, &err) : EXIT_OK;
}

// --- the verbs

static const struct verb {
    const char *name;
    int n_words;
    int (*run)(const struct disk_command *c);
    const char *missing;
} verbs[] = {
    {"create", 1, disk_create, "which disk is missing"},
    {"clone", 2, disk_clone, "which disk, or the name of the new one, is missing"},
    {"resize", 2, disk_resize, "which disk, or its new size, is missing"},
    {"snapshot", 2, disk_snapshot, "which disk, or the snapshot's name, is missing"},
    {"snapshots", 1, disk_snapshots, "which disk is missing"},
    {"revert", 2, disk_revert, "which disk, or the snapshot's name, is missing"},
    {"drop", 2, disk_drop, "which disk, or the snapshot's name, is missing"},
    {"import", 2, disk_import, "which file, or the name of the new disk, is missing"},
    {"export", 2, disk_export, "which disk, or the file to be made, is missing"},
    {"promise", 2, disk_promise, "which disk, or what it is promised, is missing"},
    {"stat", 1, disk_stat, "which disk is missing"},
    {0},
};

int cmd_disk(int argc, char **argv)
{
    struct disk_command c = {0};
    const struct option_spec options[] = {
        {"--json", &c.json, NULL},       {"--quiet|-q", &c.quiet, NULL},    {"--size", NULL, &c.size},
        {"--over", NULL, &c.over},       {"--mirror", NULL, &c.mirror},     {"--format", NULL, &c.format},
        {"--encrypt", &c.encrypt, NULL}, {"--key-file", NULL, &c.key_file}, {0}};
    int words = command_options(command_find("disk"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    const struct verb *verb = verbs;
    while (words && verb->name && strcmp(argv[1], verb->name) != 0)
        verb++;
    if (!words || !verb->name)
        return command_usage("disk", words ? "no such thing as '%s'" : "what to do is missing", argv[1]);
    if (words < verb->n_words + 1)
        return command_usage("disk", "%s", verb->missing);
    if (words > verb->n_words + 1)
        return command_usage("disk", "unexpected '%s'", argv[verb->n_words + 2]);
    c.words = argv + 2;
    c.quiet |= c.json;
    return verb->run(&c);
}
