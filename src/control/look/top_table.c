// The tables of trivet top: see top.h.
#include "control/look/top.h"

#include "control/look/look.h"
#include "control/look/verdict_text.h"

#include <stdio.h>
#include <string.h>

static double member(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

// Names are others' words: what would move the cursor or colour the screen is shown as '?'.
static const char *plain(const char *name, char out[static TOP_NAME_MAX])
{
    size_t n = 0;
    for (; name[n] && n + 1 < TOP_NAME_MAX; n++)
        out[n] = (unsigned char)name[n] < ' ' || name[n] == 127 || (unsigned char)name[n] >= 128 ? '?' : name[n];
    out[n] = 0;
    return out;
}

// --- machines

// "?" while the store does not answer.
static void format_rate(const json_t *machine, const char *key, char out[static 24])
{
    const bool is_known = json_object_get(machine, key) || !json_object_get(machine, "uptime_ns");
    snprintf(out, 24, is_known ? "%.1fK" : "?", member(machine, key) / 1024);
}

void top_print_machines(const json_t *machines)
{
    size_t i;
    json_t *m;
    printf("%-14s %-10s %-9s %6s %8s %15s %10s %10s %8s\n", "NAME", "TENANT", "STATE", "CPU%", "MIPS", "MEMORY", "READ/s",
           "WRITE/s", "UP");
    json_array_foreach(machines, i, m)
    {
        char memory[48], reads[24], writes[24];
        snprintf(memory, sizeof(memory), "%.0fM/%.0fM", member(m, "resident_bytes") / 1048576, member(m, "memory_bytes") / 1048576);
        format_rate(m, "read_bps", reads);
        format_rate(m, "write_bps", writes);
        printf("%-14s %-10s %-9s %6.1f %8.1f %15s %10s %10s %7.0fs\n", text(m, "name"), text(m, "tenant"), text(m, "state"),
               member(m, "cpu_percent"), member(m, "mips"), memory, reads, writes, member(m, "uptime_ns") / 1e9);
    }
}

// --- disks

// Three digits: 87us, 1.32ms, 15.0ms, 2.1s.
static void format_time(double ns, char out[static 16])
{
    static const struct {
        double ns;
        const char *unit;
    } units[] = {{1e9, "s"}, {1e6, "ms"}, {1e3, "us"}};
    const unsigned u = ns >= 999.5e6 ? 0 : ns >= 999.5e3 ? 1 : 2;
    const double value = ns / units[u].ns;
    snprintf(out, 16, "%.*f%s", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value, units[u].unit);
}

// "-" where nothing was done.
static void print_latency(const json_t *latency)
{
    static const char *const keys[] = {"p50_ns", "p99_ns", "p999_ns"};
    for (int i = 0; i < 3; i++) {
        char out[16] = "-";
        if (json_integer_value(json_object_get(latency, "count")))
            format_time(member(latency, keys[i]), out);
        printf(" %7s", out);
    }
}

static void print_percent(const json_t *rates, const char *key)
{
    char out[16] = "-";
    if (json_object_get(rates, key))
        snprintf(out, sizeof(out), "%.0f%%", member(rates, key));
    printf(" %6s", out);
}

static void print_summary(const json_t *disk)
{
    char name[TOP_NAME_MAX];
    const char *held_by;
    if (!json_array_size(json_object_get(disk, "verdicts")))
        puts("  -");
    else if (look_is_kept(disk, &held_by))
        puts("  kept");
    else
        printf("  BROKEN, %s has it\n", held_by ? plain(held_by, name) : "nobody");
}

static void print_disk(const char *machine, const json_t *disk)
{
    char label[2 * TOP_NAME_MAX], name[TOP_NAME_MAX], owner[TOP_NAME_MAX], queue[32];
    const json_t *rates = json_object_get(disk, "rates");
    snprintf(label, sizeof(label), "%s%s%s", plain(machine, owner), machine[0] ? "." : "", plain(text(disk, "name"), name));
    const long long started = json_integer_value(json_object_get(disk, "started"));
    snprintf(queue, sizeof(queue), "%lld+%lld", json_integer_value(json_object_get(disk, "in_flight")) - started, started);
    if (rates)
        printf("%-22s %8.0f %8.1f", label, member(rates, "iops"), (member(rates, "read_bps") + member(rates, "write_bps")) / 1e6);
    else
        printf("%-22s %8s %8s", label, "-", "-");
    print_latency(json_object_get(rates, "read"));
    print_latency(json_object_get(rates, "write"));
    printf(" %9s", queue);
    print_percent(rates, "waited_percent");
    print_percent(rates, "device_percent");
    print_summary(disk);
}

static void print_promises(const json_t *disk)
{
    size_t i;
    json_t *verdict;
    json_array_foreach(json_object_get(disk, "verdicts"), i, verdict)
    {
        struct verdict_text t;
        char who[TOP_NAME_MAX];
        verdict_format(verdict, &t);
        printf("  %-24s %12s  of %12s  %-18s %5s  %s\n", text(verdict, "promise"), t.achieved, t.goal, t.verdict, t.since,
               plain(t.who, who));
    }
}

void top_print_disks(const json_t *machines)
{
    size_t i, j;
    json_t *m, *disk;
    printf("%-22s %8s %8s %23s %23s %9s %6s %6s  %s\n", "DISK", "IOPS", "MB/s", "READ  p50     p99   p99.9",
           "WRITE  p50     p99   p99.9", "QUEUE", "WAITS", "DEVICE", "PROMISES");
    json_array_foreach(machines, i, m)
    {
        json_array_foreach(json_object_get(m, "disks"), j, disk)
        {
            print_disk(text(m, "name"), disk);
            print_promises(disk);
        }
    }
}
