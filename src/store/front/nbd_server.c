// The NBD server: its listeners, and the connections that are half open: see nbd.h.
#include "store/front/nbd_private.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define TICK_NS 1000000000u
#define ACCEPT_BUDGET 16 // connections taken in one go: the loop has more to do

// ---- time ----

void nbd_server_tick(struct nbd_server *server)
{
    if (server->is_ticking)
        return;
    server->is_ticking = true;
    loop_set_timer(server->timer, TICK_NS, 0);
}

static void drop(struct nbd_conn *c, const char *why)
{
    nbd_server_log_refusal(c->server, why);
    nbd_conn_fail(c);
    nbd_server_forget(c);
    nbd_conn_free(c);
}

static void end_late_ones(struct nbd_server *server)
{
    const uint64_t now_ns = clock_now_ns();
    for (struct nbd_conn *c = server->half_open, *next; c; c = next) {
        next = c->next;
        if (c->deadline_ns <= now_ns)
            drop(c, "the handshake took too long");
    }
}

// True: there is memory that may be given back the next time.
static bool sweep_exports(struct nbd_server *server)
{
    bool is_touched = false;
    for (const struct disk *disk = server->store->disks; disk; disk = disk->next) {
        struct nbd_export *export = nbd_export_of(disk);
        for (struct nbd_conn *c = export ? export->conns : NULL; c; c = c->next)
            is_touched |= nbd_conn_sweep(c);
    }
    return is_touched;
}

static void on_timer(void *arg)
{
    struct nbd_server *server = arg;
    server->is_ticking = false;
    end_late_ones(server);
    const bool is_touched = sweep_exports(server);
    bool is_deaf = false;
    for (struct nbd_listener *listener = server->listeners; listener; listener = listener->next) {
        is_deaf |= listener->is_deaf;
        listener->is_deaf = false;
        loop_set_events(listener->source, EPOLLIN);
    }
    if (server->half_open || is_touched || is_deaf)
        nbd_server_tick(server);
}

void nbd_server_log_refusal(struct nbd_server *server, const char *why)
{
    const uint64_t now_ns = clock_now_ns();
    if (server->logged_ns && now_ns - server->logged_ns < TICK_NS) {
        server->n_unlogged++;
        return;
    }
    log_event(LOG_WARN, "store", "nbd client refused", LOG_STR("why", why), LOG_U64("others_meanwhile", server->n_unlogged));
    server->logged_ns = now_ns;
    server->n_unlogged = 0;
}

// ---- connections ----

void nbd_server_forget(struct nbd_conn *c)
{
    nbd_conn_unlink(c);
    c->server->n_half_open--;
}

static struct nbd_conn *oldest(struct nbd_server *server)
{
    struct nbd_conn *c = server->half_open;
    while (c && c->next)
        c = c->next;
    return c;
}

void nbd_server_adopt(struct nbd_listener *listener, int fd)
{
    struct nbd_server *server = listener->server;
    struct tv_error err = {0};
    if (server->n_half_open == NBD_HALF_OPEN_MAX)
        drop(oldest(server), "more half-open connections than there may be");
    struct nbd_conn *c = nbd_conn_create(listener, fd, &err);
    if (!c) {
        close(fd);
        nbd_server_log_refusal(server, err.text);
        return;
    }
    nbd_conn_link(c, &server->half_open);
    server->n_half_open++;
    nbd_server_tick(server);
    nbd_handshake_begin(c);
}

static void on_connection(void *arg, int listen_fd, uint32_t events)
{
    struct nbd_listener *listener = arg;
    (void)events;
    for (unsigned i = 0; i < ACCEPT_BUDGET; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            nbd_server_adopt(listener, fd);
            continue;
        }
        if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
            return;
        nbd_server_log_refusal(listener->server, strerror(errno));
        listener->is_deaf = true; // until there may be descriptors again
        loop_set_events(listener->source, 0);
        nbd_server_tick(listener->server);
        return;
    }
}

// ---- listeners ----

bool nbd_listener_shows(const struct nbd_listener *listener, const struct disk *disk)
{
    const json_t *name;
    size_t i;
    json_array_foreach(listener->exports, i, name) if (!strcmp(json_string_value(name), disk->name)) return true;
    return !listener->exports;
}

static struct nbd_listener **find(const struct nbd_server *server, const char *name)
{
    struct nbd_listener **at = (struct nbd_listener **)&server->listeners;
    while (*at && strcmp((*at)->name, name))
        at = &(*at)->next;
    return at;
}

static int check(const struct nbd_server *server, const struct store_nbd_config *config, int fd, struct tv_error *err)
{
    const size_t len = strlen(config->name);
    int listening = 0;
    socklen_t size = sizeof(listening);
    if (!len || len >= NBD_NAME_MAX)
        return tv_error_set(err, -EINVAL, "nbd: listener '%s': its name must have 1 to %u bytes", config->name, NBD_NAME_MAX - 1);
    if (*find(server, config->name))
        return tv_error_set(err, -EEXIST, "nbd: listener '%s': there is one of this name already; nbd.close ends it", config->name);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 || !listening)
        return tv_error_set(err, -EINVAL, "nbd: listener '%s': its descriptor must be a listening socket", config->name);
    const json_t *name;
    size_t i;
    json_array_foreach(config->exports, i, name) if (!json_is_string(name)) return tv_error_set(
        err, -EINVAL, "nbd: listener '%s': \"exports\" must be names of disks", config->name);
    return 0;
}

static bool has_tls(const struct store_nbd_config *config)
{
    return config->tls_required || config->certificate || config->key || config->ca || config->psk;
}

static int fill(struct nbd_listener *listener, const struct store_nbd_config *config, struct tv_error *err)
{
    strcpy(listener->name, config->name); // the length was checked
    listener->exports = json_deep_copy(config->exports);
    listener->tls_required = config->tls_required;
    listener->credentials = has_tls(config) ? nbd_credentials_create(config, err) : NULL;
    if (has_tls(config) && !listener->credentials) {
        tv_error_prefix(err, "nbd: listener '%s'", config->name);
        return -EINVAL;
    }
    fcntl(listener->fd, F_SETFL, fcntl(listener->fd, F_GETFL) | O_NONBLOCK);
    listener->source = loop_add_fd(listener->server->store->loop, listener->fd, EPOLLIN, on_connection, listener, err);
    return listener->source ? 0 : -ENOMEM;
}

static void destroy_listener(struct nbd_listener *listener)
{
    loop_remove(listener->source);
    nbd_credentials_destroy(listener->credentials);
    json_decref(listener->exports);
    close(listener->fd);
    free(listener);
}

int nbd_server_listen(struct nbd_server *server, const struct store_nbd_config *config, int fd, struct tv_error *err)
{
    int r = check(server, config, fd, err);
    struct nbd_listener *listener = r ? NULL : calloc(1, sizeof(*listener));
    if (!listener) {
        close(fd);
        return r ? r : tv_error_set(err, -ENOMEM, "nbd: out of memory");
    }
    listener->server = server;
    listener->fd = fd;
    r = fill(listener, config, err);
    if (r) {
        destroy_listener(listener);
        return r;
    }
    listener->next = server->listeners;
    server->listeners = listener;
    log_event(LOG_INFO, "store", "nbd listener added", LOG_STR("listener", listener->name),
              LOG_STR("tls", !listener->credentials   ? "off"
                             : listener->tls_required ? "required"
                                                      : "on"));
    return 0;
}

static void end_connections(struct nbd_server *server, const struct nbd_listener *listener)
{
    for (struct nbd_conn *c = server->half_open, *next; c; c = next) {
        next = c->next;
        if (c->listener == listener)
            drop(c, "the listener was closed");
    }
    for (const struct disk *disk = server->store->disks; disk; disk = disk->next) {
        struct nbd_export *export = nbd_export_of(disk);
        for (struct nbd_conn *c = export ? export->conns : NULL; c; c = c->next)
            if (c->listener == listener)
                nbd_conn_fail(c);
    }
}

int nbd_server_close(struct nbd_server *server, const char *name, struct tv_error *err)
{
    struct nbd_listener **at = find(server, name), *listener = *at;
    if (!listener)
        return tv_error_set(err, -ENOENT, "nbd: no listener '%s'; nbd.list tells which there are", name);
    *at = listener->next;
    end_connections(server, listener);
    log_event(LOG_INFO, "store", "nbd listener closed", LOG_STR("listener", listener->name));
    destroy_listener(listener);
    store_end_batch(server->store);
    return 0;
}

static unsigned count_connections(const struct nbd_server *server, const struct nbd_listener *listener)
{
    unsigned n = 0;
    for (const struct disk *disk = server->store->disks; disk; disk = disk->next) {
        const struct nbd_export *export = nbd_export_of(disk);
        for (const struct nbd_conn *c = export ? export->conns : NULL; c; c = c->next)
            n += c->listener == listener;
    }
    return n;
}

json_t *nbd_server_list(const struct nbd_server *server)
{
    json_t *list = json_array();
    for (const struct nbd_listener *listener = server->listeners; listener; listener = listener->next) {
        json_t *object = json_pack("{s:s, s:s, s:i}", "name", listener->name, "tls",
                                   !listener->credentials   ? "off"
                                   : listener->tls_required ? "required"
                                                            : "on",
                                   "connections", (int)count_connections(server, listener));
        if (listener->exports)
            json_object_set(object, "exports", listener->exports);
        json_array_append_new(list, object);
    }
    return list;
}

// ---- the server ----

struct nbd_server *nbd_server_create(struct store *store, struct tv_error *err)
{
    struct nbd_server *server = calloc(1, sizeof(*server));
    if (!server) {
        tv_error_set(err, -ENOMEM, "nbd: out of memory");
        return NULL;
    }
    server->store = store;
    server->timer = loop_add_timer(store->loop, on_timer, server, err);
    if (server->timer)
        return server;
    free(server);
    return NULL;
}

void nbd_server_destroy(struct nbd_server *server)
{
    if (!server)
        return;
    while (server->half_open)
        drop(server->half_open, "the store ends");
    while (server->listeners) {
        struct nbd_listener *listener = server->listeners;
        server->listeners = listener->next;
        destroy_listener(listener);
    }
    loop_remove(server->timer);
    free(server);
}
