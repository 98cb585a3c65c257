// Peers: see peer.h.
#include "router/peer/peer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rpc.h"
#include "router/ip/address.h"
#include "router/params.h"
#include "router/peer/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PEERS_MOST 256
#define STRANGERS_MOST 64  // connections that have not shaken hands yet
#define NETWORKS_MOST 4096 // of a peer
#define RETRY_LEAST_NS (100 * NS_PER_MS)
#define RETRY_MOST_NS (2 * NS_PER_S)
#define HOLD_NS (30 * NS_PER_S)    // what a peer has said counts without a connection
#define SETTLE_NS (10 * NS_PER_MS) // changes that come together are told together

// Whoever connected to us: hears what we have. Before its hands are shaken it is nobody's.
struct listener {
    struct listener *next;
    struct peers *peers;
    struct peer *peer; // NULL: not known yet
    struct tls *tls;
    struct rpc_conn *conn;
    json_t *told;
};

// A host that we hear from.
struct peer {
    struct peer *next;
    struct peers *peers;
    struct ip_prefix address;
    char host[IP_TEXT_MAX], place[64]; // place: `to` as it was said
    struct sockaddr_storage to;
    socklen_t to_bytes;
    struct tls *tls;
    struct rpc_conn *conn;
    struct loop_source *retry, *hold;
    uint64_t retry_ns;
    bool is_synced;
    json_t *heard;   // {network: neighbours}
    json_t *fresh;   // of them, those that were said in this connection
    json_t *applied; // {network: the number of the link that has them}
};

struct peers {
    struct router *router;
    struct loop *loop;
    struct tls_credentials *credentials;
    int listen_fd;
    struct loop_source *listen_source, *settle;
    struct peer *list;
    struct listener *listeners;
    unsigned n_listeners;
};

// ---- what is heard ----

// To the link that it is for, when there is one and it does not have it yet.
static void apply(struct peer *peer, const char *network, const json_t *neighbours)
{
    struct tv_error err = {0};
    const uint64_t link = router_find_link(peer->peers->router, peer->host, network);
    if (link && link == (uint64_t)json_integer_value(json_object_get(peer->applied, network)))
        return;
    const int r = link ? router_hear(peer->peers->router, peer->host, network, neighbours, &err) : -ENOENT;
    if (r && link)
        log_event(LOG_WARN, "router", "what a peer says cannot be", LOG_STR("peer", peer->host), LOG_STR("why", err.text));
    json_object_set_new(peer->applied, network, json_integer((json_int_t)(r ? 0 : link)));
}

static void hear(struct peer *peer, const char *network, json_t *neighbours)
{
    json_object_del(peer->applied, network);
    apply(peer, network, neighbours);
    if (json_array_size(neighbours)) {
        json_object_set(peer->heard, network, neighbours);
        return;
    }
    json_object_del(peer->heard, network);
    json_object_del(peer->applied, network);
}

// All that is not in `kept`, which may be NULL.
static void forget(struct peer *peer, const json_t *kept)
{
    json_t *heard = json_copy(peer->heard), *neighbours, *none = json_array();
    const char *network;
    json_object_foreach(heard, network, neighbours)
    {
        if (!json_object_get(kept, network))
            hear(peer, network, none);
    }
    json_decref(none);
    json_decref(heard);
}

static void method_network(void *arg, struct rpc_request *req, const json_t *params)
{
    struct peer *peer = arg;
    struct tv_error err = {0};
    const char *network;
    json_t *neighbours = json_object_get(params, "neighbours");
    int r = params_get_string(params, "network", NULL, &network, &err);
    if (!r && !json_is_array(neighbours))
        r = tv_error_set(&err, -EINVAL, "\"neighbours\" must be a list");
    if (!r && json_object_size(peer->fresh) >= NETWORKS_MOST)
        r = tv_error_set(&err, -ENOSPC, "more than %d networks", NETWORKS_MOST);
    if (r) {
        rpc_reply_error(req, RPC_BAD_PARAMS, &err);
        return;
    }
    json_object_set_new(peer->fresh, network, json_true());
    hear(peer, network, neighbours);
    rpc_reply(req, json_object());
}

static void method_synced(void *arg, struct rpc_request *req, const json_t *params)
{
    struct peer *peer = arg;
    (void)params;
    forget(peer, peer->fresh);
    peer->is_synced = true;
    peer->retry_ns = RETRY_LEAST_NS;
    loop_set_timer(peer->hold, 0, 0);
    log_event(LOG_INFO, "router", "a peer has told what it has", LOG_STR("peer", peer->host),
              LOG_U64("networks", json_object_size(peer->heard)));
    rpc_reply(req, json_object());
}

static void on_hold(void *arg)
{
    struct peer *peer = arg;
    log_event(LOG_WARN, "router", "a peer is not there, and what it had said is forgotten", LOG_STR("peer", peer->host));
    forget(peer, NULL);
}

// ---- connections to peers ----

static void try_again(struct peer *peer)
{
    loop_set_timer(peer->retry, peer->retry_ns, 0);
    peer->retry_ns = 2 * peer->retry_ns < RETRY_MOST_NS ? 2 * peer->retry_ns : RETRY_MOST_NS;
}

static void speaker_closed(void *arg, struct rpc_conn *conn)
{
    struct peer *peer = arg;
    (void)conn; // the tls ends as well, and tells
    peer->conn = NULL;
}

static bool is_peer(const struct peer *peer, gnutls_session_t session)
{
    uint8_t bytes[16];
    ip6_bytes(peer->address.key, bytes);
    return tls_is_host(session, bytes, ip_bits(peer->address.family) / 8);
}

static void speaker_established(void *arg, struct tls *tls, gnutls_session_t session, int fd)
{
    static const struct rpc_method methods[] = {{"varp.network", method_network}, {"varp.synced", method_synced}, {NULL, NULL}};
    struct peer *peer = arg;
    struct tv_error err = {0};
    const struct rpc_service service = {.methods = methods, .arg = peer, .closed = speaker_closed};
    (void)tls;
    if (!is_peer(peer, session)) {
        log_event(LOG_WARN, "router", "a peer's certificate is not for its address", LOG_STR("peer", peer->host));
        close(fd); // which ends it
        return;
    }
    json_object_clear(peer->fresh);
    peer->conn = rpc_conn_create(peer->peers->loop, fd, &service, &err);
}

static void speaker_ended(void *arg, struct tls *tls, const char *why)
{
    struct peer *peer = arg;
    (void)tls;
    peer->tls = NULL;
    if (peer->is_synced) {
        log_event(LOG_WARN, "router", "the connection to a peer has ended", LOG_STR("peer", peer->host),
                  LOG_STR("why", why ? why : "it was closed"));
        loop_set_timer(peer->hold, HOLD_NS, 0);
    }
    peer->is_synced = false;
    try_again(peer);
}

static void connect_to(void *arg)
{
    struct peer *peer = arg;
    struct tv_error err = {0};
    const struct tls_events events = {speaker_established, speaker_ended, peer};
    if (peer->tls || !peer->peers->credentials)
        return;
    const int fd = socket(peer->to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&peer->to, peer->to_bytes) && errno != EINPROGRESS)
        close(fd);
    else if (fd >= 0)
        peer->tls = tls_create(peer->peers->loop, fd, peer->peers->credentials, false, &events, &err);
    if (!peer->tls)
        try_again(peer);
}

static void disconnect(struct peer *peer)
{
    rpc_conn_destroy(peer->conn);
    if (peer->tls)
        tls_destroy(peer->tls);
    loop_set_timer(peer->retry, 0, 0);
    peer->conn = NULL;
    peer->tls = NULL;
    peer->is_synced = false;
}

// ---- those that hear from us ----

static void remove_listener(struct listener *listener)
{
    struct listener **at = &listener->peers->listeners;
    while (*at != listener)
        at = &(*at)->next;
    *at = listener->next;
    listener->peers->n_listeners--;
    rpc_conn_destroy(listener->conn);
    json_decref(listener->told);
    free(listener);
}

static void tell(struct listener *listener, const char *network, json_t *neighbours)
{
    rpc_notify(listener->conn, "varp.network", json_pack("{s:s, s:O}", "network", network, "neighbours", neighbours));
}

// What has changed since it was last told.
static void tell_changes(struct listener *listener)
{
    json_t *now = router_announce(listener->peers->router, listener->peer->host), *neighbours, *none = json_array();
    const char *network;
    json_object_foreach(now, network, neighbours)
    {
        if (!json_equal(neighbours, json_object_get(listener->told, network)))
            tell(listener, network, neighbours);
    }
    json_object_foreach(listener->told, network, neighbours)
    {
        if (!json_object_get(now, network))
            tell(listener, network, none);
    }
    json_decref(none);
    json_decref(listener->told);
    listener->told = now;
}

static void listener_established(void *arg, struct tls *tls, gnutls_session_t session, int fd)
{
    struct listener *listener = arg;
    struct tv_error err = {0};
    (void)tls;
    for (struct peer *peer = listener->peers->list; peer && !listener->peer; peer = peer->next)
        if (is_peer(peer, session))
            listener->peer = peer;
    if (!listener->peer) {
        log_event(LOG_WARN, "router", "a host that is no peer has connected");
        close(fd);
        return;
    }
    static const struct rpc_service service; // it has nothing to say; without `closed` the connection stays ours
    listener->conn = rpc_conn_create(listener->peers->loop, fd, &service, &err);
    if (!listener->conn)
        return;
    tell_changes(listener);
    rpc_notify(listener->conn, "varp.synced", json_object());
}

static void listener_ended(void *arg, struct tls *tls, const char *why)
{
    (void)tls;
    (void)why;
    remove_listener(arg);
}

static unsigned n_strangers(const struct peers *peers)
{
    unsigned n = 0;
    for (const struct listener *l = peers->listeners; l; l = l->next)
        n += !l->peer;
    return n;
}

static void accept_one(void *arg, int listen_fd, uint32_t ready)
{
    struct peers *peers = arg;
    struct tv_error err = {0};
    (void)ready;
    const int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct listener *listener = n_strangers(peers) < STRANGERS_MOST && peers->n_listeners < STRANGERS_MOST + 2 * PEERS_MOST
                                    ? calloc(1, sizeof(*listener))
                                    : NULL;
    if (!listener) {
        close(fd);
        return;
    }
    const struct tls_events events = {listener_established, listener_ended, listener};
    *listener = (struct listener){.next = peers->listeners, .peers = peers, .told = json_object()};
    peers->listeners = listener;
    peers->n_listeners++;
    listener->tls = tls_create(peers->loop, fd, peers->credentials, true, &events, &err);
    if (!listener->tls)
        remove_listener(listener);
}

static void dismiss(struct peers *peers, const struct peer *but_for, bool all)
{
    for (struct listener *listener = peers->listeners, *next; listener; listener = next) {
        next = listener->next;
        if (!all && listener->peer != but_for)
            continue;
        tls_destroy(listener->tls);
        remove_listener(listener);
    }
}

// ---- changes here ----

static void on_settled(void *arg)
{
    struct peers *peers = arg;
    json_t *neighbours;
    const char *network;
    for (struct listener *listener = peers->listeners; listener; listener = listener->next)
        if (listener->conn)
            tell_changes(listener);
    for (struct peer *peer = peers->list; peer; peer = peer->next)
        json_object_foreach(peer->heard, network, neighbours)
        {
            apply(peer, network, neighbours);
        }
}

static void on_change(void *arg)
{
    struct peers *peers = arg;
    loop_set_timer(peers->settle, SETTLE_NS, 0);
}

// ---- control ----

struct peers *peers_create(struct router *router, struct loop *loop, struct tv_error *err)
{
    struct peers *peers = calloc(1, sizeof(*peers));
    if (!peers) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    *peers = (struct peers){.router = router, .loop = loop, .listen_fd = -1};
    peers->settle = loop_add_timer(loop, on_settled, peers, err);
    if (!peers->settle) {
        free(peers);
        return NULL;
    }
    router_set_changed(router, on_change, peers);
    return peers;
}

static void stop_serving(struct peers *peers)
{
    dismiss(peers, NULL, true);
    for (struct peer *peer = peers->list; peer; peer = peer->next)
        disconnect(peer);
    loop_remove(peers->listen_source);
    peers->listen_source = NULL;
    if (peers->listen_fd >= 0)
        close(peers->listen_fd);
    peers->listen_fd = -1;
    tls_credentials_destroy(peers->credentials);
    peers->credentials = NULL;
}

static void free_peer(struct peer *peer)
{
    disconnect(peer);
    loop_remove(peer->retry);
    loop_remove(peer->hold);
    json_decref(peer->heard);
    json_decref(peer->fresh);
    json_decref(peer->applied);
    free(peer);
}

void peers_destroy(struct peers *peers)
{
    if (!peers)
        return;
    router_set_changed(peers->router, NULL, NULL);
    stop_serving(peers);
    while (peers->list) {
        struct peer *peer = peers->list;
        peers->list = peer->next;
        free_peer(peer);
    }
    loop_remove(peers->settle);
    free(peers);
}

// "192.0.2.1:7471" or "[2001:db8::1]:7471".
static int read_place(const json_t *params, const char *key, struct sockaddr_storage *to, socklen_t *to_bytes, struct tv_error *err)
{
    const char *text;
    char address[IP_TEXT_MAX] = "";
    unsigned port = 0;
    int end = 0;
    if (params_get_string(params, key, NULL, &text, err))
        return -EINVAL;
    struct sockaddr_in *four = (void *)to;
    struct sockaddr_in6 *six = (void *)to;
    *to = (struct sockaddr_storage){0};
    if (sscanf(text, "%45[0-9.]:%5u%n", address, &port, &end) == 2 && !text[end] &&
        inet_pton(AF_INET, address, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        *to_bytes = sizeof(*four);
    } else if (sscanf(text, "[%45[0-9a-fA-F:.]]:%5u%n", address, &port, &end) == 2 && !text[end] &&
               inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        *to_bytes = sizeof(*six);
    }
    if (!to->ss_family || !port || port > 65535)
        return tv_error_set(err, -EINVAL,
                            "\"%s\" is '%.60s'; must be an address and a TCP port, as 192.0.2.1:7471 or [2001:db8::1]:7471", key,
                            text);
    return 0;
}

static int listen_at(const json_t *params, struct tv_error *err)
{
    struct sockaddr_storage at;
    socklen_t at_bytes = 0;
    const int on = 1;
    int r = read_place(params, "listen", &at, &at_bytes, err);
    if (r)
        return r;
    const int fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) &&
        !bind(fd, (const struct sockaddr *)&at, at_bytes) && !listen(fd, 128))
        return fd;
    r = -errno;
    if (fd >= 0)
        close(fd);
    return tv_error_set(err, r, "\"listen\": %s", strerror(-r));
}

static int check_listening(int fd, struct tv_error *err)
{
    int listening = 0, domain = 0;
    socklen_t len = sizeof(listening);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) || !listening ||
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) || (domain != AF_INET && domain != AF_INET6))
        return tv_error_set(err, -EINVAL, "the descriptor is no listening TCP socket");
    return 0;
}

int peers_serve(struct peers *peers, const json_t *params, int fd, struct tv_error *err)
{
    const char *certificate, *key, *ca;
    if (params_get_string(params, "certificate", NULL, &certificate, err) || params_get_string(params, "key", NULL, &key, err) ||
        params_get_string(params, "ca", NULL, &ca, err) || (fd >= 0 && check_listening(fd, err)))
        return -EINVAL;
    struct tls_credentials *credentials = tls_credentials_create(certificate, key, ca, err);
    if (!credentials)
        return err->code;
    stop_serving(peers); // of before
    const int listen_fd = fd >= 0 ? fd : listen_at(params, err);
    peers->listen_source = listen_fd < 0 ? NULL : loop_add_fd(peers->loop, listen_fd, EPOLLIN, accept_one, peers, err);
    if (!peers->listen_source) {
        tls_credentials_destroy(credentials);
        if (fd < 0 && listen_fd >= 0)
            close(listen_fd);
        return err->code;
    }
    peers->credentials = credentials;
    peers->listen_fd = listen_fd;
    for (struct peer *peer = peers->list; peer; peer = peer->next)
        connect_to(peer);
    return 0;
}

static struct peer **find_peer(struct peers *peers, const struct ip_prefix *address)
{
    struct peer **at = &peers->list;
    while (*at && ((*at)->address.key != address->key || (*at)->address.family != address->family))
        at = &(*at)->next;
    return at;
}

static int read_address(const json_t *params, struct ip_prefix *address, struct tv_error *err)
{
    const char *text;
    if (params_get_string(params, "address", NULL, &text, err))
        return -EINVAL;
    return ip_parse_address(text, address)
               ? tv_error_set(err, -EINVAL,
                              "\"address\" is '%.60s'; must be the IPv4 or IPv6 address that links have as \"remote\"", text)
               : 0;
}

int peers_add(struct peers *peers, const json_t *params, struct tv_error *err)
{
    struct peer read = {.peers = peers, .retry_ns = RETRY_LEAST_NS};
    if (read_address(params, &read.address, err) || read_place(params, "connect", &read.to, &read.to_bytes, err))
        return -EINVAL;
    ip_format_address(read.address.family, read.address.key, read.host);
    snprintf(read.place, sizeof(read.place), "%s", json_string_value(json_object_get(params, "connect")));
    if (!peers->credentials)
        return tv_error_set(err, -EINVAL, "there are no certificates yet; peer.serve gives them");
    if (*find_peer(peers, &read.address))
        return tv_error_set(err, -EEXIST, "there is a peer %s already", read.host);
    struct peer *peer = calloc(1, sizeof(*peer));
    if (!peer)
        return tv_error_set(err, -ENOMEM, "out of memory");
    *peer = read;
    peer->heard = json_object();
    peer->fresh = json_object();
    peer->applied = json_object();
    peer->retry = loop_add_timer(peers->loop, connect_to, peer, err);
    peer->hold = peer->retry ? loop_add_timer(peers->loop, on_hold, peer, err) : NULL;
    if (!peer->hold) {
        free_peer(peer);
        return err->code;
    }
    peer->next = peers->list;
    peers->list = peer;
    connect_to(peer);
    return 0;
}

int peers_remove(struct peers *peers, const json_t *params, struct tv_error *err)
{
    struct ip_prefix address;
    if (read_address(params, &address, err))
        return -EINVAL;
    struct peer **at = find_peer(peers, &address), *peer = *at;
    if (!peer)
        return tv_error_set(err, -ENOENT, "there is no such peer");
    *at = peer->next;
    dismiss(peers, peer, false);
    forget(peer, NULL);
    free_peer(peer);
    return 0;
}

json_t *peers_list(const struct peers *peers)
{
    json_t *list = json_array();
    for (const struct peer *peer = peers->list; peer; peer = peer->next) {
        bool hears = false;
        for (const struct listener *l = peers->listeners; l && !hears; l = l->next)
            hears = l->peer == peer && l->conn;
        json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:b, s:i}", "address", peer->host, "connect", peer->place, "synced",
                                              peer->is_synced, "hears", hears, "networks", (int)json_object_size(peer->heard)));
    }
    return list;
}
