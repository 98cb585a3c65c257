// The user's terminal joined to a machine's console: see terminal.h.
#include "control/command/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#define ESCAPE 0x01 // ^A
#define PENDING_MAX 65536

struct terminal {
    struct terminal_config config;
    struct loop_source *console, *input, *cont;
    bool is_raw, escaped, console_open;
    char pending[PENDING_MAX]; // typed, not yet taken by the console
    size_t n_pending;
};

static struct termios saved; // as we found it; valid while raw_mode
static volatile sig_atomic_t raw_mode;

static void leave_raw(void)
{
    if (raw_mode)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
    raw_mode = 0;
}

// Output processing stays on: our own messages end in a plain newline.
static bool enter_raw(void)
{
    if (!isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp())
        return false;
    if (!raw_mode && tcgetattr(STDIN_FILENO, &saved) < 0)
        return false;
    struct termios raw = saved;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST;
    raw_mode = 1;
    return tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

static void continued(void *arg, int signo)
{
    struct terminal *t = arg;
    (void)signo;
    if (t->is_raw)
        enter_raw();
}

static void update_events(struct terminal *t)
{
    if (t->console_open)
        loop_set_events(t->console, EPOLLIN | (t->n_pending ? (uint32_t)EPOLLOUT : 0));
    if (t->input)
        loop_set_events(t->input, t->n_pending < PENDING_MAX / 2 ? (uint32_t)EPOLLIN : 0);
}

static void push_pending(struct terminal *t)
{
    while (t->n_pending && t->console_open) {
        ssize_t n = send(t->config.console_fd, t->pending, t->n_pending, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0)
            break;
        t->n_pending -= (size_t)n;
        memmove(t->pending, t->pending + n, t->n_pending);
    }
    update_events(t);
}

static void escape_key(struct terminal *t, char key)
{
    t->escaped = false;
    if (key == 'x')
        t->config.leave(t->config.arg);
    else if (key == ESCAPE)
        t->pending[t->n_pending++] = ESCAPE;
    else if (key == 'h')
        fputs("\n^A x  leave (with `trivet run`: ends the machine)\n^A h  this help\n^A ^A send a ^A\n", stderr);
}

static void typed(struct terminal *t, const char *buf, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (t->escaped)
            escape_key(t, buf[i]);
        else if (t->is_raw && buf[i] == ESCAPE)
            t->escaped = true;
        else
            t->pending[t->n_pending++] = buf[i];
    }
    push_pending(t);
}

static void read_input(void *arg, int fd, uint32_t events)
{
    struct terminal *t = arg;
    char buf[4096];
    (void)events;
    ssize_t n = read(fd, buf, sizeof(buf));
    if (n > 0) {
        typed(t, buf, (size_t)n); // fits: we read only while half of it is free
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        loop_remove(t->input);
        t->input = NULL;
    }
}

static bool write_out(const char *buf, size_t len)
{
    while (len) {
        ssize_t n = write(STDOUT_FILENO, buf, len);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return false;
        buf += n;
        len -= (size_t)n;
    }
    return true;
}

// Returns whether there may be more.
static bool read_console(struct terminal *t)
{
    char buf[16384];
    ssize_t n = recv(t->config.console_fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n > 0) {
        if (!write_out(buf, (size_t)n))
            t->config.leave(t->config.arg);
        return true;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    t->console_open = false;
    loop_remove(t->console);
    t->console = NULL;
    return false;
}

static void console_ready(void *arg, int fd, uint32_t events)
{
    struct terminal *t = arg;
    (void)fd;
    if (events & EPOLLOUT)
        push_pending(t);
    if (events & ~(uint32_t)EPOLLOUT)
        read_console(t);
    if (!t->console_open)
        t->config.closed(t->config.arg);
}

void terminal_drain(struct terminal *t)
{
    while (t->console_open && read_console(t))
        ;
}

// A plain file cannot be waited for, and need not be.
static void read_file(struct terminal *t)
{
    char buf[4096];
    ssize_t n;
    while (t->n_pending + sizeof(buf) <= PENDING_MAX && (n = read(STDIN_FILENO, buf, sizeof(buf))) > 0)
        typed(t, buf, (size_t)n);
}

struct terminal *terminal_create(const struct terminal_config *config, struct tv_error *err)
{
    struct terminal *t = calloc(1, sizeof(*t));
    if (!t) {
        tv_error_set(err, -ENOMEM, "no memory");
        return NULL;
    }
    t->config = *config;
    t->console = loop_add_fd(config->loop, config->console_fd, EPOLLIN, console_ready, t, err);
    t->cont = loop_add_signal(config->loop, SIGCONT, continued, t, err);
    if (!t->console || !t->cont) {
        terminal_destroy(t);
        return NULL;
    }
    t->console_open = true;
    signal(SIGPIPE, SIG_IGN);
    static bool registered;
    if (!registered)
        atexit(leave_raw);
    registered = true;
    t->is_raw = enter_raw();
    // A background job must not read the terminal: it would be stopped for it.
    if (!isatty(STDIN_FILENO) || t->is_raw)
        t->input = loop_add_fd(config->loop, STDIN_FILENO, EPOLLIN, read_input, t, NULL);
    if (!t->input && !isatty(STDIN_FILENO))
        read_file(t);
    return t;
}

void terminal_destroy(struct terminal *t)
{
    if (!t)
        return;
    leave_raw();
    loop_remove(t->input);
    loop_remove(t->console);
    loop_remove(t->cont);
    close(t->config.console_fd);
    free(t);
}
