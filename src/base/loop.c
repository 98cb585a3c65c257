// Event loop over epoll: see loop.h.
//
// Every kind of source is a descriptor in one epoll set: the caller's own, a timerfd, a signalfd or a pidfd. What another thread
// wants goes through a list under a mutex and an eventfd.
//
// A source that is removed while events are being served is only marked and moved to the list of the dead, since the batch from
// epoll_wait() may still hold its pointer; the dead are freed when the outermost round ends.
#include "base/loop.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH = 64, POLLS_A_ROUND = 32 };
enum source_kind { SOURCE_FD, SOURCE_TIMER, SOURCE_SIGNAL, SOURCE_CHILD };

// Invariant: on exactly one of the loop's lists, `live` (dead == false) or `dead`. fd is ours unless kind is SOURCE_FD.
struct loop_source {
    struct loop *loop;
    struct loop_source *prev, *next;
    enum source_kind kind;
    bool dead;
    int fd;
    uint32_t events; // what epoll watches now; 0: not in the set
    pid_t pid;
    int signo;
    void *arg;
    union {
        loop_fd_fn *on_fd;
        loop_fn *on_timer;
        loop_signal_fn *on_signal;
        loop_child_fn *on_child;
    };
};

struct post {
    struct post *next;
    loop_fn *fn;
    void *arg;
};

struct loop {
    int epoll_fd, wake_fd;
    unsigned depth; // rounds that are running, one inside the other
    struct loop_source *live, *dead;
    _Atomic bool stop;    // set by any thread (release), taken by the loop's (acquire)
    pthread_mutex_t lock; // of posts_first and posts_end
    struct post *posts_first, **posts_end;
    loop_fn *poll;
    void *poll_arg;
};

static void wake(struct loop *loop)
{
    const uint64_t one = 1;
    // The only possible failure is a counter at its end: then the loop is awake anyway.
    if (write(loop->wake_fd, &one, sizeof(one)) < 0)
        return;
}

struct loop *loop_create(struct tv_error *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop) {
        tv_error_set(err, -ENOMEM, "event loop: out of memory");
        return NULL;
    }
    loop->posts_end = &loop->posts_first;
    pthread_mutex_init(&loop->lock, NULL);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}; // no source: the loop's own eventfd
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0) {
        tv_error_set(err, -errno, "event loop: cannot be set up: %s", strerror(errno));
        loop_destroy(loop);
        return NULL;
    }
    return loop;
}

// ---- the lists of sources

static void list_add(struct loop_source **list, struct loop_source *source)
{
    source->prev = NULL;
    source->next = *list;
    if (*list)
        (*list)->prev = source;
    *list = source;
}

static void list_remove(struct loop_source **list, struct loop_source *source)
{
    if (source->prev)
        source->prev->next = source->next;
    else
        *list = source->next;
    if (source->next)
        source->next->prev = source->prev;
}

static void bury(struct loop *loop)
{
    while (loop->dead) {
        struct loop_source *source = loop->dead;
        // Only the dead are freed, and they are on no other list.
        list_remove(&loop->dead, source); // NOLINT(clang-analyzer-unix.Malloc)
        free(source);
    }
}

void loop_remove(struct loop_source *source)
{
    if (!source || source->dead)
        return;
    struct loop *loop = source->loop;
    loop_set_events(source, 0);
    if (source->kind != SOURCE_FD && source->fd >= 0)
        close(source->fd);
    source->dead = true;
    list_remove(&loop->live, source);
    list_add(&loop->dead, source);
    if (loop->depth == 0)
        bury(loop);
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    while (loop->live)
        loop_remove(loop->live);
    bury(loop);
    while (loop->posts_first) {
        struct post *post = loop->posts_first;
        loop->posts_first = post->next;
        free(post);
    }
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

// ---- adding

static int watch(struct loop_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    int op = EPOLL_CTL_MOD;
    if (source->events == 0)
        op = EPOLL_CTL_ADD;
    else if (events == 0)
        op = EPOLL_CTL_DEL;
    if (source->events == events)
        return 0;
    if (epoll_ctl(source->loop->epoll_fd, op, source->fd, &event) < 0)
        return -errno;
    source->events = events;
    return 0;
}

void loop_set_events(struct loop_source *source, uint32_t events)
{
    if (!source->dead)
        watch(source, events);
}

// Takes fd unless kind is SOURCE_FD, on failure too.
static struct loop_source *source_add(struct loop *loop, enum source_kind kind, int fd, uint32_t events, void *arg,
                                      struct tv_error *err)
{
    struct loop_source *source = fd < 0 ? NULL : calloc(1, sizeof(*source));
    if (!source) {
        tv_error_set(err, fd < 0 ? -errno : -ENOMEM, "event loop: %s", strerror(fd < 0 ? errno : ENOMEM));
        if (fd >= 0 && kind != SOURCE_FD)
            close(fd);
        return NULL;
    }
    *source = (struct loop_source){.loop = loop, .kind = kind, .fd = fd, .arg = arg};
    list_add(&loop->live, source);
    const int rc = watch(source, events);
    if (rc < 0) {
        tv_error_set(err, rc, "event loop: descriptor %d cannot be watched: %s", fd, strerror(-rc));
        loop_remove(source);
        return NULL;
    }
    return source;
}

struct loop_source *loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *arg, struct tv_error *err)
{
    if (fd < 0) {
        tv_error_set(err, -EBADF, "event loop: %d is no descriptor", fd);
        return NULL;
    }
    struct loop_source *source = source_add(loop, SOURCE_FD, fd, events, arg, err);
    if (source)
        source->on_fd = fn;
    return source;
}

struct loop_source *loop_add_timer(struct loop *loop, loop_fn *fn, void *arg, struct tv_error *err)
{
    const int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct loop_source *source = source_add(loop, SOURCE_TIMER, fd, EPOLLIN, arg, err);
    if (source)
        source->on_timer = fn;
    return source;
}

static struct timespec timespec_of_ns(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

void loop_set_timer(struct loop_source *source, uint64_t first_ns, uint64_t period_ns)
{
    if (source->dead)
        return;
    const struct itimerspec when = {.it_value = timespec_of_ns(first_ns), .it_interval = timespec_of_ns(period_ns)};
    timerfd_settime(source->fd, 0, &when, NULL); // cannot fail: the descriptor is ours and the times are in range
}

struct loop_source *loop_add_signal(struct loop *loop, int signo, loop_signal_fn *fn, void *arg, struct tv_error *err)
{
    sigset_t set;
    sigemptyset(&set);
    if (sigaddset(&set, signo) < 0) {
        tv_error_set(err, -EINVAL, "event loop: %d is no signal", signo);
        return NULL;
    }
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    const int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    struct loop_source *source = source_add(loop, SOURCE_SIGNAL, fd, EPOLLIN, arg, err);
    if (source) {
        source->on_signal = fn;
        source->signo = signo;
    }
    return source;
}

struct loop_source *loop_add_child(struct loop *loop, pid_t pid, loop_child_fn *fn, void *arg, struct tv_error *err)
{
    const int fd = pidfd_open(pid, 0);
    struct loop_source *source = source_add(loop, SOURCE_CHILD, fd, EPOLLIN, arg, err);
    if (source) {
        source->on_child = fn;
        source->pid = pid;
    } else {
        tv_error_prefix(err, "process %d", (int)pid);
    }
    return source;
}

int loop_post(struct loop *loop, loop_fn *fn, void *arg)
{
    struct post *post = malloc(sizeof(*post));
    if (!post)
        return -ENOMEM;
    *post = (struct post){.fn = fn, .arg = arg};
    pthread_mutex_lock(&loop->lock);
    *loop->posts_end = post;
    loop->posts_end = &post->next;
    pthread_mutex_unlock(&loop->lock);
    wake(loop);
    return 0;
}

// ---- serving

// What is posted while these run waits for the next round: two posts that post each other must not starve the descriptors.
static int serve_posts(struct loop *loop)
{
    uint64_t count;
    if (read(loop->wake_fd, &count, sizeof(count)) < 0)
        return 0;
    pthread_mutex_lock(&loop->lock);
    struct post *post = loop->posts_first;
    loop->posts_first = NULL;
    loop->posts_end = &loop->posts_first;
    pthread_mutex_unlock(&loop->lock);
    int served = 0;
    while (post) {
        struct post *next = post->next;
        post->fn(post->arg);
        free(post);
        post = next;
        served++;
    }
    return served;
}

static int serve_timer(struct loop_source *source)
{
    uint64_t expirations;
    if (read(source->fd, &expirations, sizeof(expirations)) < 0)
        return 0; // disarmed by a callback of this round
    source->on_timer(source->arg);
    return 1;
}

static int serve_signal(struct loop_source *source)
{
    struct signalfd_siginfo info;
    int served = 0;
    while (!source->dead && read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        source->on_signal(source->arg, (int)info.ssi_signo);
        served++;
    }
    return served;
}

static int serve_child(struct loop_source *source)
{
    int status = 0;
    const pid_t got = waitpid(source->pid, &status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR))
        return 0;
    loop_child_fn *fn = source->on_child;
    void *arg = source->arg;
    const pid_t pid = source->pid;
    loop_remove(source);
    fn(arg, pid, got == pid ? status : LOOP_STATUS_UNKNOWN);
    return 1;
}

static int serve(struct loop *loop, const struct epoll_event *event)
{
    struct loop_source *source = event->data.ptr;
    if (!source)
        return serve_posts(loop);
    if (source->dead)
        return 0;
    switch (source->kind) {
    case SOURCE_FD:
        source->on_fd(source->arg, source->fd, event->events);
        return 1;
    case SOURCE_TIMER:
        return serve_timer(source);
    case SOURCE_SIGNAL:
        return serve_signal(source);
    case SOURCE_CHILD:
        return serve_child(source);
    }
    return 0;
}

int loop_run_once(struct loop *loop, int timeout_ms)
{
    struct epoll_event events[BATCH];
    const int n = epoll_wait(loop->epoll_fd, events, BATCH, timeout_ms);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    int served = 0;
    loop->depth++;
    for (int i = 0; i < n; i++)
        served += serve(loop, &events[i]);
    loop->depth--;
    if (loop->depth == 0)
        bury(loop);
    return served;
}

void loop_set_poll(struct loop *loop, loop_fn *fn, void *arg)
{
    loop->poll = fn;
    loop->poll_arg = arg;
}

// A look at the sources is a system call, and one at memory is not.
static void poll_memory(struct loop *loop)
{
    for (unsigned i = 0; i < POLLS_A_ROUND && loop->poll; i++)
        loop->poll(loop->poll_arg);
}

int loop_run(struct loop *loop)
{
    // Pairs with the release in loop_stop(): what was done before the stop is seen after loop_run() returns.
    while (!atomic_exchange_explicit(&loop->stop, false, memory_order_acquire)) {
        poll_memory(loop);
        const int rc = loop_run_once(loop, loop->poll ? 0 : -1);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void loop_stop(struct loop *loop)
{
    atomic_store_explicit(&loop->stop, true, memory_order_release);
    wake(loop);
}
