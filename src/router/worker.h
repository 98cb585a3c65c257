// Workers: threads that carry packets, one a CPU. A network belongs to one worker.
//
// A worker gives its networks their turns by deficit round robin in cycles (drr.h) and runs each packet to completion. A network
// that had nothing left in its turn is looked into between the bursts of others, for what is left of that turn. When for a
// while nothing has come it sleeps until a descriptor of one of its ports tells of something; where a port has none, it naps.
#pragma once

#include "base/error.h"
#include "router/port/port.h"
#include "router/vn.h"

#define WORKERS_MAX 16
#define WORKER_VNS_MAX 1024

struct worker;

// Starts a worker on an lcore of the EAL. NULL with err.
struct worker *worker_create(unsigned lcore, struct tv_error *err);
void worker_destroy(struct worker *worker); // waits for its end; it has no networks any more

// Control thread. -ENOSPC: it has as many as it can have.
int worker_add_vn(struct worker *worker, struct vn *vn, struct tv_error *err);
void worker_remove_vn(struct worker *worker, struct vn *vn); // waits until the worker has passed by
unsigned worker_n_vns(const struct worker *worker);

// What changed is seen at once, if the worker sleeps.
void worker_wake(struct worker *worker);
struct rte_rcu_qsbr *worker_rcu(struct worker *worker);
struct port_env worker_port_env(struct worker *worker); // for vn_add_port()

uint64_t worker_hz(void); // cycles by the second, as workers count them
json_t *worker_describe(const struct worker *worker);
