// trivet net host, peer, peers: this host and the others that its networks stand on.
#include "control/cleanup.h"
#include "control/client.h"
#include "control/command/net.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "-";
}

// trivetd has another folder than we.
static int make_absolute(json_t *host, const char *key, struct tv_error *err)
{
    char full[PATH_MAX];
    const char *path = json_string_value(json_object_get(host, key));
    if (!path)
        return 0;
    if (!realpath(path, full))
        return tv_error_set(err, -errno, "%s=%s: %s", key, path, strerror(errno));
    json_object_set_new(host, key, json_string(full));
    return 0;
}

static int put_words(json_t *json, char **words, int n, struct tv_error *err)
{
    for (int i = 0; i < n; i++) {
        const char *equals = strchr(words[i], '=');
        if (!equals || equals == words[i] || !equals[1])
            return tv_error_set(err, -EINVAL, "'%s' should be KEY=VALUE", words[i]);
        cleanup_free char *key = strndup(words[i], (size_t)(equals - words[i]));
        json_object_set_new(json, key, json_string(equals + 1));
    }
    return 0;
}

// A trivetd that was started for it alone remembers, and goes.
static int ask(const char *method, json_t *params, json_t **result, struct tv_error *err)
{
    cleanup_close int fd = client_connect_or_start(err);
    if (fd < 0) {
        json_decref(params);
        return fd;
    }
    const int rc = client_call(fd, method, params, result, err);
    client_end_if_empty(fd);
    return rc;
}

// host KEY=VALUE...
int net_host(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL, *host = json_object();
    int rc = put_words(host, c->words, c->n_words, &err);
    static const char *const files[] = {"certificate", "key", "ca"};
    for (int i = 0; i < 3 && !rc; i++)
        rc = make_absolute(host, files[i], &err);
    if (!rc)
        rc = ask("host.apply", json_pack("{s:O}", "host", host), &result, &err);
    return rc ? net_failed(c, &err) : net_print(c, result, "this host: %s", text(result, "result"));
}

// peer add NAME KEY=VALUE..., peer remove NAME
int net_peer(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    const bool adds = strcmp(c->words[0], "add") == 0;
    if (!adds && strcmp(c->words[0], "remove") != 0)
        return command_usage("net", "'%s' should be 'add' or 'remove'", c->words[0]);
    if (adds != (c->n_words > 2))
        return command_usage("net",
                             adds ? "the peer's address is missing: address=ADDRESS" : "what is behind its name is not needed");
    cleanup_json json_t *peer = json_pack("{s:s}", "name", c->words[1]);
    if (put_words(peer, c->words + 2, c->n_words - 2, &err))
        return net_failed(c, &err);
    json_t *params = adds ? json_pack("{s:O}", "add", peer) : json_pack("{s:s}", "remove", c->words[1]);
    if (ask("host.peer", params, &result, &err))
        return net_failed(c, &err);
    return net_print(c, result, "peer %s: %s", c->words[1], text(result, "result"));
}

const char *net_peer_state(const json_t *peer)
{
    const json_t *synced = json_object_get(peer, "synced"), *hears = json_object_get(peer, "hears");
    if (!synced)
        return "-";
    if (json_is_true(synced))
        return json_is_true(hears) ? "both know" : "known";
    return json_is_true(hears) ? "knows us" : "away";
}

int net_peers(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    size_t i;
    json_t *peer;
    if (ask("host.get", json_object(), &result, &err))
        return net_failed(c, &err);
    if (c->json) {
        command_print_json(json_incref(result));
        return EXIT_OK;
    }
    const json_t *host = json_object_get(result, "host");
    if (!host)
        return net_print(c, result, "nothing is said of this host; `trivet net host` does");
    printf("this host: %s in network %s%s%s\n", text(host, "address"), text(host, "underlay"),
           json_object_get(host, "listen") ? ", listens at " : "", json_object_get(host, "listen") ? text(host, "listen") : "");
    if (json_object_get(result, "reason"))
        printf("%s\n", text(result, "reason"));
    printf("%-12s %-39s %-28s %s\n", "PEER", "ADDRESS", "CONNECT", "STATE");
    json_array_foreach(json_object_get(result, "peers"), i, peer)
        printf("%-12s %-39s %-28s %s\n", text(peer, "name"), text(peer, "address"), text(peer, "connect"), net_peer_state(peer));
    return EXIT_OK;
}
