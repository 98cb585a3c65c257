// trivet net list, show, stats, routes, neighbours: what there is, as tables.
#include "control/cleanup.h"
#include "control/command/net.h"

#include <stdio.h>
#include <string.h>

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static json_int_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

// A list of texts, with commas; "-" is none.
static void print_list(const json_t *list)
{
    size_t i;
    json_t *entry;
    if (!json_array_size(list))
        putchar('-');
    json_array_foreach(list, i, entry) printf("%s%s", i ? ", " : "", json_string_value(entry));
}

// --- list

int net_list(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    size_t i;
    json_t *n;
    if (net_ask("net.list", NULL, NULL, &result, &err))
        return net_failed(c, &err);
    if (c->json) {
        command_print_json(json_incref(result));
        return EXIT_OK;
    }
    printf("%-16s %-9s %-12s %-9s %5s %8s  %s\n", "NAME", "TYPE", "TENANT", "STATE", "PORTS", "MACHINES", "PREFIXES");
    json_array_foreach(json_object_get(result, "networks"), i, n)
    {
        printf("%-16s %-9s %-12s %-9s %5" JSON_INTEGER_FORMAT " %8zu  ", text(n, "name"), text(n, "type"),
               json_object_get(n, "tenant") ? text(n, "tenant") : "-", text(n, "state"), number(n, "ports"),
               json_array_size(json_object_get(n, "machines")));
        print_list(json_object_get(n, "prefixes"));
        printf("%s%s\n", json_object_get(n, "reason") ? "  " : "", text(n, "reason"));
    }
    return EXIT_OK;
}

// --- show

static void print_member(const char *key, const json_t *value)
{
    if (json_is_string(value)) {
        printf(" %s=%s", key, json_string_value(value));
        return;
    }
    cleanup_free char *dumped = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    printf(" %s=%s", key, dumped ? dumped : "?");
}

static void print_members(const json_t *object, const char *const *but)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        const char *const *b = but;
        while (*b && strcmp(*b, key) != 0)
            b++;
        if (!*b)
            print_member(key, value);
    }
    putchar('\n');
}

static void print_network(const json_t *n)
{
    static const char *const of_ports[] = {"name", "kind", NULL}, *const of_routes[] = {"prefix", NULL}, *const none[] = {NULL};
    const json_t *spec = json_object_get(n, "spec");
    size_t i;
    json_t *entry;
    printf("%s: %s, %s", text(n, "name"), text(n, "type"), text(n, "state"));
    if (json_object_get(n, "tenant"))
        printf(", tenant %s", text(n, "tenant"));
    printf("%s%s\n", json_object_get(n, "reason") ? ": " : "", text(n, "reason"));
    if (json_object_get(spec, "description"))
        printf("  %s\n", text(spec, "description"));
    if (json_array_size(json_object_get(n, "prefixes"))) {
        printf("  prefixes  ");
        print_list(json_object_get(n, "prefixes"));
        printf("\n  gateways  ");
        print_list(json_object_get(n, "gateways"));
        putchar('\n');
    }
    if (json_object_get(spec, "services")) {
        printf("  services ");
        print_members(json_object_get(spec, "services"), none);
        printf("  namespace %s\n", text(n, "namespace"));
    }
    if (json_object_size(json_object_get(spec, "options"))) {
        printf("  options  ");
        print_members(json_object_get(spec, "options"), none);
    }
    json_array_foreach(json_object_get(spec, "ports"), i, entry)
    {
        printf("  port      %s: %s", text(entry, "name"), text(entry, "kind"));
        print_members(entry, of_ports);
    }
    json_array_foreach(json_object_get(n, "links"), i, entry)
    {
        static const char *const of_links[] = {"name", "kind", "remote", "synced", "hears", NULL};
        printf("  link      %s: %s to %s, peer: %s;", text(entry, "name"), text(entry, "kind"), text(entry, "remote"),
               net_peer_state(entry));
        print_members(entry, of_links);
    }
    json_array_foreach(json_object_get(n, "machines"), i, entry)
        printf("  machine   %s: %s, %s\n", text(entry, "name"),
               json_is_true(json_object_get(entry, "running")) ? "running" : "not running", text(entry, "mac"));
    json_array_foreach(json_object_get(spec, "routes"), i, entry)
    {
        printf("  route     %s", text(entry, "prefix"));
        print_members(entry, of_routes);
    }
}

int net_show(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    if (net_ask("net.get", c->words[0], NULL, &result, &err))
        return net_failed(c, &err);
    if (c->json)
        command_print_json(json_incref(result));
    else
        print_network(result);
    return EXIT_OK;
}

// --- stats

static void print_drops(const json_t *drops)
{
    const char *cause;
    json_t *value;
    bool any = false;
    json_object_foreach((json_t *)drops, cause, value)
    {
        if (json_integer_value(value))
            printf("%s%s %" JSON_INTEGER_FORMAT, any ? ", " : "", cause, json_integer_value(value));
        any |= json_integer_value(value) != 0;
    }
    puts(any ? "" : "-");
}

int net_stats(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *stat = NULL;
    size_t i;
    json_t *port;
    if (net_ask_router("vn.stat", c->words[0], NULL, &stat, &err))
        return net_failed(c, &err);
    if (c->json) {
        command_print_json(json_incref(stat));
        return EXIT_OK;
    }
    printf("%s: %s, weight %" JSON_INTEGER_FORMAT ", %.3f G cycles, %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT
           " buffers in use\n",
           text(stat, "name"), text(stat, "type"), number(stat, "weight"), (double)number(stat, "cycles") / 1e9,
           number(stat, "buffers_used"), number(stat, "buffers"));
    printf("%-16s %-8s %12s %12s %12s %12s  %s\n", "PORT", "KIND", "RECEIVED", "MB", "SENT", "MB", "DROPPED");
    json_array_foreach(json_object_get(stat, "ports"), i, port)
    {
        printf("%-16s %-8s %12" JSON_INTEGER_FORMAT " %12.3f %12" JSON_INTEGER_FORMAT " %12.3f  ", text(port, "name"),
               text(port, "kind"), number(port, "received_packets"), (double)number(port, "received_bytes") / 1e6,
               number(port, "sent_packets"), (double)number(port, "sent_bytes") / 1e6);
        print_drops(json_object_get(port, "drops"));
    }
    return EXIT_OK;
}

// --- routes and neighbours

// All of them: the router answers in parts.
static int read_routes(const char *network, json_t *routes, struct tv_error *err)
{
    cleanup_json json_t *from = NULL;
    int rc;
    do {
        cleanup_json json_t *part = NULL;
        json_t *params = json_object();
        if (from)
            json_object_set(params, "from", from);
        rc = net_ask_router("route.list", network, params, &part, err);
        json_decref(from);
        from = rc ? NULL : json_incref(json_object_get(part, "next"));
        if (!rc)
            json_array_extend(routes, json_object_get(part, "routes"));
    } while (from);
    return rc;
}

int net_routes(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *routes = json_array();
    size_t i;
    json_t *r;
    if (read_routes(c->words[0], routes, &err))
        return net_failed(c, &err);
    if (c->json) {
        command_print_json(json_pack("{s:O}", "routes", routes));
        return EXIT_OK;
    }
    printf("%-43s %-11s %s\n", "PREFIX", "TYPE", "TO");
    json_array_foreach(routes, i, r)
    {
        printf("%-43s %-11s ", text(r, "prefix"), text(r, "type"));
        if (json_object_get(r, "port"))
            printf("port %s\n", text(r, "port"));
        else
            print_list(json_object_get(r, "via")), putchar('\n');
    }
    return EXIT_OK;
}

int net_neighbours(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    size_t i;
    json_t *n;
    if (net_ask_router("neighbour.list", c->words[0], NULL, &result, &err))
        return net_failed(c, &err);
    if (c->json) {
        command_print_json(json_incref(result));
        return EXIT_OK;
    }
    printf("%-39s %-17s %-16s %s\n", "ADDRESS", "MAC", "PORT", "STATE");
    json_array_foreach(json_object_get(result, "neighbours"), i, n)
    {
        printf("%-39s %-17s %-16s %s\n", text(n, "address"), *text(n, "mac") ? text(n, "mac") : "-", text(n, "port"),
               text(n, "state"));
    }
    return EXIT_OK;
}
