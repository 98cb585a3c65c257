// The vcpus' threads: see vcpus.h.
#include "machine/vcpus.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

struct vcpu_thread {
    struct vcpus *vcpus;
    unsigned id;
    bool started; // pthread is valid
    pthread_t thread;
};

struct vcpus {
    struct vcpus_config config;
    pthread_mutex_t lock; // guards what follows
    pthread_cond_t changed;
    bool go;      // vcpus shall run
    bool quit;    // threads shall end
    bool parking; // parked() is to be told when n_running is 0
    uint64_t run; // counts vcpus_run()
    unsigned n_running;
    bool has_ended; // in this run
    enum engine_exit exit;
    struct vcpu_thread threads[ENGINE_VCPUS_MAX];
};

static void tell_parked(void *arg)
{
    struct vcpus *v = arg;
    v->config.parked(v->config.arg);
}

static void tell_ended(void *arg)
{
    struct vcpus *v = arg;
    v->config.ended(v->config.arg, v->exit);
}

// Lock held.
static void check_parked(struct vcpus *v)
{
    if (v->parking && v->n_running == 0 && loop_post(v->config.loop, tell_parked, v) == 0)
        v->parking = false;
}

// Runs the vcpu until somebody parks it or the guest ends.
static enum engine_exit run_vcpu(struct vcpus *v, unsigned id)
{
    struct engine *e = v->config.engine;
    enum engine_exit exit = ENGINE_EXIT_KICK;
    bool go = true;
    while (go && exit == ENGINE_EXIT_KICK) {
        exit = e->ops->run(e, id);
        pthread_mutex_lock(&v->lock);
        go = v->go;
        pthread_mutex_unlock(&v->lock);
    }
    return exit;
}

static void *vcpu_main(void *arg)
{
    struct vcpu_thread *t = arg;
    struct vcpus *v = t->vcpus;
    uint64_t seen = 0; // the last run it took part in
    char name[16];
    snprintf(name, sizeof(name), "vcpu%u", t->id);
    prctl(PR_SET_NAME, name); // by itself: for another thread glibc would open a file
    if (confine_thread(v->config.calls)) {
        log_event(LOG_ERROR, "machine", "a vcpu's thread cannot be confined");
        _exit(3);
    }
    pthread_mutex_lock(&v->lock);
    while (!v->quit) {
        if (!v->go || v->run == seen) {
            pthread_cond_wait(&v->changed, &v->lock);
            continue;
        }
        seen = v->run;
        v->n_running++;
        pthread_mutex_unlock(&v->lock);
        enum engine_exit exit = run_vcpu(v, t->id);
        pthread_mutex_lock(&v->lock);
        v->n_running--;
        if (exit != ENGINE_EXIT_KICK && !v->has_ended) {
            v->has_ended = true;
            v->exit = exit;
            loop_post(v->config.loop, tell_ended, v);
        }
        check_parked(v);
    }
    pthread_mutex_unlock(&v->lock);
    return NULL;
}

static int start_thread(struct vcpus *v, unsigned id, struct tv_error *err)
{
    struct vcpu_thread *t = &v->threads[id];
    t->vcpus = v;
    t->id = id;
    int rc = pthread_create(&t->thread, NULL, vcpu_main, t);
    if (rc != 0)
        return tv_error_set(err, -rc, "vcpu %u: no thread: %s", id, strerror(rc));
    t->started = true;
    return 0;
}

struct vcpus *vcpus_create(const struct vcpus_config *config, struct tv_error *err)
{
    struct vcpus *v = calloc(1, sizeof(*v));
    if (!v) {
        tv_error_set(err, -ENOMEM, "vcpus: no memory");
        return NULL;
    }
    v->config = *config;
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->changed, NULL);
    for (unsigned i = 0; i < config->n; i++) {
        if (start_thread(v, i, err) < 0) {
            vcpus_destroy(v);
            return NULL;
        }
    }
    return v;
}

void vcpus_destroy(struct vcpus *v)
{
    if (!v)
        return;
    pthread_mutex_lock(&v->lock);
    v->quit = true;
    pthread_cond_broadcast(&v->changed);
    pthread_mutex_unlock(&v->lock);
    for (unsigned i = 0; i < v->config.n; i++)
        if (v->threads[i].started)
            pthread_join(v->threads[i].thread, NULL);
    pthread_cond_destroy(&v->changed);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

void vcpus_run(struct vcpus *v)
{
    pthread_mutex_lock(&v->lock);
    v->go = true;
    v->has_ended = false;
    v->run++;
    pthread_cond_broadcast(&v->changed);
    pthread_mutex_unlock(&v->lock);
}

void vcpus_park(struct vcpus *v)
{
    pthread_mutex_lock(&v->lock);
    v->go = false;
    v->parking = true;
    check_parked(v);
    pthread_mutex_unlock(&v->lock);
    for (unsigned i = 0; i < v->config.n; i++)
        v->config.engine->ops->kick(v->config.engine, i);
}

uint64_t vcpus_cpu_ns(const struct vcpus *v, unsigned vcpu)
{
    clockid_t clock;
    struct timespec t;
    if (pthread_getcpuclockid(v->threads[vcpu].thread, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}
