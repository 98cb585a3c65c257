// trivet up FILE, trivet down: all machines of a file, idempotent. trivet config check FILE: the file alone.
#include "control/cleanup.h"
#include "control/client.h"
#include "control/command/command.h"
#include "control/command/disk.h"
#include "control/command/disk_access.h"
#include "control/files.h"
#include "control/net/net_spec.h"
#include "control/paths.h"
#include "control/spec/spec.h"
#include "control/spec/up_file.h"
#include "control/worker/launch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define STOP_TIMEOUT_MS 30000

// Everything is looked at before anything is started: files there and readable, images built, disks usable.
static int check_machines(const struct up_file *file, struct tv_error *err)
{
    size_t i;
    json_t *json;
    int rc = 0;
    json_array_foreach(file->machines, i, json)
    {
        struct machine_spec spec;
        struct launch launch;
        launch_init(&launch);
        rc = spec_decode(json, &spec, err);
        if (rc)
            return rc;
        rc = launch_open(&launch, &spec, err);
        launch_fini(&launch);
        spec_free(&spec);
        if (rc)
            return rc;
    }
    return 0;
}

// Disks without a path of their own lie there.
static int make_disk_folder(struct tv_error *err)
{
    char state[PATH_MAX], disks[PATH_MAX];
    int rc = path_state_dir(state, err);
    if (!rc)
        rc = dir_make_own(state, "TRIVET_STATE_DIR", err);
    if (!rc)
        rc = path_format(disks, err, "%s/disks", state);
    return rc ? rc : dir_make(disks, 0700, err);
}

static int make_overlay(const json_t *overlay, struct tv_error *err)
{
    char size[32], *path = (char *)json_string_value(json_object_get(overlay, "path"));
    const json_int_t size_bytes = json_integer_value(json_object_get(overlay, "size_bytes"));
    const struct disk_command c = {
        .words = &path, .over = json_string_value(json_object_get(overlay, "over")), .size = size_bytes ? size : NULL};
    struct disk_access disk = {.trivetd_fd = -1};
    snprintf(size, sizeof(size), "%lld", (long long)size_bytes);
    int rc = disk_find_new(path, &disk, err);
    if (!rc)
        rc = disk_create_over(&c, &disk, err);
    disk_release(&disk);
    return rc ? tv_error_prefix(err, "disk '%s'", json_string_value(json_object_get(overlay, "name"))) : 0;
}

// Disks over a template that are not there yet. One that is there is never made anew: its guest's data are in it.
static int make_overlays(const struct up_file *file, struct tv_error *err)
{
    size_t i;
    json_t *overlay;
    int rc = 0;
    json_array_foreach(file->overlays, i, overlay)
    {
        if (!rc && access(json_string_value(json_object_get(overlay, "path")), F_OK) < 0)
            rc = make_overlay(overlay, err);
    }
    return rc;
}

int cmd_config(int argc, char **argv)
{
    bool json = false;
    const struct option_spec options[] = {{"--json", &json, NULL}, {0}};
    int words = command_options(command_find("config"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words != 2 || strcmp(argv[1], "check") != 0)
        return command_usage("config", "what to check is missing");
    struct up_file file;
    struct tv_error err = {0};
    if (up_file_load(argv[2], &file, &err))
        return command_failed("config", json, EXIT_USAGE, &err);
    if (json)
        command_print_json(
            json_pack("{s:O, s:O, s:O}", "tenants", file.tenants, "networks", file.networks, "machines", file.machines));
    else
        printf("%s: %zu machines and %zu networks of %zu tenants, nothing wrong\n", argv[2], json_array_size(file.machines),
               json_array_size(file.networks), json_array_size(file.tenants));
    up_file_free(&file);
    return EXIT_OK;
}

// --- up

struct up {
    int fd;
    json_t *names;    // all machines of the file
    json_t *created;  // those that were not there before
    json_t *networks; // of the file, that were not there before
    json_t *done;     // [{"name", "result"}]
    json_t *made;     // the same of networks
    json_t *unproven; // what is taken on trust: [{"name", "promise"}]
};

static int apply(const struct up *up, const json_t *spec, bool dry, json_t **result, struct tv_error *err)
{
    return client_call(up->fd, "machine.apply", json_pack("{s:O, s:b}", "spec", spec, "dry", dry), result, err);
}

static int stop_one(const struct up *up, const char *name, struct tv_error *err)
{
    cleanup_json json_t *result = NULL;
    json_t *params = json_pack("{s:[s], s:i}", "names", name, "timeout_ms", STOP_TIMEOUT_MS);
    return client_call_long(up->fd, "machine.stop", params, STOP_TIMEOUT_MS, &result, err);
}

static void note(struct up *up, const json_t *spec, const char *what)
{
    const char *name = json_string_value(json_object_get(spec, "name"));
    json_array_append_new(up->names, json_string(name));
    if (strcmp(what, "created") == 0)
        json_array_append_new(up->created, json_string(name));
    json_array_append_new(up->done, json_pack("{s:s, s:s}", "name", name, "result", what));
}

// What has to be done for a machine: created, changed, promises changed, unchanged.
static int plan_one(const struct up *up, const json_t *spec, json_t *plan, struct tv_error *err)
{
    cleanup_json json_t *result = NULL;
    int rc = apply(up, spec, true, &result, err);
    const char *what = json_string_value(json_object_get(result, "result"));
    if (!rc)
        json_array_append_new(plan, json_string(what ? what : "?"));
    return rc;
}

// Nobody stops for other promises, and all machines get theirs or none.
static int apply_promises(const struct up *up, const struct up_file *file, const json_t *plan, struct tv_error *err)
{
    cleanup_json json_t *specs = json_array(), *result = NULL;
    size_t i;
    json_t *what;
    json_array_foreach(plan, i, what)
    {
        if (strcmp(json_string_value(what), "promises changed") == 0)
            json_array_append(specs, json_array_get(file->machines, i));
    }
    if (!json_array_size(specs))
        return 0;
    int rc = client_call(up->fd, "machine.promise", json_pack("{s:O}", "specs", specs), &result, err);
    if (!rc)
        json_array_extend(up->unproven, json_object_get(result, "unproven"));
    return rc;
}

// A machine that is changed has to stop for it.
static int apply_one(struct up *up, const json_t *spec, const char *what, struct tv_error *err)
{
    const char *name = json_string_value(json_object_get(spec, "name"));
    cleanup_json json_t *result = NULL;
    int rc = strcmp(what, "changed") == 0 ? stop_one(up, name, err) : 0;
    if (!rc && strcmp(what, "promises changed") != 0)
        rc = apply(up, spec, false, &result, err);
    if (!rc)
        note(up, spec, what);
    return rc;
}

// Those that are not there are no error.
static int remove_networks(int fd, const json_t *names, struct tv_error *err)
{
    size_t i;
    json_t *name;
    int rc = 0;
    json_array_foreach(names, i, name)
    {
        cleanup_json json_t *result = NULL;
        struct tv_error why = {0};
        const int r = client_call(fd, "net.remove", json_pack("{s:O}", "name", name), &result, &why);
        if (r && r != -ENOENT && !rc) {
            rc = r;
            if (err)
                *err = why;
        }
    }
    return rc;
}

static json_t *underlays_first(const json_t *networks)
{
    json_t *sorted = json_array(), *spec;
    size_t i;
    json_array_foreach(networks, i, spec)
    {
        if (net_spec_is_underlay(spec))
            json_array_append(sorted, spec);
    }
    json_array_foreach(networks, i, spec)
    {
        if (!net_spec_is_underlay(spec))
            json_array_append(sorted, spec);
    }
    return sorted;
}

// It stays when the file's networks go.
static int apply_host(const struct up *up, const struct up_file *file, struct tv_error *err)
{
    cleanup_json json_t *result = NULL;
    return file->host ? client_call(up->fd, "host.apply", json_pack("{s:O}", "host", file->host), &result, err) : 0;
}

// Before the machines, which have their places in them.
static int apply_networks(struct up *up, const struct up_file *file, struct tv_error *err)
{
    size_t i;
    json_t *spec;
    cleanup_json json_t *sorted = underlays_first(file->networks);
    json_array_foreach(sorted, i, spec)
    {
        cleanup_json json_t *result = NULL;
        int rc = client_call(up->fd, "net.apply", json_pack("{s:O}", "spec", spec), &result, err);
        if (rc)
            return rc;
        const char *what = json_string_value(json_object_get(result, "result"));
        if (json_object_get(result, "unproven"))
            json_array_extend(up->unproven, json_object_get(result, "unproven"));
        if (what && strcmp(what, "created") == 0)
            json_array_append(up->networks, json_object_get(spec, "name"));
        json_array_append_new(up->made,
                              json_pack("{s:O, s:s}", "name", json_object_get(spec, "name"), "result", what ? what : "?"));
    }
    return 0;
}

static void roll_back(const struct up *up)
{
    size_t i;
    json_t *name;
    json_array_foreach(up->created, i, name)
    {
        json_t *result = NULL;
        if (client_call(up->fd, "machine.kill", json_pack("{s:[O]}", "names", name), &result, NULL) == 0)
            json_decref(result);
        result = NULL;
        if (client_call(up->fd, "machine.remove", json_pack("{s:O}", "name", name), &result, NULL) == 0)
            json_decref(result);
    }
    remove_networks(up->fd, up->networks, NULL);
    client_end_if_empty(up->fd);
}

static int start_all(struct up *up, json_t **result, struct tv_error *err)
{
    int rc = client_call(up->fd, "machine.start", json_pack("{s:O}", "names", up->names), result, err);
    size_t i;
    json_t *machine;
    json_array_foreach(json_object_get(*result, "machines"), i, machine)
    {
        if (json_object_get(machine, "unproven"))
            json_array_extend(up->unproven, json_object_get(machine, "unproven"));
    }
    return rc ? rc : command_batch_error(*result, err);
}

static int bring_up(struct up *up, const struct up_file *file, json_t **result, struct tv_error *err)
{
    cleanup_json json_t *facts = NULL, *plan = json_array();
    size_t i;
    json_t *spec;
    int rc = client_call(up->fd, "trivetd.facts", json_pack("{s:O}", "tenants", file->tenants), &facts, err);
    if (!rc)
        rc = apply_host(up, file, err);
    if (!rc)
        rc = apply_networks(up, file, err);
    json_array_foreach(file->machines, i, spec)
    {
        if (!rc)
            rc = plan_one(up, spec, plan, err);
    }
    if (!rc)
        rc = apply_promises(up, file, plan, err);
    json_array_foreach(file->machines, i, spec)
    {
        if (!rc)
            rc = apply_one(up, spec, json_string_value(json_array_get(plan, i)), err);
    }
    if (!rc)
        rc = start_all(up, result, err);
    if (rc)
        roll_back(up);
    return rc;
}

static void print_up(const struct up *up)
{
    size_t i;
    json_t *done;
    json_array_foreach(up->made, i, done)
    {
        printf("network %s: %s\n", json_string_value(json_object_get(done, "name")),
               json_string_value(json_object_get(done, "result")));
    }
    json_array_foreach(up->done, i, done)
    {
        printf("%s: %s, running\n", json_string_value(json_object_get(done, "name")),
               json_string_value(json_object_get(done, "result")));
    }
    command_print_unproven(stdout, "", up->unproven);
}

int cmd_up(int argc, char **argv)
{
    bool json = false;
    const struct option_spec options[] = {{"--json", &json, NULL}, {0}};
    int words = command_options(command_find("up"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words != 1)
        return command_usage("up", words ? "one file at a time" : "the file is missing");
    struct up_file file = {0};
    struct tv_error err = {0};
    struct up up = {.fd = -1,
                    .names = json_array(),
                    .created = json_array(),
                    .networks = json_array(),
                    .done = json_array(),
                    .made = json_array(),
                    .unproven = json_array()};
    cleanup_json json_t *result = NULL;
    int status = EXIT_OK, rc = up_file_load(argv[1], &file, &err);
    if (!rc)
        rc = make_disk_folder(&err);
    if (!rc)
        rc = make_overlays(&file, &err);
    if (!rc)
        rc = check_machines(&file, &err);
    if (!rc && (up.fd = client_connect_or_start(&err)) < 0)
        rc = up.fd;
    if (!rc)
        rc = bring_up(&up, &file, &result, &err);
    if (rc)
        status = command_failed("up", json, command_status(&err), &err);
    else if (json)
        command_print_json(json_pack("{s:O, s:O, s:O, s:O}", "changes", up.done, "networks", up.made, "machines",
                                     json_object_get(result, "machines"), "unproven", up.unproven));
    else
        print_up(&up);
    if (up.fd >= 0)
        close(up.fd);
    json_decref(up.names);
    json_decref(up.created);
    json_decref(up.networks);
    json_decref(up.made);
    json_decref(up.done);
    json_decref(up.unproven);
    up_file_free(&file);
    return status;
}

// --- down

// The names of what trivetd knows, by one of its lists, and the file has; without a file all of them.
static json_t *names_to_remove(int fd, const char *method, const char *key, const json_t *wanted, struct tv_error *err)
{
    cleanup_json json_t *list = NULL;
    size_t i, j;
    json_t *item, *entry;
    if (client_call(fd, method, json_object(), &list, err))
        return NULL;
    json_t *names = json_array();
    json_array_foreach(json_object_get(list, key), i, item)
    {
        bool take = !wanted;
        json_array_foreach(wanted, j, entry) take |= json_equal(json_object_get(entry, "name"), json_object_get(item, "name"));
        if (take)
            json_array_append(names, json_object_get(item, "name"));
    }
    return names;
}

static int take_down(int fd, const json_t *names, const json_t *networks, unsigned timeout_ms, struct tv_error *err)
{
    cleanup_json json_t *stopped = NULL;
    size_t i;
    json_t *name;
    int rc = 0;
    if (json_array_size(names)) // none would mean all
        rc = client_call_long(fd, "machine.stop", json_pack("{s:O, s:i}", "names", names, "timeout_ms", (int)timeout_ms),
                              timeout_ms, &stopped, err);
    json_array_foreach(names, i, name)
    {
        cleanup_json json_t *removed = NULL;
        if (!rc)
            rc = client_call(fd, "machine.remove", json_pack("{s:O}", "name", name), &removed, err);
    }
    if (!rc)
        rc = remove_networks(fd, networks, err);
    client_end_if_empty(fd);
    return rc;
}

int cmd_down(int argc, char **argv)
{
    bool json = false;
    const char *timeout = NULL;
    unsigned timeout_ms = STOP_TIMEOUT_MS;
    const struct option_spec options[] = {{"--json", &json, NULL}, {"--timeout|-t", NULL, &timeout}, {0}};
    int words = command_options(command_find("down"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words > 1)
        return command_usage("down", "one file at a time");
    if (timeout && command_seconds(timeout, &timeout_ms))
        return command_usage("down", "--timeout '%s' is no number of seconds", timeout);
    struct tv_error err = {0};
    cleanup_close int fd = client_connect(&err);
    if (fd == -ESRCH) {
        if (json)
            command_print_json(json_pack("{s:[]}", "removed"));
        else
            puts("nothing runs here");
        return EXIT_OK;
    }
    struct up_file file = {0};
    cleanup_json json_t *names = NULL, *networks = NULL;
    if (fd >= 0 && (!words || up_file_load(argv[1], &file, &err) == 0)) {
        names = names_to_remove(fd, "machine.list", "machines", file.machines, &err);
        networks = names ? names_to_remove(fd, "net.list", "networks", file.networks, &err) : NULL;
    }
    up_file_free(&file);
    if (!networks || take_down(fd, names, networks, timeout_ms, &err))
        return command_failed("down", json, command_status(&err), &err);
    if (json) {
        command_print_json(json_pack("{s:O, s:O}", "removed", names, "networks", networks));
        return EXIT_OK;
    }
    size_t i;
    json_t *name;
    json_array_foreach(names, i, name) printf("%s: removed\n", json_string_value(name));
    json_array_foreach(networks, i, name) printf("network %s: removed\n", json_string_value(name));
    return EXIT_OK;
}
