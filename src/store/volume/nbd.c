// A volume behind NBD: its life, and its connections. See nbd.h.
#include "store/volume/nbd_private.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_S 10u  // for the first connection: whoever adds the disk waits for it
#define RECONNECT_S 2u // for each of the later ones
#define RETRY_NS (NS_PER_S / 20)
#define SILENT_WAITS_MAX 10u // of a second each, while the store waits for a disk to be drained

static void log_of(const struct nbd_volume *n, enum log_level level, const char *message, const char *why)
{
    log_event(level, "store", message, LOG_STR("export", n->way.export),
              LOG_STR("server", n->way.dir_fd >= 0 ? n->way.name : n->way.address), LOG_STR("reason", why));
}

// ---- the connection ----

void nbd_client_want_out(struct nbd_volume *n, bool wanted)
{
    if (wanted == n->wants_out || !n->source)
        return;
    n->wants_out = wanted;
    loop_set_events(n->source, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void serve(struct nbd_volume *n, bool is_writable)
{
    const char *why = NULL;
    if (is_writable)
        nbd_client_send(n);
    if (nbd_client_receive(n, &why) < 0)
        nbd_client_drop(n, why);
    nbd_client_give_waiting(n);
    io_poke(n->volume.env->io); // a batch: what is done is delivered
}

static void on_socket(void *arg, int fd, uint32_t events)
{
    (void)fd;
    serve(arg, events & EPOLLOUT);
}

static int adopt(struct nbd_volume *n, int fd, struct tv_error *err)
{
    n->source = loop_add_fd(n->volume.env->loop, fd, EPOLLIN, on_socket, n, err);
    if (!n->source) {
        close(fd);
        return err && err->code ? err->code : -ENOMEM;
    }
    n->fd = fd;
    n->state = NBD_CONNECTED;
    n->wants_out = false;
    n->n_connections++;
    const uint64_t half_ns = n->timeout_s * NS_PER_S / 2;
    loop_set_timer(n->timer, half_ns, half_ns);
    return 0;
}

static void give_up(struct nbd_volume *n)
{
    n->state = NBD_LOST;
    nbd_client_fail_all(n, -EIO);
}

// ---- connecting again ----

static void *connect_again(void *arg)
{
    struct nbd_volume *n = arg;
    const uint64_t deadline_ns = clock_now_ns() + n->reconnect_s * NS_PER_S;
    do {
        n->new_error = (struct tv_error){0};
        n->new_fd = nbd_client_connect(&n->way, RECONNECT_S, &n->new_terms, &n->new_error);
        if (n->new_fd < 0 && !atomic_load(&n->stop))
            nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    } while (n->new_fd < 0 && !atomic_load(&n->stop) && clock_now_ns() < deadline_ns);
    eventfd_write(n->told_fd, 1);
    return NULL;
}

static void start_connecting(struct nbd_volume *n)
{
    n->state = NBD_CONNECTING;
    atomic_store(&n->stop, false);
    n->has_thread = pthread_create(&n->thread, NULL, connect_again, n) == 0;
    if (!n->has_thread)
        give_up(n);
}

static bool is_same(const struct nbd_terms *a, const struct nbd_terms *b)
{
    return a->size_bytes == b->size_bytes && a->flags == b->flags && a->block_bytes == b->block_bytes;
}

static void take_connection(struct nbd_volume *n)
{
    struct tv_error err = {0};
    if (n->new_fd < 0) {
        log_of(n, LOG_ERROR, "no connection any more: its disk gets I/O errors", n->new_error.text);
        give_up(n);
    } else if (!is_same(&n->new_terms, &n->terms)) {
        log_of(n, LOG_ERROR, "another export than before: its disk gets I/O errors", "its size, flags or blocks differ");
        close(n->new_fd);
        give_up(n);
    } else {
        n->terms = n->new_terms;
        if (adopt(n, n->new_fd, &err))
            give_up(n);
        else
            log_of(n, LOG_INFO, "connected again", "");
    }
    n->new_fd = -1;
}

static void on_told(void *arg, int fd, uint32_t events)
{
    struct nbd_volume *n = arg;
    eventfd_t count;
    (void)events;
    if (eventfd_read(fd, &count) || !n->has_thread)
        return;
    pthread_join(n->thread, NULL);
    n->has_thread = false;
    take_connection(n);
    nbd_client_give_waiting(n);
    io_poke(n->volume.env->io);
}

void nbd_client_drop(struct nbd_volume *n, const char *why)
{
    log_of(n, LOG_WARN, "connection lost", why);
    loop_remove(n->source);
    n->source = NULL;
    close(n->fd);
    n->fd = -1;
    loop_set_timer(n->timer, 0, 0);
    n->in_at = n->in_len = 0;
    n->filling = NULL;
    if (n->n_written != n->n_flushed && !n->keeps_cache && !n->has_lost) {
        n->has_lost = true;
        log_of(n, LOG_ERROR, "what was not flushed may be lost: its disk's flushes fail from now on", why);
    }
    nbd_client_take_back(n);
    if (n->reconnect_s)
        start_connecting(n);
    else
        give_up(n);
}

static void on_timer(void *arg)
{
    struct nbd_volume *n = arg;
    const bool is_silent = n->n_heard == n->n_heard_before && n->n_free < NBD_SLOTS;
    n->n_heard_before = n->n_heard;
    if (!is_silent)
        return;
    nbd_client_drop(n, "the server is silent");
    io_poke(n->volume.env->io);
}

// ---- life ----

static void stop_thread(struct nbd_volume *n)
{
    if (!n->has_thread)
        return;
    atomic_store(&n->stop, true);
    pthread_join(n->thread, NULL);
    n->has_thread = false;
    if (n->new_fd >= 0)
        close(n->new_fd);
    n->new_fd = -1;
}

static void nbd_wait(struct volume *volume, unsigned timeout_ms)
{
    struct nbd_volume *n = (struct nbd_volume *)volume;
    struct pollfd fds[2] = {
        {.fd = n->state == NBD_CONNECTED ? n->fd : -1, .events = (short)(n->wants_out ? POLLIN | POLLOUT : POLLIN)},
        {.fd = n->has_thread ? n->told_fd : -1, .events = POLLIN},
    };
    if (poll(fds, 2, (int)timeout_ms) > 0) {
        n->n_silent_waits = 0;
        if (fds[0].revents)
            serve(n, fds[0].revents & POLLOUT);
        if (fds[1].revents)
            on_told(n, n->told_fd, EPOLLIN);
        return;
    }
    if (!timeout_ms || ++n->n_silent_waits < SILENT_WAITS_MAX)
        return;
    if (n->state == NBD_CONNECTED)
        nbd_client_drop(n, "the server is silent, and its disk is to be drained");
    stop_thread(n);
    give_up(n);
}

static void nbd_describe(const struct volume *volume, json_t *object)
{
    const struct nbd_volume *n = (const struct nbd_volume *)volume;
    json_object_set_new(object, "export", json_string(n->way.export));
    json_object_set_new(object, "connected", json_boolean(n->state == NBD_CONNECTED));
    json_object_set_new(object, "connections", json_integer((json_int_t)n->n_connections));
    if (n->has_lost)
        json_object_set_new(object, "flush_failed", json_true());
}

static void nbd_destroy(struct volume *volume)
{
    struct nbd_volume *n = (struct nbd_volume *)volume;
    uint8_t goodbye[NBD_REQUEST_BYTES];
    stop_thread(n);
    volume_end_never(volume->env, &n->ender);
    loop_remove(n->source);
    loop_remove(n->timer);
    loop_remove(n->told);
    if (n->fd >= 0) {
        nbd_put_request(goodbye, &(struct nbd_request){.type = NBD_CMD_DISC});
        send(n->fd, goodbye, sizeof(goodbye), MSG_DONTWAIT | MSG_NOSIGNAL);
        close(n->fd);
    }
    if (n->told_fd >= 0)
        close(n->told_fd);
    if (n->way.dir_fd >= 0)
        close(n->way.dir_fd);
    free(n->in);
    free(n);
}

static const struct volume_ops nbd_ops = {
    .kind = "nbd",
    .start = nbd_client_start,
    .wait = nbd_wait,
    .describe = nbd_describe,
    .destroy = nbd_destroy,
};

static int take_way(struct nbd_volume *n, const struct nbd_volume_options *options, struct tv_error *err)
{
    n->way = (struct nbd_way){.dir_fd = options->dir_fd, .port = options->port};
    if ((size_t)snprintf(n->way.name, sizeof(n->way.name), "%s", options->name ? options->name : "") >= sizeof(n->way.name) ||
        (size_t)snprintf(n->way.address, sizeof(n->way.address), "%s", options->address ? options->address : "") >=
            sizeof(n->way.address) ||
        (size_t)snprintf(n->way.export, sizeof(n->way.export), "%s", options->export ? options->export : "") >=
            sizeof(n->way.export))
        return tv_error_set(err, -ENAMETOOLONG, "the name of the socket, the address or the export is too long");
    return 0;
}

static int connect_first(struct nbd_volume *n, const struct nbd_volume_options *options, struct tv_error *err)
{
    int fd = nbd_client_connect(&n->way, CONNECT_S, &n->terms, err);
    if (fd < 0)
        return fd;
    n->volume.size_bytes = n->terms.size_bytes;
    n->volume.block_bytes = n->terms.block_bytes;
    n->volume.physical_bytes = 4096;
    n->volume.read_only = options->read_only || n->terms.flags & NBD_FLAG_READ_ONLY;
    n->volume.can_discard = n->terms.flags & NBD_FLAG_SEND_TRIM;
    if (!options->read_only && n->terms.flags & NBD_FLAG_READ_ONLY)
        log_of(n, LOG_WARN, "the server lets nobody write", "");
    return adopt(n, fd, err);
}

static int set_up(struct nbd_volume *n, const struct nbd_volume_options *options, struct tv_error *err)
{
    int r = take_way(n, options, err);
    if (r)
        return r;
    n->in = malloc(NBD_IN_BYTES);
    n->told_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!n->in || n->told_fd < 0)
        return tv_error_set(err, -ENOMEM, "out of memory or descriptors");
    n->timer = loop_add_timer(n->volume.env->loop, on_timer, n, err);
    n->told = n->timer ? loop_add_fd(n->volume.env->loop, n->told_fd, EPOLLIN, on_told, n, err) : NULL;
    return n->told ? connect_first(n, options, err) : -ENOMEM;
}

struct volume *nbd_volume_create(struct volume_env *env, const struct nbd_volume_options *options, struct tv_error *err)
{
    struct nbd_volume *n = calloc(1, sizeof(*n));
    if (!n) {
        if (options->dir_fd >= 0)
            close(options->dir_fd);
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    n->volume = (struct volume){.ops = &nbd_ops, .env = env, .context_bytes = VOLUME_CONTEXT_SIZE(sizeof(struct nbd_op))};
    n->way.dir_fd = options->dir_fd;
    n->fd = n->told_fd = n->new_fd = -1;
    n->keeps_cache = options->keeps_cache;
    n->reconnect_s = options->reconnect_s;
    n->timeout_s = options->timeout_s;
    nbd_client_init_queues(n);
    if (!set_up(n, options, err))
        return &n->volume;
    nbd_destroy(&n->volume);
    return NULL;
}
