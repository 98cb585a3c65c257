// trivet start, stop, kill, pause, resume, restore: one request to trivetd for each machine named.
#include "control/cleanup.h"
#include "control/client.h"
#include "control/command/command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *names_of(int words, char **argv)
{
    json_t *names = json_array();
    for (int i = 1; i <= words; i++)
        json_array_append_new(names, json_string(argv[i]));
    return names;
}

static void print_states(const json_t *result)
{
    size_t i;
    json_t *m;
    json_array_foreach(json_object_get(result, "machines"), i, m)
    {
        const char *reason = json_string_value(json_object_get(m, "reason"));
        printf("%s: %s%s%s\n", json_string_value(json_object_get(m, "name")), json_string_value(json_object_get(m, "state")),
               reason ? ", " : "", reason ? reason : "");
        command_print_unproven(stdout, "", json_object_get(m, "unproven"));
    }
}

static int batch(const char *name, const char *method, int argc, char **argv)
{
    bool json = false, all = false;
    const char *timeout = NULL;
    unsigned timeout_ms = 30000;
    const struct option_spec options[] = {{"--json", &json, NULL}, {"--all|-a", &all, NULL}, {"--timeout|-t", NULL, &timeout}, {0}};
    int words = command_options(command_find(name), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if ((words == 0) != all)
        return command_usage(name, all ? "either names or --all" : "which machine? Give names, or --all");
    if (timeout && command_seconds(timeout, &timeout_ms))
        return command_usage(name, "--timeout '%s' is no number of seconds", timeout);
    struct tv_error err = {0};
    cleanup_close int fd = client_connect(&err);
    if (fd < 0)
        return command_failed(name, json, command_status(&err), &err);
    cleanup_json json_t *result = NULL;
    json_t *params = json_pack("{s:o, s:i}", "names", names_of(words, argv), "timeout_ms", (int)timeout_ms);
    int rc = client_call_long(fd, method, params, timeout_ms, &result, &err);
    if (!rc)
        rc = command_batch_error(result, &err);
    if (rc)
        return command_failed(name, json, command_status(&err), &err);
    if (json)
        command_print_json(json_incref(result));
    else
        print_states(result);
    return EXIT_OK;
}

int cmd_start(int argc, char **argv)
{
    return batch("start", "machine.start", argc, argv);
}

int cmd_stop(int argc, char **argv)
{
    return batch("stop", "machine.stop", argc, argv);
}

int cmd_kill(int argc, char **argv)
{
    return batch("kill", "machine.kill", argc, argv);
}

// A method of the machine's own, for each name in turn.
static int each(const char *name, const char *method, const char *done, int argc, char **argv)
{
    bool json = false;
    const struct option_spec options[] = {{"--json", &json, NULL}, {0}};
    int words = command_options(command_find(name), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words == 0)
        return command_usage(name, "which machine?");
    struct tv_error err = {0};
    cleanup_close int fd = client_connect(&err);
    if (fd < 0)
        return command_failed(name, json, command_status(&err), &err);
    cleanup_json json_t *all = json_array();
    for (int i = 1; i <= words; i++) {
        cleanup_json json_t *result = NULL;
        if (client_call_machine(fd, argv[i], method, json_object(), -1, &result, &err))
            return command_failed(name, json, command_status(&err), &err);
        json_array_append_new(all, json_pack("{s:s, s:s}", "name", argv[i], "state", done));
        if (!json)
            printf("%s: %s\n", argv[i], done);
    }
    if (json)
        command_print_json(json_pack("{s:O}", "machines", all));
    return EXIT_OK;
}

int cmd_pause(int argc, char **argv)
{
    return each("pause", "machine.pause", "paused", argc, argv);
}

int cmd_resume(int argc, char **argv)
{
    return each("resume", "machine.resume", "running", argc, argv);
}

// --- save and restore

// Into a temporary name, so that FILE is a whole saved machine or what it was before.
static int save_to(int fd, const char *machine, const char *path, bool quit, json_t **result, struct tv_error *err)
{
    cleanup_free char *temp = NULL;
    if (asprintf(&temp, "%s.new", path) < 0) {
        temp = NULL;
        return tv_error_set(err, -ENOMEM, "no memory");
    }
    cleanup_close int file = open(temp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        return tv_error_set(err, -errno, "%s: %s", temp, strerror(errno));
    int rc = client_call_machine(fd, machine, "machine.save", json_pack("{s:b}", "quit", quit), file, result, err);
    if (!rc && (fsync(file) < 0 || rename(temp, path) < 0))
        rc = tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    if (rc)
        unlink(temp);
    return rc;
}

int cmd_save(int argc, char **argv)
{
    bool json = false, quit = false;
    const struct option_spec options[] = {{"--json", &json, NULL}, {"--quit", &quit, NULL}, {0}};
    int words = command_options(command_find("save"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words != 2)
        return command_usage("save", "a machine and a file are wanted");
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    cleanup_close int fd = client_connect(&err);
    if (fd < 0)
        return command_failed("save", json, command_status(&err), &err);
    if (save_to(fd, argv[1], argv[2], quit, &result, &err))
        return command_failed("save", json, command_status(&err), &err);
    if (json)
        command_print_json(json_pack("{s:s, s:s, s:O}", "name", argv[1], "file", argv[2], "saved", result));
    else
        printf("%s: saved to %s\n", argv[1], argv[2]);
    return EXIT_OK;
}

int cmd_restore(int argc, char **argv)
{
    bool json = false;
    const struct option_spec options[] = {{"--json", &json, NULL}, {0}};
    int words = command_options(command_find("restore"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words != 2)
        return command_usage("restore", "a machine and a file are wanted");
    struct tv_error err = {0};
    cleanup_free char *path = realpath(argv[2], NULL);
    if (!path) {
        tv_error_set(&err, -errno, "saved machine %s: %s", argv[2], strerror(errno));
        return command_failed("restore", json, EXIT_USAGE, &err);
    }
    cleanup_json json_t *result = NULL;
    cleanup_close int fd = client_connect(&err);
    if (fd < 0)
        return command_failed("restore", json, command_status(&err), &err);
    int rc = client_call(fd, "machine.start", json_pack("{s:[s], s:s}", "names", argv[1], "restore", path), &result, &err);
    if (!rc)
        rc = command_batch_error(result, &err);
    if (rc)
        return command_failed("restore", json, command_status(&err), &err);
    if (json)
        command_print_json(json_incref(result));
    else
        print_states(result);
    return EXIT_OK;
}
