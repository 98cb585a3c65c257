// trivet top: what each machine uses, live.
//
// Rates are differences of two readings by the machines' own clocks; the first table is of the time between two readings as well.
#include "base/clock.h"
#include "control/cleanup.h"
#include "control/client.h"
#include "control/command.h"
#include "control/tool.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct usage {
    double cpu_ns, instructions, read_bytes, write_bytes;
};

static double member(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

// What a machine has used up since its start.
static struct usage usage_of(const json_t *machine)
{
    struct usage u = {0};
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(machine, "vcpus"), i, part)
    {
        u.cpu_ns += member(part, "cpu_ns");
        u.instructions += member(part, "instructions");
    }
    json_array_foreach(json_object_get(machine, "disks"), i, part)
    {
        u.read_bytes += member(part, "read_bytes");
        u.write_bytes += member(part, "written_bytes");
    }
    return u;
}

static void add_reading(int fd, json_t *machine)
{
    const char *name = json_string_value(json_object_get(machine, "name"));
    cleanup_json json_t *status = NULL, *stats = NULL, *disks = NULL;
    struct tv_error err = {0};
    if (client_call_machine(fd, name, "machine.status", json_object(), -1, &status, &err) ||
        client_call_machine(fd, name, "machine.stats", json_object(), -1, &stats, &err))
        return; // it has just ended; the list says so next time
    json_object_set(machine, "vcpus", json_object_get(stats, "vcpus"));
    json_object_set(machine, "resident_bytes", json_object_get(status, "resident_bytes"));
    json_object_set(machine, "uptime_ns", json_object_get(status, "uptime_ns"));
    json_object_set(machine, "engine", json_object_get(status, "engine"));
    if (client_call(fd, "machine.disks", json_pack("{s:s}", "name", name), &disks, &err) == 0 &&
        !json_is_true(json_object_get(disks, "late")))
        json_object_set(machine, "disks", json_object_get(disks, "disks"));
}

static int read_all(int fd, json_t **machines, struct tv_error *err)
{
    cleanup_json json_t *list = NULL;
    int rc = client_call(fd, "machine.list", json_object(), &list, err);
    if (rc)
        return rc;
    *machines = json_incref(json_object_get(list, "machines"));
    size_t i;
    json_t *m;
    json_array_foreach(*machines, i, m)
    {
        if (json_integer_value(json_object_get(m, "pid")))
            add_reading(fd, m);
    }
    return 0;
}

static const json_t *same_machine(const json_t *machines, const json_t *wanted)
{
    size_t i;
    json_t *m;
    json_array_foreach(machines, i, m)
    {
        if (json_equal(json_object_get(m, "name"), json_object_get(wanted, "name")) &&
            json_equal(json_object_get(m, "pid"), json_object_get(wanted, "pid")))
            return m;
    }
    return NULL;
}

// Puts the rates since `before` into each machine.
static void add_rates(const json_t *before, json_t *now)
{
    size_t i;
    json_t *m;
    json_array_foreach(now, i, m)
    {
        const json_t *old = same_machine(before, m);
        double seconds = (member(m, "uptime_ns") - (old ? member(old, "uptime_ns") : 0)) / 1e9;
        struct usage a = old ? usage_of(old) : (struct usage){0}, b = usage_of(m);
        if (!json_object_get(m, "uptime_ns") || seconds <= 0)
            continue;
        json_object_set_new(m, "cpu_percent", json_real(100 * (b.cpu_ns - a.cpu_ns) / 1e9 / seconds));
        json_object_set_new(m, "mips", json_real((b.instructions - a.instructions) / 1e6 / seconds));
        if (!json_object_get(m, "disks") || (old && !json_object_get(old, "disks")))
            continue; // the store did not tell
        json_object_set_new(m, "read_bps", json_real((b.read_bytes - a.read_bytes) / seconds));
        json_object_set_new(m, "write_bps", json_real((b.write_bytes - a.write_bytes) / seconds));
    }
}

// "?" while the store does not answer.
static void print_rate(const json_t *machine, const char *key, char *text, size_t size)
{
    const bool is_known = json_object_get(machine, key) || !json_object_get(machine, "uptime_ns");
    snprintf(text, size, is_known ? "%.1fK" : "?", member(machine, key) / 1024);
}

static void print_table(const json_t *machines)
{
    size_t i;
    json_t *m;
    printf("%-14s %-10s %-9s %6s %8s %15s %10s %10s %8s\n", "NAME", "TENANT", "STATE", "CPU%", "MIPS", "MEMORY", "READ/s",
           "WRITE/s", "UP");
    json_array_foreach(machines, i, m)
    {
        char memory[48], reads[24], writes[24];
        snprintf(memory, sizeof(memory), "%.0fM/%.0fM", member(m, "resident_bytes") / 1048576, member(m, "memory_bytes") / 1048576);
        print_rate(m, "read_bps", reads, sizeof(reads));
        print_rate(m, "write_bps", writes, sizeof(writes));
        printf("%-14s %-10s %-9s %6.1f %8.1f %15s %10s %10s %7.0fs\n", json_string_value(json_object_get(m, "name")),
               json_string_value(json_object_get(m, "tenant")), json_string_value(json_object_get(m, "state")),
               member(m, "cpu_percent"), member(m, "mips"), memory, reads, writes, member(m, "uptime_ns") / 1e9);
    }
    fflush(stdout);
}

static void show(const json_t *machines, bool json)
{
    if (json) {
        command_print_json(json_pack("{s:O}", "machines", machines));
        fflush(stdout);
        return;
    }
    if (isatty(STDOUT_FILENO))
        fputs("\033[H\033[J", stdout);
    print_table(machines);
}

static int watch(int fd, unsigned interval_ms, long tables, bool json, struct tv_error *err)
{
    cleanup_json json_t *before = NULL;
    int rc = read_all(fd, &before, err);
    for (long n = 0; !rc && n != tables && !tool_interrupted(); n++) {
        poll(NULL, 0, (int)interval_ms); // a signal ends it
        if (tool_interrupted())
            break;
        json_t *now = NULL;
        rc = read_all(fd, &now, err);
        if (rc)
            break;
        add_rates(before, now);
        show(now, json);
        json_decref(before);
        before = now;
    }
    return rc;
}

int cmd_top(int argc, char **argv)
{
    bool json = false, once = false;
    const char *interval = NULL, *count = NULL;
    unsigned interval_ms = 1000;
    const struct option_spec options[] = {
        {"--json", &json, NULL}, {"--once", &once, NULL}, {"--interval|-i", NULL, &interval}, {"--count|-n", NULL, &count}, {0}};
    int words = command_options(command_find("top"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words > 0)
        return command_usage("top", "unexpected '%s'", argv[1]);
    if (interval && (command_seconds(interval, &interval_ms) || interval_ms < 50))
        return command_usage("top", "--interval '%s' is no number of seconds, at least 0.05", interval);
    long tables = once ? 1 : count ? strtol(count, NULL, 10) : -1;
    if (tables == 0)
        return command_usage("top", "--count '%s' is no number of tables", count);
    tool_catch_signals();
    struct tv_error err = {0};
    cleanup_close int fd = client_connect(&err);
    if (fd < 0 || (watch(fd, interval_ms, tables, json, &err) && !tool_interrupted()))
        return command_failed("top", json, command_status(&err), &err);
    return EXIT_OK;
}
