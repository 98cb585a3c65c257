// The machine's console: see console.h.
#include "machine/console.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define RING_BYTES (1u << 20) // how far a viewer may fall behind; only what is written to is ever resident
#define INPUT_BYTES 4096u
#define CHUNK_BYTES (16u << 10)
#define VIEWERS_MAX 32u
#define NOTE_BYTES 96u

struct viewer {
    struct viewer *next;
    struct console *console;
    int fd;
    struct loop_source *source; // NULL: a regular file, always ready for output, no input
    bool is_socket, input_ended, output_blocked;
    uint64_t pos; // of the next byte to be sent; counts from the first byte ever written
    char note[NOTE_BYTES];
    size_t note_len, note_sent; // goes before the next byte
};

struct console {
    struct console_config config;
    struct loop_source *listener, *waker;
    int wake_fd;
    struct viewer *viewers;
    unsigned n_viewers;
    bool log_failed;

    pthread_mutex_t lock;       // guards what follows
    uint8_t *ring;              // byte number i is at i % RING_BYTES
    uint64_t head;              // bytes ever written
    uint64_t log_pos;           // bytes in the log; head - log_pos <= RING_BYTES
    uint8_t input[INPUT_BYTES]; // typed and not yet taken by the guest; starts at 0
    size_t input_len;
    bool feeding; // the start of `input` is being offered to the guest's port: only the loop's thread may change it
    bool polled;  // the guest asks for input by itself (console_read): the serial port gets none
};

static void console_wake(struct console *c)
{
    uint64_t one = 1;
    ssize_t n = write(c->wake_fd, &one, sizeof(one)); // fails only if it is awake already
    (void)n;
}

// Bytes from `pos` on, as many as lie in one piece. Lock held.
static size_t ring_piece(const struct console *c, uint64_t pos, const uint8_t **piece)
{
    size_t at = (size_t)(pos % RING_BYTES), left = RING_BYTES - at;
    *piece = c->ring + at;
    return c->head - pos < left ? (size_t)(c->head - pos) : left;
}

// Lock held. A log that cannot be written (disk full) is given up for what is lost, and tried again with what comes.
static void log_flush(struct console *c)
{
    while (c->config.log_fd >= 0 && c->log_pos < c->head) {
        const uint8_t *piece;
        size_t len = ring_piece(c, c->log_pos, &piece);
        ssize_t n = write(c->config.log_fd, piece, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            if (!c->log_failed)
                log_event(LOG_WARN, "console", "log cannot be written", LOG_STR("error", strerror(errno)));
            c->log_failed = true;
            c->log_pos = c->head;
            return;
        }
        c->log_failed = false;
        c->log_pos += (uint64_t)n;
    }
    c->log_pos = c->head;
}

void console_write(struct console *c, const uint8_t *buf, size_t len_bytes)
{
    pthread_mutex_lock(&c->lock);
    while (len_bytes > 0) {
        size_t at = (size_t)(c->head % RING_BYTES);
        size_t len = len_bytes < RING_BYTES / 4 ? len_bytes : RING_BYTES / 4;
        len = len < RING_BYTES - at ? len : RING_BYTES - at;
        if (c->head + len - c->log_pos > RING_BYTES / 2)
            log_flush(c);
        memcpy(c->ring + at, buf, len);
        c->head += len;
        buf += len;
        len_bytes -= len;
    }
    pthread_mutex_unlock(&c->lock);
    console_wake(c);
}

// Offers the guest's port what was typed. No lock is held meanwhile: the port may answer with output.
static void input_feed(struct console *c)
{
    pthread_mutex_lock(&c->lock);
    size_t len = c->polled ? 0 : c->input_len;
    c->feeding = len > 0;
    pthread_mutex_unlock(&c->lock);
    if (len == 0)
        return;
    size_t n = c->config.input(c->config.arg, c->input, len);
    pthread_mutex_lock(&c->lock);
    c->feeding = false;
    memmove(c->input, c->input + n, c->input_len - n);
    c->input_len -= n;
    pthread_mutex_unlock(&c->lock);
}

size_t console_read(struct console *c, uint8_t *buf, size_t len_bytes)
{
    pthread_mutex_lock(&c->lock);
    size_t n = len_bytes < c->input_len ? len_bytes : c->input_len;
    n = c->feeding ? 0 : n; // the guest will ask again
    memcpy(buf, c->input, n);
    memmove(c->input, c->input + n, c->input_len - n);
    c->input_len -= n;
    c->polled = true;
    pthread_mutex_unlock(&c->lock);
    if (n > 0)
        console_wake(c); // viewers may be read again
    return n;
}

void console_room(struct console *c)
{
    console_wake(c);
}

void console_reset_input(struct console *c)
{
    pthread_mutex_lock(&c->lock);
    c->polled = false;
    c->input_len = 0;
    pthread_mutex_unlock(&c->lock);
    console_wake(c);
}

void console_state(struct console *c, struct state *s)
{
    pthread_mutex_lock(&c->lock);
    uint32_t len = (uint32_t)c->input_len;
    state_section_begin(s, "console", 1);
    state_bool(s, "polled", &c->polled);
    state_count(s, "typed", &len, INPUT_BYTES);
    state_bytes(s, "input", c->input, len);
    state_section_end(s);
    c->input_len = len;
    pthread_mutex_unlock(&c->lock);
    console_wake(c);
}

static bool input_has_room(struct console *c)
{
    pthread_mutex_lock(&c->lock);
    bool room = c->input_len < INPUT_BYTES;
    pthread_mutex_unlock(&c->lock);
    return room;
}

static void viewer_remove(struct viewer *v)
{
    struct viewer **at = &v->console->viewers;
    while (*at != v)
        at = &(*at)->next;
    *at = v->next;
    v->console->n_viewers--;
    loop_remove(v->source);
    close(v->fd);
    free(v);
}

static ssize_t viewer_send(struct viewer *v, const void *buf, size_t len_bytes)
{
    ssize_t n;
    do
        n = v->is_socket ? send(v->fd, buf, len_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) : write(v->fd, buf, len_bytes);
    while (n < 0 && errno == EINTR);
    return n;
}

// Copies the next bytes for this viewer; first tells it what it lost if the ring went over it.
static size_t viewer_next(struct viewer *v, uint8_t buf[static CHUNK_BYTES])
{
    struct console *c = v->console;
    const uint8_t *piece;
    pthread_mutex_lock(&c->lock);
    if (c->head - v->pos > RING_BYTES) {
        uint64_t lost_bytes = c->head - v->pos - CONSOLE_HISTORY_BYTES;
        v->pos += lost_bytes;
        v->note_len =
            (size_t)snprintf(v->note, sizeof(v->note), "\r\n[%" PRIu64 " bytes lost: this viewer is too slow]\r\n", lost_bytes);
        v->note_sent = 0;
    }
    size_t len = 0;
    if (v->note_sent < v->note_len) {
        len = v->note_len - v->note_sent;
        memcpy(buf, v->note + v->note_sent, len);
    } else {
        len = ring_piece(c, v->pos, &piece);
        len = len < CHUNK_BYTES ? len : CHUNK_BYTES;
        memcpy(buf, piece, len);
    }
    pthread_mutex_unlock(&c->lock);
    return len;
}

// Sends what there is and what the viewer takes. False: the viewer has gone.
static bool viewer_flush(struct viewer *v)
{
    uint8_t buf[CHUNK_BYTES];
    for (;;) {
        size_t len = viewer_next(v, buf);
        ssize_t n = len > 0 ? viewer_send(v, buf, len) : 0;
        v->output_blocked = n < 0 && errno == EAGAIN;
        if (n < 0)
            return v->output_blocked;
        if (len == 0)
            return true;
        if (v->note_sent < v->note_len)
            v->note_sent += (size_t)n;
        else
            v->pos += (uint64_t)n;
    }
}

static void viewer_listen(struct viewer *v)
{
    bool reads = !v->input_ended && input_has_room(v->console);
    if (v->source)
        loop_set_events(v->source, (reads ? (uint32_t)EPOLLIN : 0u) | (v->output_blocked ? (uint32_t)EPOLLOUT : 0u));
}

// False: the viewer has gone.
static bool viewer_receive(struct viewer *v)
{
    struct console *c = v->console;
    uint8_t buf[INPUT_BYTES];
    pthread_mutex_lock(&c->lock);
    size_t room = INPUT_BYTES - c->input_len;
    pthread_mutex_unlock(&c->lock);
    if (room == 0)
        return true;
    ssize_t n = v->is_socket ? recv(v->fd, buf, room, MSG_DONTWAIT) : read(v->fd, buf, room);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    v->input_ended = n == 0; // it may look on without a keyboard
    pthread_mutex_lock(&c->lock);
    memcpy(c->input + c->input_len, buf, (size_t)n); // only this thread adds
    c->input_len += (size_t)n;
    pthread_mutex_unlock(&c->lock);
    input_feed(c);
    return true;
}

static void viewer_ready(void *arg, int fd, uint32_t events)
{
    struct viewer *v = arg;
    (void)fd;
    bool alive = true;
    if (events & EPOLLIN)
        alive = viewer_receive(v);
    else if (events & (EPOLLHUP | EPOLLERR))
        alive = false;
    if (alive && (events & EPOLLOUT))
        alive = viewer_flush(v);
    if (alive)
        viewer_listen(v);
    else
        viewer_remove(v);
}

static int viewer_add(struct console *c, int fd, struct tv_error *err)
{
    int type;
    socklen_t len = sizeof(type);
    struct viewer *v = calloc(1, sizeof(*v));
    if (!v) {
        close(fd);
        return tv_error_set(err, -ENOMEM, "console: no memory for a viewer");
    }
    v->console = c;
    v->fd = fd;
    v->is_socket = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
    if (!v->is_socket)
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    pthread_mutex_lock(&c->lock);
    v->pos = c->head > CONSOLE_HISTORY_BYTES ? c->head - CONSOLE_HISTORY_BYTES : 0;
    pthread_mutex_unlock(&c->lock);
    v->source = loop_add_fd(c->config.loop, fd, EPOLLIN, viewer_ready, v, err);
    if (!v->source && err->code != -EPERM) { // EPERM: a regular file
        close(fd);
        free(v);
        return err->code;
    }
    v->next = c->viewers;
    c->viewers = v;
    c->n_viewers++;
    if (viewer_flush(v))
        viewer_listen(v);
    else
        viewer_remove(v);
    return 0;
}

static void console_accept(void *arg, int fd, uint32_t events)
{
    struct console *c = arg;
    struct tv_error err = {0};
    (void)events;
    int viewer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (viewer < 0)
        return;
    if (c->n_viewers >= VIEWERS_MAX) {
        static const char full[] = "[the console has too many viewers]\r\n";
        send(viewer, full, sizeof(full) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        close(viewer);
    } else if (viewer_add(c, viewer, &err) < 0) {
        log_event(LOG_WARN, "console", "viewer not taken", LOG_STR("error", err.text));
    }
}

static void console_woken(void *arg, int fd, uint32_t events)
{
    struct console *c = arg;
    struct viewer *v, *next;
    uint64_t count;
    (void)events;
    ssize_t n = read(fd, &count, sizeof(count));
    (void)n;
    input_feed(c);
    pthread_mutex_lock(&c->lock);
    log_flush(c);
    pthread_mutex_unlock(&c->lock);
    for (v = c->viewers; v; v = next) {
        next = v->next;
        if (v->output_blocked || viewer_flush(v))
            viewer_listen(v);
        else
            viewer_remove(v);
    }
}

// The descriptors are c's from here on.
static int console_open(struct console *c, struct tv_error *err)
{
    const struct console_config *config = &c->config;
    pthread_mutex_init(&c->lock, NULL);
    c->ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (c->ring == MAP_FAILED)
        return tv_error_set(err, -ENOMEM, "console: no memory");
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->wake_fd < 0)
        return tv_error_set(err, -errno, "console: eventfd: %s", strerror(errno));
    c->waker = loop_add_fd(config->loop, c->wake_fd, EPOLLIN, console_woken, c, err);
    if (!c->waker)
        return -EIO;
    if (config->listen_fd >= 0) {
        fcntl(config->listen_fd, F_SETFL, fcntl(config->listen_fd, F_GETFL) | O_NONBLOCK);
        c->listener = loop_add_fd(config->loop, config->listen_fd, EPOLLIN, console_accept, c, err);
        if (!c->listener)
            return -EIO;
    }
    int fd = config->fd;
    c->config.fd = -1; // the viewer's
    return fd >= 0 ? viewer_add(c, fd, err) : 0;
}

struct console *console_create(const struct console_config *config, struct tv_error *err)
{
    struct tv_error unread;
    struct console *c = calloc(1, sizeof(*c));
    err = err ? err : &unread;
    if (!c) {
        tv_error_set(err, -ENOMEM, "console: no memory");
        return NULL;
    }
    c->config = *config;
    c->wake_fd = -1;
    if (console_open(c, err) < 0) {
        console_destroy(c);
        return NULL;
    }
    return c;
}

static void viewer_drain(struct viewer *v, uint64_t deadline_ns)
{
    while (viewer_flush(v) && v->output_blocked) {
        uint64_t now_ns = clock_now_ns();
        struct pollfd p = {.fd = v->fd, .events = POLLOUT};
        if (now_ns >= deadline_ns || poll(&p, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1) == 0)
            return;
    }
}

void console_destroy(struct console *c)
{
    uint64_t deadline_ns = clock_now_ns() + CONSOLE_DRAIN_MS * NS_PER_MS;
    if (!c)
        return;
    if (c->ring && c->ring != MAP_FAILED)
        log_flush(c);
    while (c->viewers) {
        viewer_drain(c->viewers, deadline_ns);
        viewer_remove(c->viewers);
    }
    loop_remove(c->listener);
    loop_remove(c->waker);
    const int fds[] = {c->config.listen_fd, c->config.fd, c->config.log_fd, c->wake_fd};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (c->ring && c->ring != MAP_FAILED)
        munmap(c->ring, RING_BYTES);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
