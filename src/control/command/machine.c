// trivet machine stats NAME: what the engine has counted, by vcpu and together.
#include "control/cleanup.h"
#include "control/client.h"
#include "control/command/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define COLUMN 15

// `group`: an object within the vcpu; NULL: the vcpu itself.
static json_int_t figure(const json_t *vcpu, const char *group, const char *name)
{
    return json_integer_value(json_object_get(group ? json_object_get(vcpu, group) : vcpu, name));
}

static json_int_t sum(const json_t *vcpus, const char *group, const char *name)
{
    json_int_t total = 0;
    size_t i;
    json_t *vcpu;
    json_array_foreach(vcpus, i, vcpu) total += figure(vcpu, group, name);
    return total;
}

static void print_row(const json_t *vcpus, const char *group, const char *name)
{
    char title[64];
    size_t i;
    json_t *vcpu;
    snprintf(title, sizeof(title), "%s%s%s", group ? group : "", group ? "." : "", name);
    printf("%-30s", title);
    json_array_foreach(vcpus, i, vcpu) printf(" %*" JSON_INTEGER_FORMAT, COLUMN, figure(vcpu, group, name));
    printf(" %*" JSON_INTEGER_FORMAT "\n", COLUMN, sum(vcpus, group, name));
}

// Of a group only what there was.
static void print_group(const json_t *vcpus, const char *group, json_t *first)
{
    const char *name;
    json_t *value;
    json_object_foreach(first, name, value)
    {
        if (sum(vcpus, group, name))
            print_row(vcpus, group, name);
    }
}

static void print_stats(const json_t *stats)
{
    const json_t *vcpus = json_object_get(stats, "vcpus"), *code = json_object_get(stats, "code");
    json_t *first = json_array_get(vcpus, 0), *value;
    const char *name;
    printf("%-30s", "");
    for (size_t i = 0; i < json_array_size(vcpus); i++)
        printf(" %*s%3zu", COLUMN - 3, "vcpu", i);
    printf(" %*s\n", COLUMN, "all");
    json_object_foreach(first, name, value)
    {
        if (json_is_integer(value))
            print_row(vcpus, NULL, name);
        else
            print_group(vcpus, name, value);
    }
    printf("translated code: %.1f of %.1f MiB, thrown away %" JSON_INTEGER_FORMAT " times\n",
           json_number_value(json_object_get(code, "used_bytes")) / 1048576,
           json_number_value(json_object_get(code, "room_bytes")) / 1048576,
           json_integer_value(json_object_get(code, "thrown_away")));
}

static json_t *sum_all(const json_t *vcpus)
{
    json_t *all = json_object(), *value, *part;
    const char *name, *key;
    json_object_foreach(json_array_get(vcpus, 0), name, value)
    {
        if (json_is_integer(value)) {
            json_object_set_new(all, name, json_integer(sum(vcpus, NULL, name)));
            continue;
        }
        json_t *group = json_object();
        json_object_set_new(all, name, group);
        json_object_foreach(value, key, part) json_object_set_new(group, key, json_integer(sum(vcpus, name, key)));
    }
    return all;
}

int cmd_machine(int argc, char **argv)
{
    bool json = false;
    const struct option_spec options[] = {{"--json", &json, NULL}, {0}};
    int words = command_options(command_find("machine"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words != 2 || strcmp(argv[1], "stats") != 0)
        return command_usage("machine", words < 2 ? "what to show of which machine is missing" : "no such thing as '%s'", argv[1]);
    struct tv_error err = {0};
    cleanup_json json_t *stats = NULL;
    cleanup_close int fd = client_connect(&err);
    if (fd < 0 || client_call_machine(fd, argv[2], "machine.stats", json_object(), -1, &stats, &err))
        return command_failed("machine", json, command_status(&err), &err);
    if (!json) {
        print_stats(stats);
        return EXIT_OK;
    }
    json_object_del(stats, "disks"); // their figures are the store's: trivet top
    json_object_set_new(stats, "all", sum_all(json_object_get(stats, "vcpus")));
    command_print_json(json_incref(stats));
    return EXIT_OK;
}
