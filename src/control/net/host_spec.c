// This host and its peers: see host_spec.h.
#include "control/net/host_spec.h"

#include "control/cleanup.h"
#include "control/files.h"
#include "control/net/net_spec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PEM_BYTES_MAX (256u << 10)

static const char *const secrets[] = {"listen", "certificate", "key", "ca", NULL}; // all or none

static const char *text(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

// Of texts alone, none unknown; but for `list`, which may be NULL.
static int check_members(const json_t *json, const char *const *known, const char *list, struct tv_error *err)
{
    const char *key;
    json_t *member;
    if (!json_is_object(json))
        return tv_error_set(err, -EINVAL, "should be an object");
    json_object_foreach((json_t *)json, key, member)
    {
        const char *const *k = known;
        while (*k && strcmp(*k, key) != 0)
            k++;
        if (list && strcmp(list, key) == 0)
            continue;
        if (!*k)
            return tv_error_set(err, -EINVAL, "there is no '%.40s' of it", key);
        if (!json_is_string(member))
            return tv_error_set(err, -EINVAL, "'%s' should be a text", key);
    }
    return 0;
}

static int check_address(const json_t *json, int *family, struct tv_error *err)
{
    unsigned char bytes[16];
    const char *address = text(json, "address");
    *family = address ? net_parse_address(address, bytes, NULL) : 0;
    return *family
               ? 0
               : tv_error_set(err, -EINVAL,
                              "'address' is '%.60s'; it should be the host's IPv4 or IPv6 address in the underlay, as 192.0.2.1",
                              address ? address : "");
}

// "192.0.2.1:7471", "[2001:db8::1]:7471"; absent is fine.
static int check_place(const json_t *json, const char *key, struct tv_error *err)
{
    char address[64];
    unsigned char bytes[16];
    unsigned port;
    int end = 0;
    const char *place = text(json, key);
    if (!place)
        return 0;
    if (sscanf(place, "[%60[^]]]:%5u%n", address, &port, &end) != 2 && sscanf(place, "%60[^:]:%5u%n", address, &port, &end) != 2)
        end = 0;
    if (end && !place[end] && port >= 1 && port <= 65535 && net_parse_address(address, bytes, NULL))
        return 0;
    return tv_error_set(err, -EINVAL, "'%s' is '%.60s'; it should be an address and a TCP port, as 192.0.2.1:7471", key, place);
}

// --- peers

static bool is_good_name(const char *name)
{
    return name && spec_name_is_good(name) && strlen(name) <= PEER_NAME_MAX;
}

static int check_peer(const json_t *host, const json_t *peer, int own_family, struct tv_error *err)
{
    static const char *const keys[] = {"name", "address", "connect", NULL};
    int family;
    int rc = check_members(peer, keys, NULL, err);
    if (!rc)
        rc = check_address(peer, &family, err);
    if (!rc)
        rc = check_place(peer, "connect", err);
    if (rc)
        return rc;
    if (family != own_family)
        return tv_error_set(err, -EINVAL, "'%s' is of another family than '%s', this host's", text(peer, "address"),
                            text(host, "address"));
    if (strcmp(text(peer, "address"), text(host, "address")) == 0)
        return tv_error_set(err, -EINVAL, "'%s' is this host's own address", text(peer, "address"));
    if (text(peer, "connect") && !text(host, "listen"))
        return tv_error_set(err, -EINVAL,
                            "'connect' needs a certificate of this host's: give it 'listen', 'certificate', 'key' and 'ca'");
    return 0;
}

static int put_peers(json_t *spec, const json_t *peers, int family, struct tv_error *err)
{
    json_t *checked = json_array(), *peer, *other;
    size_t i, j;
    json_object_set_new(spec, "peers", checked);
    if (peers && !json_is_array(peers))
        return tv_error_set(err, -EINVAL, "this host: 'peers' should be a list");
    json_array_foreach(peers, i, peer)
    {
        const char *name = text(peer, "name");
        if (!is_good_name(name))
            return tv_error_set(err, -EINVAL, "peer '%.60s': the name should be 1 to %d letters, digits, '-', '_' and '.'",
                                name ? name : "", PEER_NAME_MAX);
        int rc = check_peer(spec, peer, family, err);
        json_array_foreach(checked, j, other)
        {
            if (!rc && (strcmp(text(other, "name"), name) == 0 || strcmp(text(other, "address"), text(peer, "address")) == 0))
                rc = tv_error_set(err, -EINVAL, "it is there already, as '%s' with the address %s", text(other, "name"),
                                  text(other, "address"));
        }
        if (rc)
            return tv_error_prefix(err, "peer '%s'", name);
        json_array_append_new(checked, json_deep_copy(peer));
    }
    return 0;
}

static int check_host(const json_t *json, int *family, struct tv_error *err)
{
    static const char *const keys[] = {"address", "underlay", "listen", "certificate", "key", "ca", NULL};
    unsigned n = 0;
    int rc = check_members(json, keys, "peers", err);
    if (!rc)
        rc = check_address(json, family, err);
    if (!rc)
        rc = check_place(json, "listen", err);
    if (rc)
        return rc;
    const char *underlay = text(json, "underlay");
    if (!underlay || !spec_name_is_good(underlay) || strlen(underlay) > NET_NAME_MAX)
        return tv_error_set(err, -EINVAL, "'underlay' is '%.60s'; it should be the name of the network that carries links",
                            underlay ? underlay : "");
    for (const char *const *s = secrets; *s; s++)
        n += text(json, *s) != NULL;
    for (const char *const *s = secrets; n && *s; s++)
        if (!text(json, *s))
            return tv_error_set(err, -EINVAL, "'%s' is missing: 'listen', 'certificate', 'key' and 'ca' go together", *s);
    return 0;
}

int host_spec_check(const json_t *json, json_t **spec, struct tv_error *err)
{
    int family;
    *spec = NULL;
    int rc = check_host(json, &family, err);
    if (rc)
        return tv_error_prefix(err, "this host");
    cleanup_json json_t *made = json_deep_copy(json);
    rc = put_peers(made, json_object_get(json, "peers"), family, err);
    if (!rc)
        *spec = json_incref(made);
    return rc;
}

const json_t *host_spec_peer(const json_t *host, const char *name)
{
    size_t i;
    json_t *peer;
    json_array_foreach(json_object_get(host, "peers"), i, peer)
    {
        if (strcmp(text(peer, "name"), name) == 0)
            return peer;
    }
    return NULL;
}

// --- links

static json_t *make_link(const json_t *host, const json_t *link, const json_t *peer)
{
    json_t *port = json_deep_copy(link);
    json_object_del(port, "hosts");
    json_object_set_new(port, "name", json_sprintf("to-%s", text(peer, "name")));
    json_object_set(port, "underlay", json_object_get(host, "underlay"));
    json_object_set(port, "local", json_object_get(host, "address"));
    json_object_set(port, "remote", json_object_get(peer, "address"));
    return port;
}

int host_spec_links(const json_t *host, const json_t *net, json_t **ports, struct tv_error *err)
{
    const json_t *link = json_object_get(net, "link"), *hosts = json_object_get(link, "hosts");
    json_t *entry;
    size_t i;
    *ports = json_array();
    if (link && !host)
        return tv_error_set(err, -ENOENT,
                            "network '%s': 'link': this host's address and its peers are not known; `trivet net host` states them",
                            net_spec_name(net));
    json_array_foreach(hosts ? hosts : json_object_get(link ? host : NULL, "peers"), i, entry)
    {
        const json_t *peer = hosts ? host_spec_peer(host, json_string_value(entry)) : entry;
        if (!peer)
            return tv_error_set(err, -ENOENT, "network '%s': 'link': there is no peer '%s'; `trivet net peers` shows them",
                                net_spec_name(net), json_string_value(entry));
        json_array_append_new(*ports, make_link(host, link, peer));
    }
    return 0;
}

json_t *host_spec_serve(const json_t *host, struct tv_error *err)
{
    cleanup_json json_t *params = json_pack("{s:O}", "listen", json_object_get(host, "listen"));
    for (const char *const *s = secrets + 1; *s; s++) {
        cleanup_free char *pem = NULL;
        size_t len;
        if (file_read_all(text(host, *s), PEM_BYTES_MAX, &pem, &len, err)) {
            tv_error_prefix(err, "this host: '%s'", *s);
            return NULL;
        }
        json_t *value = json_stringn(pem, len);
        if (!value) {
            tv_error_set(err, -EINVAL, "this host: '%s': %s is no PEM file", *s, text(host, *s));
            return NULL;
        }
        json_object_set_new(params, *s, value);
    }
    return json_incref(params);
}
