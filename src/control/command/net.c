// trivet net VERB ...: the verbs, and those that make, change and take away networks, ports and routes.
#include "control/command/net.h"

#include "control/cleanup.h"
#include "control/client.h"
#include "control/net/net_spec.h"
#include "control/tool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int net_failed(const struct net_command *c, const struct tv_error *err)
{
    int status = command_failed("net", c->json, command_status(err), err);
    return tool_interrupted() ? 128 + tool_interrupted() : status;
}

int net_ask(const char *method, const char *network, json_t *params, json_t **result, struct tv_error *err)
{
    json_t *all = params ? params : json_object();
    if (network)
        json_object_set_new(all, "name", json_string(network));
    cleanup_close int fd = client_connect(err);
    if (fd < 0) {
        json_decref(all);
        return fd;
    }
    return client_call(fd, method, all, result, err);
}

int net_ask_router(const char *method, const char *network, json_t *params, json_t **result, struct tv_error *err)
{
    return net_ask("net.call", network, json_pack("{s:s, s:o}", "method", method, "params", params ? params : json_object()),
                   result, err);
}

int net_print(const struct net_command *c, json_t *result, const char *format, ...)
{
    if (c->json) {
        command_print_json(json_incref(result));
        return EXIT_OK;
    }
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    return EXIT_OK;
}

json_t *net_split(const char *text)
{
    json_t *list = json_array();
    while (text && *text) {
        const size_t len = strcspn(text, ",");
        json_array_append_new(list, json_stringn(text, len));
        text += len + (text[len] == ',');
    }
    return list;
}

static bool takes_list(const char *key, size_t len)
{
    static const char *const keys[] = {"addresses", "via", NULL};
    for (const char *const *k = keys; *k; k++)
        if (strlen(*k) == len && strncmp(*k, key, len) == 0)
            return true;
    return false;
}

static json_t *read_value(const char *text)
{
    char *end;
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    if (end != text && !*end && !errno)
        return json_integer(number);
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
        return json_boolean(*text == 't');
    return json_string(text);
}

void net_put_number(json_t *json, const char *key, const char *text)
{
    json_object_set_new(json, key, read_value(text));
}

int net_put_option(json_t *json, const char *word, struct tv_error *err)
{
    const char *equals = strchr(word, '=');
    if (!equals || equals == word || !equals[1])
        return tv_error_set(err, -EINVAL, "'%s' should be KEY=VALUE", word);
    const size_t len = (size_t)(equals - word);
    cleanup_free char *key = strndup(word, len);
    json_object_set_new(json, key, takes_list(word, len) ? net_split(equals + 1) : read_value(equals + 1));
    return 0;
}

// --- networks

static int put_options(json_t *spec, const char *text, struct tv_error *err)
{
    cleanup_json json_t *words = net_split(text);
    json_t *options = json_object(), *word;
    size_t i;
    int rc = 0;
    json_object_set_new(spec, "options", options);
    json_array_foreach(words, i, word)
    {
        if (!rc)
            rc = net_put_option(options, json_string_value(word), err);
    }
    return rc;
}

static int put_services(const struct net_command *c, json_t *spec, struct tv_error *err)
{
    cleanup_json json_t *words = net_split(c->forward);
    json_t *services = json_pack("{s:b, s:b, s:b}", "nat", c->nat, "dhcp", c->dhcp, "dns", c->dns), *word, *forward;
    json_t *forwards = json_array();
    size_t i;
    int rc = 0;
    json_object_set_new(spec, "services", services);
    json_object_set_new(services, "forwards", forwards);
    if (c->limit)
        json_object_set_new(services, "limit", json_string(c->limit));
    json_array_foreach(words, i, word)
    {
        if (!rc)
            rc = net_spec_parse_forward(json_string_value(word), &forward, err);
        if (!rc)
            json_array_append_new(forwards, forward);
    }
    return rc;
}

// "vni=7,hosts=b+c"
static int put_link(const struct net_command *c, json_t *spec, struct tv_error *err)
{
    cleanup_json json_t *words = net_split(c->link);
    json_t *link = json_object(), *word;
    size_t i;
    int rc = 0;
    if (c->link)
        json_object_set(spec, "link", link);
    json_array_foreach(words, i, word)
    {
        if (!rc)
            rc = net_put_option(link, json_string_value(word), err);
    }
    cleanup_free char *hosts =
        json_is_string(json_object_get(link, "hosts")) ? strdup(json_string_value(json_object_get(link, "hosts"))) : NULL;
    for (char *plus = hosts; plus && (plus = strchr(plus, '+'));)
        *plus = ',';
    if (hosts)
        json_object_set_new(link, "hosts", net_split(hosts));
    json_decref(link);
    return rc;
}

// What there is is not changed by it: a file says what a network is to become (trivet up).
static int refuse_other(int fd, const char *name, struct tv_error *err)
{
    cleanup_json json_t *there = NULL;
    struct tv_error none = {0};
    if (client_call(fd, "net.get", json_pack("{s:s}", "name", name), &there, &none))
        return 0;
    return tv_error_set(err, -EEXIST, "there is a network '%s' already; `trivet net show %s` tells what it is", name, name);
}

static int net_create(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    json_t *spec = json_pack("{s:s, s:s, s:o, s:o}", "name", c->words[0], "type", c->type ? c->type : "ethernet", "prefixes",
                             net_split(c->prefix), "gateways", net_split(c->gateway));
    if (c->tenant)
        json_object_set_new(spec, "tenant", json_string(c->tenant));
    cleanup_json json_t *params = json_pack("{s:o}", "spec", spec);
    int rc = put_options(spec, c->option, &err);
    if (!rc)
        rc = put_services(c, spec, &err);
    if (!rc)
        rc = put_link(c, spec, &err);
    if (rc)
        return net_failed(c, &err);
    cleanup_close int fd = client_connect_or_start(&err);
    rc = fd < 0 ? fd : refuse_other(fd, c->words[0], &err);
    if (!rc)
        rc = client_call(fd, "net.apply", json_incref(params), &result, &err);
    if (rc && fd >= 0)
        client_end_if_empty(fd);
    return rc ? net_failed(c, &err) : net_print(c, result, "%s: created", c->words[0]);
}

static int net_delete(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    if (net_ask("net.remove", c->words[0], NULL, &result, &err))
        return net_failed(c, &err);
    return net_print(c, result, "%s: deleted", c->words[0]);
}

// --- ports and routes

// attach NETWORK PORT KIND [KEY=VALUE]...
static int net_attach(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL, *params = NULL;
    json_t *port = json_pack("{s:s, s:s}", "name", c->words[1], "kind", c->words[2]);
    params = json_pack("{s:o}", "port", port);
    for (int i = 3; i < c->n_words; i++)
        if (net_put_option(port, c->words[i], &err))
            return net_failed(c, &err);
    if (net_ask("net.attach", c->words[0], json_incref(params), &result, &err))
        return net_failed(c, &err);
    const char *socket = json_string_value(json_object_get(result, "socket"));
    return net_print(c, result, "%s: port %s%s%s", c->words[0], c->words[1], socket ? ", where its machine is waited for at " : "",
                     socket ? socket : "");
}

static int net_detach(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    if (net_ask("net.detach", c->words[0], json_pack("{s:s}", "port", c->words[1]), &result, &err))
        return net_failed(c, &err);
    return net_print(c, result, "%s: port %s removed", c->words[0], c->words[1]);
}

// route NETWORK add PREFIX via=A[,A] | port=P | type=blackhole|unreachable, route NETWORK remove PREFIX
static int net_route(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL, *params = json_object();
    const bool adds = strcmp(c->words[1], "add") == 0;
    if (!adds && strcmp(c->words[1], "remove") != 0)
        return command_usage("net", "'%s' should be 'add' or 'remove'", c->words[1]);
    if (adds != (c->n_words == 4))
        return command_usage("net", adds ? "where the route leads is missing: via=ADDRESS, port=PORT or type=blackhole"
                                         : "what is behind the prefix is not needed");
    json_t *route = json_pack("{s:s}", "prefix", c->words[2]);
    json_object_set_new(params, adds ? "add" : "remove", adds ? route : json_string(c->words[2]));
    if (!adds)
        json_decref(route);
    if (adds && net_put_option(route, c->words[3], &err))
        return net_failed(c, &err);
    if (net_ask("net.route", c->words[0], json_incref(params), &result, &err))
        return net_failed(c, &err);
    return net_print(c, result, "%s: route to %s %s", c->words[0], c->words[2], adds ? "added" : "removed");
}

// --- the verbs

static const struct verb {
    const char *name;
    int n_words, most; // that it takes
    int (*run)(const struct net_command *c);
    const char *missing;
} verbs[] = {
    {"create", 1, 1, net_create, "the name of the network is missing"},
    {"delete", 1, 1, net_delete, "which network is missing"},
    {"list", 0, 0, net_list, ""},
    {"show", 1, 1, net_show, "which network is missing"},
    {"stats", 1, 1, net_stats, "which network is missing"},
    {"routes", 1, 1, net_routes, "which network is missing"},
    {"neighbours", 1, 1, net_neighbours, "which network is missing"},
    {"capture", 1, 1, net_capture, "which network is missing"},
    {"trace", 1, 1, net_trace, "which network is missing"},
    {"graph", 0, 1, net_graph, ""},
    {"attach", 3, 32, net_attach, "which network, the port's name or its kind is missing"},
    {"detach", 2, 2, net_detach, "which network, or which port, is missing"},
    {"host", 1, 8, net_host, "what this host is to others is missing: address=ADDRESS underlay=NETWORK"},
    {"peer", 2, 8, net_peer, "'add' or 'remove', or the name of the peer is missing"},
    {"peers", 0, 0, net_peers, ""},
    {"route", 3, 4, net_route, "which network, 'add' or 'remove', or the prefix is missing"},
    {0},
};

int cmd_net(int argc, char **argv)
{
    struct net_command c = {0};
    const struct option_spec options[] = {{"--json", &c.json, NULL},
                                          {"--nat", &c.nat, NULL},
                                          {"--dhcp", &c.dhcp, NULL},
                                          {"--dns", &c.dns, NULL},
                                          {"--forward", NULL, &c.forward},
                                          {"--link", NULL, &c.link},
                                          {"--limit", NULL, &c.limit},
                                          {"--type", NULL, &c.type},
                                          {"--prefix", NULL, &c.prefix},
                                          {"--gateway", NULL, &c.gateway},
                                          {"--tenant", NULL, &c.tenant},
                                          {"--option", NULL, &c.option},
                                          {"--port", NULL, &c.port},
                                          {"--output|-o", NULL, &c.output},
                                          {"--count", NULL, &c.count},
                                          {"--seconds", NULL, &c.seconds},
                                          {"--snap", NULL, &c.snap},
                                          {"--from", NULL, &c.from},
                                          {"--to", NULL, &c.to},
                                          {"--source", NULL, &c.source},
                                          {"--frame", NULL, &c.frame},
                                          {"--mac", NULL, &c.mac},
                                          {"--ttl", NULL, &c.ttl},
                                          {"--size", NULL, &c.size},
                                          {0}};
    int words = command_options(command_find("net"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    const struct verb *verb = verbs;
    while (words && verb->name && strcmp(argv[1], verb->name) != 0)
        verb++;
    if (!words || !verb->name)
        return command_usage("net", words ? "no such thing as '%s'" : "what to do is missing", argv[1]);
    if (words < verb->n_words + 1)
        return command_usage("net", "%s", verb->missing);
    if (words > verb->most + 1)
        return command_usage("net", "unexpected '%s'", argv[verb->most + 2]);
    c.words = argv + 2;
    c.n_words = words - 1;
    return verb->run(&c);
}
