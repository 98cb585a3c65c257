// Disks for commands: see disk_access.h.
#include "control/command/disk_access.h"

#include "base/rpc.h"
#include "control/cleanup.h"
#include "control/client.h"
#include "control/paths.h"
#include "store/open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define OWN_LABEL "disk"

static bool has_suffix(const char *word, const char *suffix)
{
    const size_t len = strlen(word), suffix_len = strlen(suffix);
    return len > suffix_len && strcmp(word + len - suffix_len, suffix) == 0;
}

static bool is_path(const char *word)
{
    return strchr(word, '/') || has_suffix(word, ".raw") || store_is_volume_file(word) || access(word, F_OK) == 0;
}

static int make_absolute(const char *word, char path[static PATH_MAX], struct tv_error *err)
{
    cleanup_free char *cwd = word[0] == '/' ? NULL : get_current_dir_name();
    return cwd ? path_format(path, err, "%s/%s", cwd, word) : path_format(path, err, "%s", word);
}

static int of_state_folder(const char *word, char path[static PATH_MAX], struct tv_error *err)
{
    char state[PATH_MAX];
    int rc = path_state_dir(state, err);
    if (!rc && !spec_name_is_good(word))
        rc = tv_error_set(err, -EINVAL, "disk '%s': should be a path, or a name of letters, digits, '-', '_' and '.'", word);
    if (!rc)
        rc = path_format(path, err, "%s/disks/%s" STORE_VOLUME_SUFFIX, state, word);
    if (!rc && access(path, F_OK) < 0)
        rc = path_format(path, err, "%s/disks/%s.raw", state, word);
    return rc;
}

// Asks trivetd, if one runs, which disk this is; that it has none is fine.
static int ask(struct disk_access *disk, const char *key, const char *word, struct tv_error *err)
{
    struct tv_error why = {0};
    cleanup_json json_t *result = NULL;
    int fd = client_connect(&why);
    if (fd < 0)
        return fd == -ESRCH ? 0 : tv_error_set(err, why.code, "%s", why.text);
    int rc = client_call(fd, "disk.find", json_pack("{s:s}", key, word), &result, &why);
    const char *label = json_string_value(json_object_get(result, "name")),
               *path = json_string_value(json_object_get(result, "path"));
    if (label && path) {
        snprintf(disk->label, sizeof(disk->label), "%s", label);
        snprintf(disk->path, sizeof(disk->path), "%s", path);
    }
    if (json_is_true(json_object_get(result, "running")))
        disk->trivetd_fd = fd;
    else
        close(fd);
    return !rc || why.code == -ENOENT ? 0 : tv_error_set(err, why.code, "%s", why.text);
}

int disk_find(const char *word, struct disk_access *disk, struct tv_error *err)
{
    *disk = (struct disk_access){.trivetd_fd = -1};
    if (is_path(word)) {
        int rc = make_absolute(word, disk->path, err);
        return rc ? rc : ask(disk, "path", disk->path, err);
    }
    int rc = ask(disk, "disk", word, err);
    return rc || disk->path[0] ? rc : of_state_folder(word, disk->path, err);
}

void disk_release(struct disk_access *disk)
{
    if (disk->own.worker.pid) {
        store_process_stop(&disk->own);
        store_process_remove_dir(&disk->own);
    }
    if (disk->label[0] && disk->trivetd_fd >= 0)
        close(disk->trivetd_fd);
    *disk = (struct disk_access){.trivetd_fd = -1};
}

static int start_own(struct disk_access *disk, bool read_only, struct tv_error *err)
{
    const struct disk_spec spec = {.name = (char *)OWN_LABEL, .path = disk->path, .queues = 1, .read_only = read_only};
    cleanup_close int log_fd = memfd_create("store-log", MFD_CLOEXEC), front_fd = -1;
    if (access(disk->path, F_OK) < 0)
        return tv_error_set(err, -errno, "%s: %s; `trivet disk create` makes a disk", disk->path, strerror(errno));
    int rc = store_process_make_dir(&disk->own, err);
    if (rc)
        return rc;
    rc = store_process_start(&disk->own, true, log_fd, -1, err);
    if (!rc)
        rc = store_process_add(&disk->own, OWN_LABEL, &spec, true, &front_fd, NULL, err);
    if (rc && disk->own.worker.pid)
        store_process_stop(&disk->own);
    if (rc)
        store_process_remove_dir(&disk->own);
    return rc;
}

static int call_own(struct disk_access *disk, const char *method, json_t *params, int pass_fd, json_t **result,
                    struct tv_error *err)
{
    json_object_set_new(params, "name", json_string(OWN_LABEL));
    cleanup_close int fd = store_process_connect(&disk->own, err);
    if (fd >= 0)
        return rpc_call(fd, method, params, &pass_fd, pass_fd >= 0, STORE_TIMEOUT_MS, result, err);
    json_decref(params);
    return fd;
}

int disk_call(struct disk_access *disk, bool read_only, const char *method, json_t *params, int pass_fd, json_t **result,
              struct tv_error *err)
{
    if (disk->trivetd_fd >= 0)
        return client_call_with(disk->trivetd_fd, "disk.call",
                                json_pack("{s:s, s:s, s:o}", "name", disk->label, "method", method, "params", params), pass_fd,
                                result, err);
    int rc = disk->own.worker.pid ? 0 : start_own(disk, read_only, err);
    if (!rc)
        return call_own(disk, method, params, pass_fd, result, err);
    json_decref(params);
    return rc;
}

int disk_serve(struct disk_access *disk, char **name, struct tv_error *err)
{
    char path[PATH_MAX];
    if (disk->trivetd_fd >= 0)
        return tv_error_set(err, -EBUSY, "%s: a machine that runs writes to it; stop it, or take a snapshot and have that",
                            disk->path);
    int rc = disk->own.worker.pid ? 0 : start_own(disk, true, err);
    if (!rc)
        rc = store_process_serve_nbd(&disk->own, path, err);
    if (rc)
        return rc;
    cleanup_json json_t *json = json_pack("{s:s, s:{s:s, s:s, s:{s:s, s:s}}}", "driver", "raw", "file", "driver", "nbd", "export",
                                          OWN_LABEL, "server", "type", "unix", "path", path);
    cleanup_free char *text = json_dumps(json, JSON_COMPACT);
    return asprintf(name, "json:%s", text ? text : "") < 0 ? -ENOMEM : 0;
}
