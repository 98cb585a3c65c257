// Event loop: see loop.h.
//
// A source that is removed while events are being served is only marked dead, and freed at the end of the round.
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

enum source_kind { SOURCE_FD, SOURCE_TIMER, SOURCE_SIGNAL, SOURCE_CHILD, SOURCE_POST };

struct loop_source {
    struct loop *loop;
    struct loop_source *next, *prev; // in loop->sources, or (next only) in loop->dead
    enum source_kind kind;
    bool dead;
    int fd; // ours but for SOURCE_FD
    pid_t pid;
    union {
        loop_fd_fn *on_fd;
        loop_fn *on_timer;
        loop_signal_fn *on_signal;
        loop_child_fn *on_child;
    };
    void *arg;
};

struct posted {
    struct posted *next;
    loop_fn *fn;
    void *arg;
};

struct loop {
    int epoll_fd, post_fd;
    struct loop_source *sources, *dead;
    _Atomic bool stopping;
    pthread_mutex_t lock; // guards the posted calls
    struct posted *first, **last;
};

static void serve_posts(struct loop *loop)
{
    uint64_t count;
    if (read(loop->post_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return;
    pthread_mutex_lock(&loop->lock);
    struct posted *p = loop->first;
    loop->first = NULL;
    loop->last = &loop->first;
    pthread_mutex_unlock(&loop->lock);
    while (p) {
        struct posted *next = p->next;
        p->fn(p->arg);
        free(p);
        p = next;
    }
}

static struct loop_source *source_add(struct loop *loop, enum source_kind kind, int fd, uint32_t events, void *arg,
                                      struct tv_error *err)
{
    struct loop_source *s = calloc(1, sizeof(*s));
    if (!s) {
        tv_error_set(err, -ENOMEM, "event loop: no memory");
        return NULL;
    }
    *s = (struct loop_source){.loop = loop, .kind = kind, .fd = fd, .arg = arg, .next = loop->sources};
    struct epoll_event event = {.events = events, .data.ptr = s};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        tv_error_set(err, -errno, "event loop: cannot watch descriptor %d: %s", fd, strerror(errno));
        free(s);
        return NULL;
    }
    if (s->next)
        s->next->prev = s;
    loop->sources = s;
    return s;
}

struct loop *loop_create(struct tv_error *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop) {
        tv_error_set(err, -ENOMEM, "event loop: no memory");
        return NULL;
    }
    loop->last = &loop->first;
    pthread_mutex_init(&loop->lock, NULL);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->post_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->post_fd < 0) {
        tv_error_set(err, -errno, "event loop: %s", strerror(errno));
        goto fail;
    }
    if (source_add(loop, SOURCE_POST, loop->post_fd, EPOLLIN, NULL, err))
        return loop;
fail:
    if (loop->post_fd >= 0)
        close(loop->post_fd); // no source owns it yet
    loop_destroy(loop);
    return NULL;
}

static void free_dead(struct loop *loop)
{
    while (loop->dead) {
        struct loop_source *s = loop->dead;
        loop->dead = s->next;
        free(s);
    }
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    while (loop->sources)
        loop_remove(loop->sources);
    free_dead(loop);
    while (loop->first) {
        struct posted *p = loop->first;
        loop->first = p->next;
        free(p);
    }
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

struct loop_source *loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *arg, struct tv_error *err)
{
    struct loop_source *s = source_add(loop, SOURCE_FD, fd, events, arg, err);
    if (s)
        s->on_fd = fn;
    return s;
}

void loop_set_events(struct loop_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
}

// A source on a descriptor of the loop's own, which goes with it.
static struct loop_source *own_source_add(struct loop *loop, enum source_kind kind, int fd, const char *what, void *arg,
                                          struct tv_error *err)
{
    if (fd < 0) {
        tv_error_set(err, -errno, "event loop: %s: %s", what, strerror(errno));
        return NULL;
    }
    struct loop_source *s = source_add(loop, kind, fd, EPOLLIN, arg, err);
    if (!s)
        close(fd);
    return s;
}

struct loop_source *loop_add_timer(struct loop *loop, loop_fn *fn, void *arg, struct tv_error *err)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct loop_source *s = own_source_add(loop, SOURCE_TIMER, fd, "timerfd", arg, err);
    if (s)
        s->on_timer = fn;
    return s;
}

void loop_set_timer(struct loop_source *source, uint64_t first_ns, uint64_t period_ns)
{
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(first_ns / NS_PER_S), .tv_nsec = (long)(first_ns % NS_PER_S)},
        .it_interval = {.tv_sec = (time_t)(period_ns / NS_PER_S), .tv_nsec = (long)(period_ns % NS_PER_S)},
    };
    timerfd_settime(source->fd, 0, &when, NULL);
}

struct loop_source *loop_add_signal(struct loop *loop, int signo, loop_signal_fn *fn, void *arg, struct tv_error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signo);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    struct loop_source *s =
        own_source_add(loop, SOURCE_SIGNAL, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd", arg, err);
    if (s)
        s->on_signal = fn;
    return s;
}

struct loop_source *loop_add_child(struct loop *loop, pid_t pid, loop_child_fn *fn, void *arg, struct tv_error *err)
{
    struct loop_source *s = own_source_add(loop, SOURCE_CHILD, (int)syscall(SYS_pidfd_open, pid, 0), "pidfd", arg, err);
    if (s) {
        s->on_child = fn;
        s->pid = pid;
    }
    return s;
}

void loop_remove(struct loop_source *source)
{
    if (!source || source->dead)
        return;
    struct loop *loop = source->loop;
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    if (source->kind != SOURCE_FD)
        close(source->fd);
    if (source->next)
        source->next->prev = source->prev;
    if (source->prev)
        source->prev->next = source->next;
    else
        loop->sources = source->next;
    source->dead = true;
    source->next = loop->dead;
    loop->dead = source;
}

static void serve_child(struct loop_source *s)
{
    int status = 0;
    pid_t pid = s->pid;
    if (waitpid(pid, &status, WNOHANG) != pid)
        return;
    loop_child_fn *fn = s->on_child;
    void *arg = s->arg;
    loop_remove(s);
    fn(arg, pid, status);
}

static void serve(struct loop_source *s, uint32_t events)
{
    uint64_t expiries;
    struct signalfd_siginfo info;
    switch (s->kind) {
    case SOURCE_FD:
        s->on_fd(s->arg, s->fd, events);
        break;
    case SOURCE_TIMER:
        if (read(s->fd, &expiries, sizeof(expiries)) == sizeof(expiries))
            s->on_timer(s->arg);
        break;
    case SOURCE_SIGNAL:
        if (read(s->fd, &info, sizeof(info)) == sizeof(info))
            s->on_signal(s->arg, (int)info.ssi_signo);
        break;
    case SOURCE_CHILD:
        serve_child(s);
        break;
    case SOURCE_POST:
        serve_posts(s->loop);
        break;
    }
}

int loop_run_once(struct loop *loop, int timeout_ms)
{
    struct epoll_event events[32];
    int n = epoll_wait(loop->epoll_fd, events, 32, timeout_ms);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        struct loop_source *s = events[i].data.ptr;
        if (!s->dead)
            serve(s, events[i].events);
    }
    free_dead(loop);
    return n;
}

int loop_run(struct loop *loop)
{
    int n = 0;
    while (n >= 0 && !atomic_load_explicit(&loop->stopping, memory_order_acquire))
        n = loop_run_once(loop, -1);
    loop->stopping = false;
    return n < 0 ? n : 0;
}

static void wake(struct loop *loop)
{
    uint64_t one = 1;
    ssize_t written = write(loop->post_fd, &one, sizeof(one)); // full means that a wake-up is already pending
    (void)written;
}

void loop_stop(struct loop *loop)
{
    atomic_store_explicit(&loop->stopping, true, memory_order_release);
    wake(loop);
}

int loop_post(struct loop *loop, loop_fn *fn, void *arg)
{
    struct posted *p = malloc(sizeof(*p));
    if (!p)
        return -ENOMEM;
    *p = (struct posted){.fn = fn, .arg = arg};
    pthread_mutex_lock(&loop->lock);
    *loop->last = p;
    loop->last = &p->next;
    pthread_mutex_unlock(&loop->lock);
    wake(loop);
    return 0;
}
