// Event loop over epoll: descriptors, timers (timerfd), signals (signalfd), child processes (pidfd), and calls from other threads.
//
// One thread runs a loop and owns everything in it; only loop_post() and loop_stop() may be called from elsewhere. A callback may
// remove any source, its own included; it is freed once no callback is running on it.
#pragma once

#include "base/error.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct loop;
struct loop_source;

typedef void loop_fd_fn(void *arg, int fd, uint32_t events); // events: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR
typedef void loop_fn(void *arg);
typedef void loop_signal_fn(void *arg, int signo);
typedef void loop_child_fn(void *arg, pid_t pid, int wait_status); // as waitpid(2) gives it

struct loop *loop_create(struct tv_error *err);
// Frees what sources are left; never closes a caller's descriptor. Posts that have not run yet are dropped. NULL is fine.
void loop_destroy(struct loop *loop);

// Runs until loop_stop(); one that came before the run ends it at once. Returns 0 or -errno of epoll_wait.
int loop_run(struct loop *loop);
// One round: waits at most timeout_ms (-1: forever) for something, serves all that is ready. Returns how many events were served.
int loop_run_once(struct loop *loop, int timeout_ms);
void loop_stop(struct loop *loop); // any thread
// While there is such a function, the loop does not sleep: it calls it over and over, and looks at its sources in between. NULL:
// the loop sleeps again. May be called from the function itself.
void loop_set_poll(struct loop *loop, loop_fn *fn, void *arg);

// Watches fd (borrowed; remove the source before closing it). NULL with err on failure, as for all of the following.
struct loop_source *loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *arg, struct tv_error *err);
// events 0: not watched at all until they are set again, not even for EPOLLHUP.
void loop_set_events(struct loop_source *source, uint32_t events);

struct loop_source *loop_add_timer(struct loop *loop, loop_fn *fn, void *arg, struct tv_error *err);
// First expiry in first_ns from now, then each period_ns (0: once). first_ns 0 disarms.
void loop_set_timer(struct loop_source *source, uint64_t first_ns, uint64_t period_ns);

// Blocks the signal in the calling thread and delivers it here; call before other threads are started.
struct loop_source *loop_add_signal(struct loop *loop, int signo, loop_signal_fn *fn, void *arg, struct tv_error *err);

// Reaps the child and tells its status, once; the source then goes by itself. A process that is not our child can be watched too
// (a worker that an earlier supervisor started): its status is then LOOP_STATUS_UNKNOWN.
#define LOOP_STATUS_UNKNOWN (-1)
struct loop_source *loop_add_child(struct loop *loop, pid_t pid, loop_child_fn *fn, void *arg, struct tv_error *err);

void loop_remove(struct loop_source *source); // NULL is fine

// Runs fn(arg) on the loop's thread, soon, in the order of posting. Any thread. -ENOMEM is the only failure. What a post
// posts runs in the next round.
int loop_post(struct loop *loop, loop_fn *fn, void *arg);
