// The guest's clock; and the timer of a hart that runs translated code, which has no time to look at the clock: a timer of the
// host's interrupts the vcpu's thread when stimecmp has come, and the handler sets attention. On the vcpu's thread.
//
// The host's timer is set only when it would come too late; when it comes early, the hart leaves its code, finds no interrupt and
// sets the timer anew.
#include "base/clock.h"
#include "machine/engine/rv64/rv64.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define TIMER_SIGNAL (SIGRTMIN + 3)

uint64_t rv64_time_ns(const struct rv64_engine *e)
{
    if (atomic_load_explicit(&e->time_running, memory_order_acquire))
        return clock_now_ns() + e->time_offset_ns;
    return e->time_stopped_ns;
}

uint64_t rv64_time(const struct rv64_engine *e)
{
    return rv64_time_ns(e) / RV64_NS_PER_TICK;
}

// When `time` will be `ticks`, on CLOCK_MONOTONIC; false: never, the clock stands or that is too far away.
static bool host_time(const struct rv64_engine *e, uint64_t ticks, uint64_t *ns)
{
    if (ticks > UINT64_MAX / 2 / RV64_NS_PER_TICK || !atomic_load_explicit(&e->time_running, memory_order_acquire))
        return false;
    int64_t host_ns = (int64_t)(ticks * RV64_NS_PER_TICK - e->time_offset_ns);
    *ns = host_ns > 0 ? (uint64_t)host_ns : 1; // before the host was started: long past
    return true;
}

static void expired(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    struct rv64_vcpu *v = info->si_value.sival_ptr;
    if (info->si_code != SI_TIMER || !v)
        return;
    atomic_store_explicit(&v->timer_until_ns, UINT64_MAX, memory_order_relaxed);
    atomic_fetch_or_explicit(&v->attention, RV64_ATTN_INTERRUPT, memory_order_relaxed);
}

int rv64_timers_init(struct tv_error *err)
{
    struct sigaction action = {.sa_sigaction = expired, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigemptyset(&action.sa_mask);
    if (sigaction(TIMER_SIGNAL, &action, NULL))
        return tv_error_set(err, -errno, "rv64: signal %d for timers: %s", TIMER_SIGNAL, strerror(errno));
    return 0;
}

void rv64_timer_fini(struct rv64_vcpu *v)
{
    if (v->timer_thread)
        timer_delete(v->timer);
    v->timer_thread = 0;
}

// A timer interrupts one thread, so it is made by the one that runs the vcpu.
void rv64_timer_begin(struct rv64_vcpu *v)
{
    pid_t thread = gettid();
    if (v->timer_thread == thread)
        return;
    rv64_timer_fini(v);
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TIMER_SIGNAL, .sigev_value.sival_ptr = v};
    event._sigev_un._tid = thread;
    if (timer_create(CLOCK_MONOTONIC, &event, &v->timer)) {
        rv64_end(v->engine, ENGINE_EXIT_FAILURE, "no host timer for a vcpu (timer_create): too many timers or signals pending");
        return;
    }
    atomic_store(&v->timer_until_ns, UINT64_MAX);
    v->timer_thread = thread;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, TIMER_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void rv64_timer_update(struct rv64_vcpu *v)
{
    uint64_t until_ns;
    if (!(v->sie & 1ull << RV64_IRQ_TIMER) || !v->timer_thread || !host_time(v->engine, v->stimecmp, &until_ns))
        return;
    if (until_ns <= clock_now_ns()) {
        // While interrupts are off nobody need look: whatever turns them on does.
        if (v->priv == RV64_U || v->sstatus & RV64_SSTATUS_SIE)
            atomic_fetch_or_explicit(&v->attention, RV64_ATTN_INTERRUPT, memory_order_relaxed);
        return;
    }
    if (atomic_load_explicit(&v->timer_until_ns, memory_order_relaxed) <= until_ns)
        return;
    atomic_store_explicit(&v->timer_until_ns, until_ns, memory_order_relaxed);
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)(until_ns / NS_PER_S), .tv_nsec = (long)(until_ns % NS_PER_S)}};
    timer_settime(v->timer, TIMER_ABSTIME, &at, NULL);
}
