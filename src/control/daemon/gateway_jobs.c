// Gateways are made and taken away on a thread: see daemon.h. ip(8), nft(8) and tc(8) take tenths of a second, in which trivetd
// answers.
//
// One after the other, in the order in which they were asked for, so one that is to be made anew is gone before. As in open.c the
// loop's thread has the queue, and the other one the first of it until it has written to the eventfd.
#include "control/cleanup.h"
#include "control/daemon/daemon.h"
#include "control/net/gateway.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

struct gateway_job {
    struct gateway_job *next;
    struct gateway_jobs *jobs;
    enum gateway_work work;
    json_t *spec; // a copy of its own
    struct gateway gateway;
    struct tv_error err;
    void (*done)(void *arg, const struct tv_error *err);
    void *arg;
};

struct gateway_jobs {
    struct daemon *daemon;
    int done_fd;
    struct loop_source *watch;
    struct gateway_job *queue; // the thread has the first
    pthread_t thread;
    bool has_thread; // that is to be joined
};

static void tell_done(const struct gateway_jobs *jobs)
{
    const uint64_t one = 1;
    if (write(jobs->done_fd, &one, sizeof(one)) < 0)
        abort(); // an eventfd that holds nothing takes a 1
}

static void carry_out(struct gateway_job *job)
{
    if (job->work == GATEWAY_REMOVE)
        gateway_remove(&job->gateway);
    else if (job->work == GATEWAY_MAKE || (job->work == GATEWAY_NEED && !gateway_is_there(&job->gateway)))
        gateway_make(&job->gateway, &job->err);
}

static void *run_first(void *arg)
{
    struct gateway_job *job = arg;
    carry_out(job);
    tell_done(job->jobs);
    return NULL;
}

static void start_first(struct gateway_jobs *jobs)
{
    if (!jobs->queue)
        return;
    const int r = pthread_create(&jobs->thread, NULL, run_first, jobs->queue);
    jobs->has_thread = !r;
    if (!r)
        return;
    tv_error_set(&jobs->queue->err, -r, "no thread for a gateway: %s", strerror(r));
    tell_done(jobs);
}

static void free_job(struct gateway_job *job)
{
    json_decref(job->spec);
    free(job);
}

static void on_done(void *arg, int fd, uint32_t events)
{
    struct gateway_jobs *jobs = arg;
    uint64_t count;
    (void)events;
    if (read(fd, &count, sizeof(count)) < 0)
        return;
    if (jobs->has_thread)
        pthread_join(jobs->thread, NULL);
    struct gateway_job *job = jobs->queue;
    jobs->queue = job->next;
    start_first(jobs);
    if (job->done)
        job->done(job->arg, &job->err);
    free_job(job);
}

bool daemon_gateways_are_busy(const struct daemon *d)
{
    return d->gateway_jobs->queue;
}

void daemon_gateway_work(struct daemon *d, enum gateway_work work, const json_t *spec,
                         void (*done)(void *arg, const struct tv_error *err), void *arg)
{
    struct gateway_jobs *jobs = d->gateway_jobs;
    struct gateway_job *job = calloc(1, sizeof(*job)), **at = &jobs->queue;
    const bool was_idle = !jobs->queue;
    const struct tv_error no_memory = {.code = -ENOMEM, .text = "no memory"};
    if (!job) {
        if (done)
            done(arg, &no_memory);
        return;
    }
    *job = (struct gateway_job){.jobs = jobs, .work = work, .spec = json_deep_copy(spec), .done = done, .arg = arg};
    if (spec)
        gateway_init(&job->gateway, d->run_dir, job->spec);
    while (*at)
        at = &(*at)->next;
    *at = job;
    if (was_idle)
        start_first(jobs);
}

int daemon_gateways_init(struct daemon *d, struct tv_error *err)
{
    struct gateway_jobs *jobs = calloc(1, sizeof(*jobs));
    if (!jobs)
        return tv_error_set(err, -ENOMEM, "no memory");
    d->gateway_jobs = jobs;
    jobs->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (jobs->done_fd < 0)
        return tv_error_set(err, -errno, "eventfd: %s", strerror(errno));
    jobs->watch = loop_add_fd(d->loop, jobs->done_fd, EPOLLIN, on_done, jobs, err);
    return jobs->watch ? 0 : err->code;
}

// What is to go goes; nobody waits for it any more.
void daemon_gateways_fini(struct daemon *d)
{
    struct gateway_jobs *jobs = d->gateway_jobs;
    if (!jobs)
        return;
    for (bool is_first = true; jobs->queue; is_first = false) {
        struct gateway_job *job = jobs->queue;
        jobs->queue = job->next;
        if (is_first && jobs->has_thread)
            pthread_join(jobs->thread, NULL);
        else if (job->work == GATEWAY_REMOVE)
            carry_out(job);
        free_job(job);
    }
    loop_remove(jobs->watch);
    if (jobs->done_fd >= 0)
        close(jobs->done_fd);
    free(jobs);
    d->gateway_jobs = NULL;
}
