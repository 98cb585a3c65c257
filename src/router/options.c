// The command line: see options.h.
#include "router/options.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_DEFAULT_MB 1024

const char options_help[] =
    "usage: trivet-router [--control FD|PATH] [--workers CPU[,CPU]...] [--memory MB] [--no-huge] [--pci] [--log text|json]\n"
    "                     [--vn JSON | --port JSON]...\n"
    "\n"
    "Carries the packets of virtual networks between machines, network devices and other processes.\n"
    "\n"
    "  --vn O        a network: {\"name\": N} and, if need be, type, weight, promises, worker, buffers, macs, age_s, unknown;\n"
    "                for networks of the type ip: netns (a namespace for routing daemons), fpm_port, stale_s, table_mb, "
    "neighbours\n"
    "  --port O      a port of a network named before it: {\"vn\": N, \"name\": P, \"kind\": K}; kinds, and what they need:\n"
    "                vhost (socket, unsealed), tap (device), packet (device), xdp (device), pci (address), memif (socket, role), "
    "ring, "
    "null,\n"
    "                vxlan and raw (underlay, local, remote, vni or udp_port: the same network on another host), vtep (of the "
    "underlay);\n"
    "                if need be promises; for networks of the type ethernet also mac, addresses, mac_limit, flood_bytes_per_s\n"
    "  --control S   a socket for JSON-RPC: the number of a descriptor that listens, or a path where one is made;\n"
    "                vn.add, vn.remove, vn.list, vn.stat, vn.promise, port.add, port.remove, port.promise, port.put, port.take,\n"
    "                trace, capture.start, capture.stop, router.promises, router.stat, router.quit\n"
    "  --workers C   the CPUs that carry packets, a thread on each; the last one this process may use\n"
    "  --memory MB   for packet buffers and tables, 1024; it is taken as it is used, but from hugepages\n"
    "  --no-huge     use no hugepages, even if there are enough\n"
    "  --pci         network functions on PCI may be ports\n"
    "  --log json    one JSON object a line\n"
    "\n"
    "trivet-router(8) says more. Ends on SIGTERM with status 0; with status 2 when it was called wrong.\n";
const char options_version[] = "trivet-router " TRIVET_VERSION "\n";

static int parse_number(const char *text, unsigned least, unsigned most, char terminator, unsigned *value, const char **rest)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (errno || end == text || (*end && *end != terminator) || *text == '-' || n < least || n > most)
        return -EINVAL;
    *value = (unsigned)n;
    if (rest)
        *rest = *end ? end + 1 : end;
    return 0;
}

static int parse_workers(struct options *options, const char *argument, struct tv_error *err)
{
    struct eal_config *eal = &options->eal;
    cpu_set_t usable;
    CPU_ZERO(&usable);
    sched_getaffinity(0, sizeof(usable), &usable);
    eal->n_workers = 0;
    for (const char *rest = argument; *rest;) {
        unsigned cpu;
        if (eal->n_workers == EAL_CPUS_MAX || parse_number(rest, 0, CPU_SETSIZE - 1, ',', &cpu, &rest) || !CPU_ISSET(cpu, &usable))
            return tv_error_set(err, -EINVAL, "--workers %s: must be 1 to %d numbers of CPUs this process may use", argument,
                                EAL_CPUS_MAX);
        eal->cpus[eal->n_workers++] = cpu;
    }
    return eal->n_workers ? 0 : tv_error_set(err, -EINVAL, "--workers: must be numbers of CPUs");
}

static void choose_workers(struct options *options)
{
    cpu_set_t usable;
    CPU_ZERO(&usable);
    sched_getaffinity(0, sizeof(usable), &usable);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &usable))
            options->eal.cpus[0] = cpu;
    options->eal.n_workers = 1;
}

static int parse_item(struct options *options, bool is_port, const char *argument, struct tv_error *err)
{
    const char *option = is_port ? "--port" : "--vn";
    json_error_t where;
    if (options->n_items == OPTIONS_ITEMS_MAX)
        return tv_error_set(err, -EINVAL, "more than %d networks and ports on one command line; use --control", OPTIONS_ITEMS_MAX);
    json_t *params = json_loads(argument, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(params)) {
        json_decref(params);
        return tv_error_set(err, -EINVAL, "%s %s: must be an object of JSON%s%s", option, argument, params ? "" : ": ",
                            params ? "" : where.text);
    }
    options->items[options->n_items++] = (struct option_item){is_port, params};
    return 0;
}

static int parse_control(struct options *options, const char *argument, struct tv_error *err)
{
    unsigned fd;
    if (strchr(argument, '/')) {
        options->control_path = argument;
        return 0;
    }
    if (parse_number(argument, 0, 1u << 20, 0, &fd, NULL))
        return tv_error_set(err, -EINVAL, "--control %s: must be the number of an open descriptor, or a path with a slash in it",
                            argument);
    options->control_fd = (int)fd;
    return 0;
}

static int parse_one(struct options *options, int option, const char *argument, struct tv_error *err)
{
    switch (option) {
    case 'V':
    case 'P':
        return parse_item(options, option == 'P', argument, err);
    case 'c':
        return parse_control(options, argument, err);
    case 'w':
        return parse_workers(options, argument, err);
    case 'm':
        return parse_number(argument, 64, 1u << 20, 0, &options->eal.memory_mb, NULL)
                   ? tv_error_set(err, -EINVAL, "--memory %s: must be megabytes, 64 to %u", argument, 1u << 20)
                   : 0;
    case 'H':
        options->eal.no_huge = true;
        return 0;
    case 'p':
        options->eal.pci = true;
        return 0;
    case 'l':
        options->log_json = !strcmp(argument, "json");
        return options->log_json || !strcmp(argument, "text")
                   ? 0
                   : tv_error_set(err, -EINVAL, "--log %s: must be text or json", argument);
    case 'h':
        return OPTIONS_HELP;
    default:
        return OPTIONS_VERSION;
    }
}

int options_parse(struct options *options, int argc, char **argv, struct tv_error *err)
{
    static const struct option longs[] = {
        {"vn", required_argument, NULL, 'V'},
        {"port", required_argument, NULL, 'P'},
        {"control", required_argument, NULL, 'c'},
        {"workers", required_argument, NULL, 'w'},
        {"memory", required_argument, NULL, 'm'},
        {"no-huge", no_argument, NULL, 'H'},
        {"pci", no_argument, NULL, 'p'},
        {"log", required_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    *options = (struct options){.control_fd = -1, .eal = {.memory_mb = MEMORY_DEFAULT_MB}};
    choose_workers(options);
    opterr = 0;
    int r = 0, option;
    while (!r && (option = getopt_long(argc, argv, "", longs, NULL)) != -1)
        r = option == '?'
                ? tv_error_set(err, -EINVAL, "%s: not known, or its value is missing; trivet-router --help tells what there is",
                               argv[optind - 1])
                : parse_one(options, option, optarg, err);
    if (!r && optind < argc)
        r = tv_error_set(err, -EINVAL, "%s: not an option; a network is given by --vn '{\"name\": \"n\"}'", argv[optind]);
    if (!r && !options->n_items && options->control_fd < 0 && !options->control_path)
        r = tv_error_set(err, -EINVAL, "nothing to do; give --vn and --port, or --control FD|PATH");
    if (r < 0)
        options_free(options);
    return r;
}

void options_free(struct options *options)
{
    for (unsigned i = 0; i < options->n_items; i++)
        json_decref(options->items[i].params);
    options->n_items = 0;
}
