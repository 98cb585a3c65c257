// trivet ps: the machines and how they are.
#include "control/cleanup.h"
#include "control/client.h"
#include "control/command/command.h"

#include <errno.h>
#include <stdio.h>

static const char *text(const json_t *m, const char *key)
{
    const char *value = json_string_value(json_object_get(m, key));
    return value ? value : "";
}

static void print_table(const json_t *machines)
{
    size_t i;
    json_t *m;
    printf("%-16s %-12s %-9s %-6s %4s %8s %8s  %s\n", "NAME", "TENANT", "STATE", "ENGINE", "CPUS", "MEMORY", "PID", "LAST END");
    json_array_foreach(machines, i, m)
    {
        char pid[16] = "-";
        json_int_t number = json_integer_value(json_object_get(m, "pid"));
        if (number)
            snprintf(pid, sizeof(pid), "%lld", (long long)number);
        printf("%-16s %-12s %-9s %-6s %4lld %7lldM %8s  %s\n", text(m, "name"), text(m, "tenant"), text(m, "state"),
               text(m, "engine")[0] ? text(m, "engine") : "-", (long long)json_integer_value(json_object_get(m, "cpus")),
               (long long)json_integer_value(json_object_get(m, "memory_bytes")) >> 20, pid, text(m, "reason"));
    }
}

static void print_engines(const json_t *machines)
{
    size_t i;
    json_t *m;
    printf("%-16s %-6s  %s\n", "NAME", "ENGINE", "SINCE");
    json_array_foreach(machines, i, m)
    {
        if (text(m, "engine")[0])
            printf("%-16s %-6s  %s\n", text(m, "name"), text(m, "engine"), text(m, "engine_why"));
    }
}

int cmd_ps(int argc, char **argv)
{
    bool json = false, engines = false;
    const struct option_spec options[] = {{"--json", &json, NULL}, {"--engines", &engines, NULL}, {0}};
    int words = command_options(command_find("ps"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words > 0)
        return command_usage("ps", "unexpected '%s'", argv[1]);
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    cleanup_close int fd = client_connect(&err);
    if (fd < 0 || client_call(fd, "machine.list", json_object(), &result, &err))
        return command_failed("ps", json, command_status(&err), &err);
    if (json)
        command_print_json(json_incref(result));
    else if (engines)
        print_engines(json_object_get(result, "machines"));
    else
        print_table(json_object_get(result, "machines"));
    return EXIT_OK;
}
