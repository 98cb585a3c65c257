// trivet disk promise NAME PROMISES: what a disk is promised from now on. trivet promises: what is promised, and whether it is
// kept.
#include "control/cleanup.h"
#include "control/client.h"
#include "control/command/disk.h"
#include "control/look/verdict_text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

int disk_promise(const struct disk_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    json_t *params = json_pack("{s:s, s:s}", "name", c->words[0], "promises", c->words[1]);
    cleanup_close int fd = client_connect(&err);
    if (fd < 0)
        json_decref(params);
    if (fd < 0 || client_call(fd, "disk.promise", params, &result, &err))
        return disk_failed(c, &err);
    if (c->json) {
        command_print_json(json_incref(result));
        return EXIT_OK;
    }
    printf("%s: %s\n", c->words[0], text(result, "result"));
    command_print_unproven(stdout, "", json_object_get(result, "unproven"));
    return EXIT_OK;
}

// --- the table

// `state`: of a machine that does not run, of which the record tells; "" of what is served.
static void print_verdict(const char *name, const char *state, const json_t *v)
{
    struct verdict_text t;
    verdict_format(v, &t);
    printf("%-24s %-24s %12s  %-18s %5s %7s %7s  %s\n", name, text(v, "promise"), *state ? state : t.achieved, t.verdict, t.since,
           t.hour, t.day, t.last);
}

static void print_table(const json_t *result)
{
    size_t i, j;
    json_t *disk, *verdict;
    printf("%-24s %-24s %12s  %-18s %5s %7s %7s  %s\n", "NAME", "PROMISE", "ACHIEVED", "VERDICT", "SINCE", "HOUR", "DAY",
           "HELD BY");
    json_array_foreach(json_object_get(result, "promises"), i, disk)
    {
        const json_t *verdicts = json_object_get(disk, "verdicts");
        const char *state = text(disk, "state");
        const bool is_on_record = !strcmp(state, "stopped") || !strcmp(state, "failed") || !strcmp(state, "waiting");
        if (!json_array_size(verdicts))
            printf("%-24s %-24s %12s  %s\n", text(disk, "name"), text(disk, "promises"), "-", state);
        json_array_foreach(verdicts, j, verdict) print_verdict(text(disk, "name"), is_on_record ? state : "", verdict);
    }
    if (json_is_true(json_object_get(result, "late")))
        puts("the store does not answer");
}

int cmd_promises(int argc, char **argv)
{
    bool json = false;
    const struct option_spec options[] = {{"--json", &json, NULL}, {0}};
    int words = command_options(command_find("promises"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words > 0)
        return command_usage("promises", "unexpected '%s'", argv[1]);
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    cleanup_close int fd = client_connect(&err);
    if (fd < 0 || client_call(fd, "disk.promises", json_object(), &result, &err))
        return command_failed("promises", json, command_status(&err), &err);
    if (json)
        command_print_json(json_incref(result));
    else
        print_table(result);
    return EXIT_OK;
}
