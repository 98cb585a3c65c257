// Metrics as text: see metrics.h. Families come one after the other, each with all its disks, as the format wants it.
#include "control/look/metrics.h"

#include "base/histogram.h"
#include "control/look/look.h"
#include "control/look/metrics_text.h"

#include <string.h>

// Backslash, quote and line feed are escaped in label values; everything else may stand there.
static void print_value(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\\n", out);
        else if (*text == '\\' || *text == '"')
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
}

void metrics_label(FILE *out, const char *name, const char *value)
{
    fprintf(out, "%s=\"", name);
    print_value(out, value ? value : "");
    fputc('"', out);
}

static const char *text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

struct subject {
    FILE *out;
    const json_t *machine, *disk;
};

// What follows is a label more, or the end.
static void begin_sample(const struct subject *s, const char *metric)
{
    fprintf(s->out, "%s{", metric);
    metrics_label(s->out, "tenant", text(s->machine, "tenant"));
    fputc(',', s->out);
    metrics_label(s->out, "machine", text(s->machine, "name"));
    if (!s->disk)
        return;
    fputc(',', s->out);
    metrics_label(s->out, "disk", text(s->disk, "name"));
}

static void end_sample(const struct subject *s, double value)
{
    fprintf(s->out, "} %.15g\n", value);
}

static void add_label(const struct subject *s, const char *name, const char *value)
{
    fputc(',', s->out);
    metrics_label(s->out, name, value);
}

void metrics_head(FILE *out, const char *metric, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", metric, help, metric, type);
}

typedef void sample_fn(const struct subject *s, const char *metric);

static void each_disk(FILE *out, const json_t *machines, const char *metric, sample_fn *sample)
{
    size_t i, j;
    json_t *m, *disk;
    json_array_foreach(machines, i, m)
    {
        json_array_foreach(json_object_get(m, "disks"), j, disk)
        {
            const struct subject s = {.out = out, .machine = m, .disk = disk};
            sample(&s, metric);
        }
    }
}

// --- plain counters and gauges

// `key` of disk.stat is what a sample is made of; absent, there is none. Samples of one metric that have an op stand together.
struct plain {
    const char *metric, *type, *help, *key, *op;
    double unit; // the value is of so many of the base units
};

static const struct plain of_disks[] = {
    {"trivet_disk_requests_total", "counter", "Requests done, by kind.", "reads", "read", 1},
    {"trivet_disk_requests_total", "counter", "", "writes", "write", 1},
    {"trivet_disk_requests_total", "counter", "", "flushes", "flush", 1},
    {"trivet_disk_requests_total", "counter", "", "discards", "discard", 1},
    {"trivet_disk_requests_total", "counter", "", "write_zeroes", "write_zeroes", 1},
    {"trivet_disk_bytes_total", "counter", "Bytes read and written.", "read_bytes", "read", 1},
    {"trivet_disk_bytes_total", "counter", "", "written_bytes", "write", 1},
    {"trivet_disk_errors_total", "counter", "Requests that failed.", "errors", NULL, 1},
    {"trivet_disk_refused_total", "counter", "Requests that meant nothing and were refused.", "refused", NULL, 1},
    {"trivet_disk_size_bytes", "gauge", "Size of the disk.", "size_bytes", NULL, 1},
    {"trivet_disk_in_flight", "gauge", "Requests taken and not done.", "in_flight", NULL, 1},
    {"trivet_disk_started", "gauge", "Requests with the device; the others in flight wait for their turn.", "started", NULL, 1},
    {"trivet_disk_waited_seconds_total", "counter", "Time in which requests waited for those of other disks.", "waited_ns", NULL,
     1e-9},
    {"trivet_disk_missing_legs", "gauge", "Legs of the disk's mirrors that are not in sync.", "missing_legs", NULL, 1},
    {"trivet_disk_device_seconds_total", "counter", "Time of the device that requests took.", "device_ns", NULL, 1e-9},
};

static const struct plain of_machines[] = {
    {"trivet_machine_uptime_seconds", "gauge", "For how long the machine has been running.", "uptime_ns", NULL, 1e-9},
    {"trivet_machine_resident_bytes", "gauge", "Host memory of the machine.", "resident_bytes", NULL, 1},
};

static void print_plain(const struct subject *s, const struct plain *p)
{
    const json_t *value = json_object_get(s->disk ? s->disk : s->machine, p->key);
    if (!json_is_number(value))
        return;
    begin_sample(s, p->metric);
    if (p->op)
        add_label(s, "op", p->op);
    end_sample(s, json_number_value(value) * p->unit);
}

static void print_plains(FILE *out, const json_t *machines, bool disks, const struct plain *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t j, k;
        json_t *m, *disk;
        if (i == 0 || strcmp(list[i].metric, list[i - 1].metric) != 0)
            metrics_head(out, list[i].metric, list[i].type, list[i].help);
        json_array_foreach(machines, j, m)
        {
            struct subject s = {.out = out, .machine = m};
            if (!disks)
                print_plain(&s, &list[i]);
            json_array_foreach(disks ? json_object_get(m, "disks") : NULL, k, disk)
            {
                s.disk = disk;
                print_plain(&s, &list[i]);
            }
        }
    }
}

// --- latencies

// The ends of the buckets, in nanoseconds. They stay the same for good, since time series are made of them.
static const struct {
    uint64_t ns;
    const char *le;
} ends[] = {
    {10000, "1e-05"},    {25000, "2.5e-05"},  {50000, "5e-05"},    {100000, "0.0001"},  {250000, "0.00025"},
    {500000, "0.0005"},  {1000000, "0.001"},  {2500000, "0.0025"}, {5000000, "0.005"},  {10000000, "0.01"},
    {25000000, "0.025"}, {50000000, "0.05"},  {100000000, "0.1"},  {250000000, "0.25"}, {500000000, "0.5"},
    {1000000000, "1"},   {2500000000, "2.5"}, {5000000000, "5"},   {10000000000, "10"},
};

static void print_histogram(const struct subject *s, const char *metric, const char *op, const struct histogram *h)
{
    char name[80];
    snprintf(name, sizeof(name), "%s_bucket", metric);
    for (size_t i = 0; i <= sizeof(ends) / sizeof(ends[0]); i++) {
        const bool is_last = i == sizeof(ends) / sizeof(ends[0]);
        begin_sample(s, name);
        add_label(s, "op", op);
        add_label(s, "le", is_last ? "+Inf" : ends[i].le);
        end_sample(s, (double)(is_last ? h->count : histogram_count_to(h, ends[i].ns)));
    }
    snprintf(name, sizeof(name), "%s_sum", metric);
    begin_sample(s, name);
    add_label(s, "op", op);
    end_sample(s, (double)h->sum / 1e9);
    snprintf(name, sizeof(name), "%s_count", metric);
    begin_sample(s, name);
    add_label(s, "op", op);
    end_sample(s, (double)h->count);
}

static void sample_latencies(const struct subject *s, const char *metric)
{
    static const char *const ops[] = {"read", "write", "flush", "trim"};
    for (int i = 0; i < 4; i++) {
        struct histogram h;
        const json_t *latency = json_object_get(json_object_get(s->disk, "latency"), ops[i]);
        if (histogram_decode(&h, json_object_get(latency, "histogram")) == 0)
            print_histogram(s, metric, ops[i], &h);
    }
}

// --- promises

static void each_promise(const struct subject *s, const char *metric, double (*value)(const json_t *verdict))
{
    size_t i;
    json_t *verdict;
    json_array_foreach(json_object_get(s->disk, "verdicts"), i, verdict)
    {
        begin_sample(s, metric);
        add_label(s, "promise", text(verdict, "promise"));
        end_sample(s, value(verdict));
    }
}

// In base units; what the store has in millionths of something (verdict.h) is a ratio here.
static void each_amount(const struct subject *s, const char *metric, const char *key)
{
    static const char in_ppm[] = "ppm of ";
    size_t i;
    json_t *verdict;
    json_array_foreach(json_object_get(s->disk, "verdicts"), i, verdict)
    {
        const char *unit = text(verdict, "unit");
        const bool is_ratio = unit && strncmp(unit, in_ppm, sizeof(in_ppm) - 1) == 0;
        begin_sample(s, metric);
        add_label(s, "promise", text(verdict, "promise"));
        add_label(s, "unit", is_ratio ? "ratio" : unit);
        end_sample(s, number(verdict, key) / (is_ratio ? 1e6 : 1));
    }
}

static double kept(const json_t *verdict)
{
    return json_is_true(json_object_get(verdict, "kept"));
}

static double kept_seconds(const json_t *verdict)
{
    const json_t *all = json_object_get(verdict, "all");
    return (number(all, "judged_ms") - number(all, "broken_ms")) / 1e3;
}

static double broken_seconds(const json_t *verdict)
{
    return number(json_object_get(verdict, "all"), "broken_ms") / 1e3;
}

// Where nothing was owed there is nothing to tell.
static void sample_kept_ratio(const struct subject *s, const char *metric)
{
    static const char *const windows[] = {"hour", "day"};
    size_t i;
    json_t *verdict;
    json_array_foreach(json_object_get(s->disk, "verdicts"), i, verdict)
    {
        for (size_t w = 0; w < sizeof(windows) / sizeof(windows[0]); w++) {
            const json_t *ppm = json_object_get(json_object_get(verdict, windows[w]), "kept_ppm");
            if (!json_is_integer(ppm))
                continue;
            begin_sample(s, metric);
            add_label(s, "promise", text(verdict, "promise"));
            add_label(s, "window", windows[w]);
            end_sample(s, json_number_value(ppm) / 1e6);
        }
    }
}

static void sample_kept(const struct subject *s, const char *metric)
{
    each_promise(s, metric, kept);
}

static void sample_goal(const struct subject *s, const char *metric)
{
    each_amount(s, metric, "goal");
}

static void sample_achieved(const struct subject *s, const char *metric)
{
    each_amount(s, metric, "achieved");
}

static void sample_kept_seconds(const struct subject *s, const char *metric)
{
    each_promise(s, metric, kept_seconds);
}

static void sample_broken_seconds(const struct subject *s, const char *metric)
{
    each_promise(s, metric, broken_seconds);
}

// --- machines

static void print_machines(FILE *out, const json_t *machines)
{
    size_t i, j;
    json_t *m, *vcpu;
    metrics_head(out, "trivet_machine_running", "gauge", "1 while the machine runs, 0 in any other state.");
    json_array_foreach(machines, i, m)
    {
        const struct subject s = {.out = out, .machine = m};
        begin_sample(&s, "trivet_machine_running");
        end_sample(&s, text(m, "state") && strcmp(text(m, "state"), "running") == 0);
    }
    print_plains(out, machines, false, of_machines, sizeof(of_machines) / sizeof(of_machines[0]));
    metrics_head(out, "trivet_machine_cpu_seconds_total", "counter", "Processor time of the machine's vcpus.");
    json_array_foreach(machines, i, m)
    {
        const struct subject s = {.out = out, .machine = m};
        double ns = 0;
        json_array_foreach(json_object_get(m, "vcpus"), j, vcpu) ns += number(vcpu, "cpu_ns");
        if (!json_object_get(m, "vcpus"))
            continue;
        begin_sample(&s, "trivet_machine_cpu_seconds_total");
        end_sample(&s, ns / 1e9);
    }
}

void metrics_print(FILE *out, const json_t *machines)
{
    static const struct {
        const char *metric, *type, *help;
        sample_fn *sample;
    } families[] = {
        {"trivet_disk_latency_seconds", "histogram",
         "From a request's arrival to its completion, waiting included; up to 3 % above the truth.", sample_latencies},
        {"trivet_disk_promise_kept", "gauge", "1 while the promise is kept, 0 while it is broken.", sample_kept},
        {"trivet_disk_promise_goal", "gauge", "What was owed in the last second that was judged.", sample_goal},
        {"trivet_disk_promise_achieved", "gauge", "What was done in that second.", sample_achieved},
        {"trivet_disk_promise_kept_ratio", "gauge",
         "Part of the last hour's or day's time with something owed in which it was kept.", sample_kept_ratio},
        {"trivet_disk_promise_kept_seconds_total", "counter", "Time in which something was owed by the promise and it was kept.",
         sample_kept_seconds},
        {"trivet_disk_promise_broken_seconds_total", "counter", "Time in which the promise was broken.", sample_broken_seconds},
    };
    if (json_object_get(json_array_get(machines, 0), "name"))
        print_machines(out, machines);
    print_plains(out, machines, true, of_disks, sizeof(of_disks) / sizeof(of_disks[0]));
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        metrics_head(out, families[i].metric, families[i].type, families[i].help);
        each_disk(out, machines, families[i].metric, families[i].sample);
    }
}
