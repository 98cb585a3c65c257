// trivet top: what each machine and each disk does, live.
//
// Rates and latencies are of the time between two readings, by the clocks of those who were read; the first table is as well. Disks
// are read at most once a second (daemon/look.c), so it comes after a second at least.
#include "control/look/top.h"
#include "control/cleanup.h"
#include "control/command/command.h"
#include "control/look/look.h"
#include "control/tool.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define READ_MS 1000 // between two readings of disks, at least

struct view {
    unsigned interval_ms;
    long tables; // -1: until it is ended
    bool json;
};

static void show(const struct look *look, const json_t *machines, bool json)
{
    if (json) {
        cleanup_json json_t *plain = look_without_histograms(machines);
        command_print_json(look->is_store ? json_pack("{s:O}", "disks", json_object_get(json_array_get(plain, 0), "disks"))
                                          : json_pack("{s:O}", "machines", plain));
        fflush(stdout);
        return;
    }
    if (isatty(STDOUT_FILENO))
        fputs("\033[H\033[J", stdout);
    if (!look->is_store) {
        top_print_machines(machines);
        putchar('\n');
    }
    top_print_disks(machines);
    fflush(stdout);
}

static int watch(const struct look *look, const struct view *view, struct tv_error *err)
{
    cleanup_json json_t *before = NULL;
    int rc = look_read(look, &before, err);
    for (long n = 0; !rc && n != view->tables && !tool_interrupted(); n++) {
        const unsigned wait_ms = n == 0 && view->interval_ms < READ_MS ? READ_MS : view->interval_ms;
        poll(NULL, 0, (int)wait_ms); // a signal ends it
        if (tool_interrupted())
            break;
        json_t *now = NULL;
        rc = look_read(look, &now, err);
        if (rc)
            break;
        look_add_rates(before, now);
        show(look, now, view->json);
        json_decref(before);
        before = now;
    }
    return rc;
}

int cmd_top(int argc, char **argv)
{
    bool once = false;
    const char *interval = NULL, *count = NULL, *store = NULL;
    struct view view = {.interval_ms = 1000};
    const struct option_spec options[] = {{"--json", &view.json, NULL},       {"--once", &once, NULL},
                                          {"--interval|-i", NULL, &interval}, {"--count|-n", NULL, &count},
                                          {"--store", NULL, &store},          {0}};
    int words = command_options(command_find("top"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words > 0)
        return command_usage("top", "unexpected '%s'", argv[1]);
    if (interval && (command_seconds(interval, &view.interval_ms) || view.interval_ms < 50))
        return command_usage("top", "--interval '%s' is no number of seconds, at least 0.05", interval);
    if (store && view.interval_ms < READ_MS) // nobody stands between us and the store
        view.interval_ms = READ_MS;
    view.tables = once ? 1 : count ? strtol(count, NULL, 10) : -1;
    if (view.tables == 0)
        return command_usage("top", "--count '%s' is no number of tables", count);
    tool_catch_signals();
    struct tv_error err = {0};
    struct look look;
    int rc = look_open(&look, store, &err);
    if (!rc)
        rc = watch(&look, &view, &err);
    look_close(&look);
    if (rc && !tool_interrupted())
        return command_failed("top", view.json, command_status(&err), &err);
    return EXIT_OK;
}
