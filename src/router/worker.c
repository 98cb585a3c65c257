// Workers: see worker.h.
#include "router/worker.h"

#include "router/counters.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_launch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define QUANTUM_US 40 // of a network of weight 100, a turn
#define ROUND_US 4000 // all of them together, at most: quanta are smaller where there are many
#define ROUND_LEAST_US 10
#define OWED_US 20000     // beyond its turn, at most
#define CHARGE_MAX_US 500 // for one burst, at most
#define LOOKS_PART 8      // of the time, at most, for looks between bursts that find nothing
#define SPIN_US 10        // without a packet, before sleeping: about what it costs to sleep and wake
#define GATHER_US 200     // for small packets that come several at a time, to have more of them at once
#define GATHER_LEAST 2    // since it slept
#define GATHER_BYTES 1024 // a packet on average, at most: longer ones were gathered by who sent them
#define NAP_LEAST_US 50   // with ports that cannot wake: doubled with each nap that was for nothing
#define NAP_MOST_US 1000

struct worker {
    unsigned lcore;
    int epoll_fd, wake_fd;
    struct rte_rcu_qsbr *rcu;
    _Atomic bool is_stopped;
    // Written by the control thread. A network that goes leaves a gap, which the next one takes.
    _Atomic(struct vn *) vns[WORKER_VNS_MAX];
    _Atomic unsigned n_slots; // all are below
    unsigned n_vns;
    // The worker's own.
    uint64_t quantum, owed_most, charge_most, spin, hz, last_packet, last_cycles;
    uint64_t weights;                        // of all networks
    uint64_t late_least;                     // of all, as theirs
    uint64_t quiet[WORKER_VNS_MAX / 64];     // a bit for each that had nothing when its turn ended
    unsigned n_quiet, next_quiet;            // how many; the bit from which on the next is sought
    int64_t look_credit;                     // cycles in which to look into them
    uint64_t nap, nap_least, nap_most, wait; // cycles
    uint64_t gather;                         // cycles
    uint64_t came, came_bits;                // since it last slept
    uint32_t ticked_s;
    _Atomic uint64_t stolen; // cycles of bursts beyond charge_most: the host ran something else
    _Atomic uint64_t busy_cycles, idle_cycles, sleeps;
};

// ---- the worker's thread ----

static struct vn *get_vn(struct worker *worker, unsigned i)
{
    return atomic_load_explicit(&worker->vns[i], memory_order_acquire);
}

static bool is_quiet(const struct worker *worker, unsigned slot)
{
    return worker->quiet[slot / 64] >> slot % 64 & 1;
}

// One burst at most. How many packets; *has_turn: whether there may be another one by the network's weight.
static unsigned serve_burst(struct worker *worker, struct vn *vn, unsigned slot, bool *has_turn)
{
    const unsigned n = vn_poll(vn, worker->n_quiet > is_quiet(worker, slot));
    const uint64_t now = rte_rdtsc(), cycles = now - worker->last_cycles;
    const uint64_t charged = cycles < worker->charge_most ? cycles : worker->charge_most;
    worker->last_cycles = now;
    counter_add(&worker->stolen, cycles - charged);
    *has_turn = *has_turn && drr_charge(&vn->pace.drr, charged, charged); // what it is owed costs no turns
    if (n) {
        counter_add(&worker->busy_cycles, cycles);
        worker->came += n;
        worker->came_bits += vn->last.bits;
        vn_charge(vn, charged, now);
    } else {
        counter_add(&worker->idle_cycles, cycles);
        pace_found_empty(&vn->pace);
    }
    return n;
}

static void look(const struct worker *worker, struct vn *vn)
{
    pace_look(&vn->pace, worker->last_cycles, worker->last_cycles - counter_get(&worker->stolen));
}

static bool is_owed(const struct worker *worker, const struct vn *vn, uint64_t end)
{
    return pace_is_owed(&vn->pace) && worker->last_cycles < end;
}

static void set_quiet(struct worker *worker, unsigned slot, bool value)
{
    if (is_quiet(worker, slot) == value)
        return;
    worker->quiet[slot / 64] ^= 1ull << slot % 64;
    worker->n_quiet += value ? 1 : -1u;
}

// Round and round. There is one.
static unsigned next_quiet(struct worker *worker)
{
    unsigned slot = worker->next_quiet % WORKER_VNS_MAX;
    while (!(worker->quiet[slot / 64] >> slot % 64))
        slot = (slot / 64 + 1) * 64 % WORKER_VNS_MAX;
    slot += (unsigned)__builtin_ctzll(worker->quiet[slot / 64] >> slot % 64);
    worker->next_quiet = slot + 1;
    return slot;
}

// One burst of a network that was quiet, of what is left of its turn. How many packets.
static unsigned serve_quiet(struct worker *worker, unsigned slot)
{
    struct vn *vn = get_vn(worker, slot);
    bool has_turn = vn && vn->pace.drr.deficit_cycles > 0;
    if (!has_turn) { // until it has its next turn
        set_quiet(worker, slot, false);
        return 0;
    }
    vn_refresh(vn);
    look(worker, vn);
    return serve_burst(worker, vn, slot, &has_turn);
}

// Between two bursts of others, so that what comes to a network that is below its share waits for the end of a burst and not of
// turns. Looking for nothing takes a LOOKS_PART of the time that the others' take.
static unsigned serve_all_quiet(struct worker *worker, uint64_t burst_cycles)
{
    unsigned packets = 0;
    worker->look_credit += (int64_t)(burst_cycles / LOOKS_PART);
    if (worker->look_credit > (int64_t)worker->quantum)
        worker->look_credit = (int64_t)worker->quantum;
    for (unsigned i = worker->n_quiet; i && worker->n_quiet && worker->look_credit > 0; i--) {
        const uint64_t began = worker->last_cycles;
        const unsigned n = serve_quiet(worker, next_quiet(worker));
        packets += n;
        if (!n)
            worker->look_credit -= (int64_t)(worker->last_cycles - began);
    }
    return packets;
}

// One turn, and what the network is owed beyond it. How many packets came meanwhile.
static unsigned serve(struct worker *worker, struct vn *vn, unsigned slot)
{
    unsigned packets = 0, n = 1;
    vn_refresh(vn);
    look(worker, vn);
    set_quiet(worker, slot, false);
    bool has_turn = drr_begin(&vn->pace.drr, worker->quantum);
    if (!has_turn && !pace_is_owed(&vn->pace))
        return 1; // in debt: it may well have something to do
    for (uint64_t end = worker->last_cycles + worker->owed_most; n && (has_turn || is_owed(worker, vn, end)); packets += n) {
        const uint64_t began = worker->last_cycles;
        n = serve_burst(worker, vn, slot, &has_turn);
        if (n && worker->n_quiet)
            packets += serve_all_quiet(worker, worker->last_cycles - began);
        look(worker, vn);
    }
    set_quiet(worker, slot, !n);
    return packets;
}

// As long as nobody was promised a short latency; else a round is so short that it is a small part of that.
static void set_turns(struct worker *worker)
{
    const uint64_t us = worker->hz / 1000000,
                   least = worker->late_least / 8 > us * ROUND_LEAST_US ? worker->late_least / 8 : us * ROUND_LEAST_US;
    const uint64_t round = least < us * ROUND_US ? least : us * ROUND_US;
    worker->owed_most = round < us * ROUND_US ? 4 * round : us * OWED_US;
    worker->quantum = us * QUANTUM_US;
    if (worker->quantum / DRR_WEIGHT_DEFAULT * worker->weights > round)
        worker->quantum = round * DRR_WEIGHT_DEFAULT / worker->weights;
}

static unsigned serve_all(struct worker *worker)
{
    unsigned packets = 0;
    uint64_t weights = 0, late_least = UINT64_MAX;
    const unsigned n = atomic_load_explicit(&worker->n_slots, memory_order_acquire);
    set_turns(worker);
    for (unsigned i = 0; i < n; i++) {
        struct vn *vn = get_vn(worker, i);
        if (!vn)
            continue;
        packets += serve(worker, vn, i);
        weights += vn->pace.drr.weight;
        late_least = vn->late_least < late_least ? vn->late_least : late_least;
    }
    worker->weights = weights;
    worker->late_least = late_least;
    return packets;
}

static void tick(struct worker *worker)
{
    const uint32_t now_s = (uint32_t)(worker->last_cycles / worker->hz);
    if (now_s == worker->ticked_s)
        return;
    worker->ticked_s = now_s;
    const unsigned n = atomic_load_explicit(&worker->n_slots, memory_order_acquire);
    for (unsigned i = 0; i < n; i++) {
        struct vn *vn = get_vn(worker, i);
        if (!vn)
            continue;
        vn_tick(vn, now_s);
        const uint64_t now = rte_rdtsc(), cycles = now - worker->last_cycles;
        worker->last_cycles = now;
        const uint64_t charged = cycles < worker->charge_most ? cycles : worker->charge_most;
        counter_add(&worker->stolen, cycles - charged);
        counter_add(&vn->pace.usage.cycles, charged);
        drr_charge(&vn->pace.drr, charged, charged);
    }
}

// Until a limit lets more come by, for which there is nothing to be woken by.
static bool waits_for_limit(struct worker *worker, const struct pace *pace)
{
    const uint64_t cycles = pace->is_limited ? pace_wait(pace) : 0;
    if (cycles && cycles < worker->wait)
        worker->wait = cycles;
    return cycles;
}

// As long as nothing comes, but well within a latency that was promised.
static void note_nap(struct worker *worker, const struct pace *vn, const struct pace *port)
{
    uint64_t nap = worker->nap;
    if (vn->late_cycles && vn->late_cycles / 4 < nap)
        nap = vn->late_cycles / 4;
    if (port->late_cycles && port->late_cycles / 4 < nap)
        nap = port->late_cycles / 4;
    if (nap < worker->wait)
        worker->wait = nap;
}

// Of all ports. False: one has something already, and those behind it were not asked.
static bool arm_vn(struct worker *worker, struct vn *vn)
{
    vn_refresh(vn);
    if (waits_for_limit(worker, &vn->pace))
        return true;
    for (unsigned i = 0; i < vn->n_active; i++) {
        struct port *port = vn->active[i]->port;
        if (waits_for_limit(worker, &vn->active[i]->pace))
            continue;
        if (port->kind->naps)
            note_nap(worker, &vn->pace, &vn->active[i]->pace);
        if (!port->kind->arm(port))
            return false;
    }
    return true;
}

static bool arm_all(struct worker *worker)
{
    const unsigned n = atomic_load_explicit(&worker->n_slots, memory_order_acquire);
    worker->wait = worker->hz; // once a second at least, for what ages
    for (unsigned i = 0; i < n; i++) {
        struct vn *vn = get_vn(worker, i);
        if (vn && !arm_vn(worker, vn))
            return false;
    }
    return true;
}

static void disarm_all(struct worker *worker)
{
    const unsigned n = atomic_load_explicit(&worker->n_slots, memory_order_acquire);
    for (unsigned i = 0; i < n; i++) {
        struct vn *vn = get_vn(worker, i);
        if (vn)
            vn_refresh(vn); // what went while we slept has been freed
        for (unsigned k = 0; vn && k < vn->n_active; k++) {
            struct port *port = vn->active[k]->port;
            if (port->kind->disarm)
                port->kind->disarm(port);
            if (!port->kind->naps)
                vn->active[k]->asked = worker->last_cycles; // what came before would have woken us before
        }
    }
}

static void wait_for_something(struct worker *worker)
{
    struct epoll_event events[16];
    const uint64_t us = worker->wait / (worker->hz / 1000000);
    const struct timespec timeout = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};
    // Nothing of a network is touched asleep: whoever takes one away need not wait for us.
    rte_rcu_qsbr_thread_offline(worker->rcu, 0);
    const int n = epoll_pwait2(worker->epoll_fd, events, 16, &timeout, NULL);
    rte_rcu_qsbr_thread_online(worker->rcu, 0);
    if (n <= 0)
        worker->nap = worker->nap * 2 < worker->nap_most ? worker->nap * 2 : worker->nap_most;
    uint64_t wakes;
    if (read(worker->wake_fd, &wakes, sizeof(wakes)) < 0)
        return; // nobody has
}

// Sleeps for a little without asking to be woken, which is what a machine's kick, an interrupt of the next one and our waking cost
// for each packet. Not where a single packet is asked and answered at a time, and well within a latency that was promised. False:
// it would bring nothing.
static bool gather(struct worker *worker)
{
    const bool is_worth = worker->came >= GATHER_LEAST && worker->came_bits <= 8 * GATHER_BYTES * worker->came;
    worker->came = worker->came_bits = 0;
    if (!is_worth)
        return false;
    worker->wait = worker->gather < worker->late_least / 4 ? worker->gather : worker->late_least / 4;
    counter_add(&worker->sleeps, 1);
    wait_for_something(worker);
    worker->last_cycles = worker->last_packet = rte_rdtsc();
    return true;
}

static void doze(struct worker *worker)
{
    if (gather(worker))
        return;
    if (arm_all(worker)) {
        counter_add(&worker->sleeps, 1);
        wait_for_something(worker);
    }
    worker->last_cycles = rte_rdtsc(); // asleep is nobody's time
    disarm_all(worker);
}

static int run(void *arg)
{
    struct worker *worker = arg;
    rte_rcu_qsbr_thread_register(worker->rcu, 0);
    rte_rcu_qsbr_thread_online(worker->rcu, 0);
    worker->last_cycles = worker->last_packet = rte_rdtsc();
    while (!atomic_load_explicit(&worker->is_stopped, memory_order_relaxed)) {
        if (serve_all(worker)) {
            worker->last_packet = worker->last_cycles;
            worker->nap = worker->nap_least;
        } else if (rte_rdtsc() - worker->last_packet > worker->spin) {
            doze(worker);
        }
        tick(worker);
        rte_rcu_qsbr_quiescent(worker->rcu, 0);
    }
    rte_rcu_qsbr_thread_offline(worker->rcu, 0);
    rte_rcu_qsbr_thread_unregister(worker->rcu, 0);
    return 0;
}

// ---- the control thread ----

static int prepare(struct worker *worker, struct tv_error *err)
{
    struct epoll_event event = {.events = EPOLLIN};
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    worker->rcu = aligned_alloc(RTE_CACHE_LINE_SIZE, rte_rcu_qsbr_get_memsize(1));
    if (!worker->rcu || worker->epoll_fd < 0 || worker->wake_fd < 0 ||
        epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, worker->wake_fd, &event) < 0)
        return tv_error_set(err, -ENOMEM, "a worker cannot be made: %s", strerror(errno));
    rte_rcu_qsbr_init(worker->rcu, 1);
    worker->hz = rte_get_tsc_hz();
    worker->charge_most = worker->hz / 1000000 * CHARGE_MAX_US;
    worker->spin = worker->hz / 1000000 * SPIN_US;
    worker->gather = worker->hz / 1000000 * GATHER_US;
    worker->nap = worker->nap_least = worker->hz / 1000000 * NAP_LEAST_US;
    worker->nap_most = worker->hz / 1000000 * NAP_MOST_US;
    return 0;
}

static void dispose(struct worker *worker)
{
    if (worker->epoll_fd >= 0)
        close(worker->epoll_fd);
    if (worker->wake_fd >= 0)
        close(worker->wake_fd);
    free(worker->rcu);
    free(worker);
}

struct worker *worker_create(unsigned lcore, struct tv_error *err)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    if (!worker) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    worker->lcore = lcore;
    int r = prepare(worker, err);
    if (!r && (r = rte_eal_remote_launch(run, worker, lcore)))
        tv_error_set(err, r, "a worker cannot be started: %s", strerror(-r));
    if (r) {
        dispose(worker);
        return NULL;
    }
    return worker;
}

void worker_destroy(struct worker *worker)
{
    atomic_store_explicit(&worker->is_stopped, true, memory_order_relaxed);
    worker_wake(worker);
    rte_eal_wait_lcore(worker->lcore);
    dispose(worker);
}

int worker_add_vn(struct worker *worker, struct vn *vn, struct tv_error *err)
{
    unsigned i = 0;
    while (i < WORKER_VNS_MAX && atomic_load_explicit(&worker->vns[i], memory_order_relaxed))
        i++;
    if (i == WORKER_VNS_MAX)
        return tv_error_set(err, -ENOSPC, "network '%s': a worker has room for %d networks", vn->name, WORKER_VNS_MAX);
    vn->now_s = (uint32_t)(rte_rdtsc() / worker->hz);
    atomic_store_explicit(&worker->vns[i], vn, memory_order_release);
    if (i >= atomic_load_explicit(&worker->n_slots, memory_order_relaxed))
        atomic_store_explicit(&worker->n_slots, i + 1, memory_order_release);
    worker->n_vns++;
    worker_wake(worker);
    return 0;
}

void worker_remove_vn(struct worker *worker, struct vn *vn)
{
    for (unsigned i = 0; i < WORKER_VNS_MAX; i++)
        if (atomic_load_explicit(&worker->vns[i], memory_order_relaxed) == vn)
            atomic_store_explicit(&worker->vns[i], NULL, memory_order_release);
    worker->n_vns--;
    rte_rcu_qsbr_synchronize(worker->rcu, RTE_QSBR_THRID_INVALID);
}

unsigned worker_n_vns(const struct worker *worker)
{
    return worker->n_vns;
}

void worker_wake(struct worker *worker)
{
    const uint64_t one = 1;
    if (write(worker->wake_fd, &one, sizeof(one)) < 0)
        return; // it has been woken 2^64 times already
}

struct rte_rcu_qsbr *worker_rcu(struct worker *worker)
{
    return worker->rcu;
}

struct port_env worker_port_env(struct worker *worker)
{
    return (struct port_env){.epoll_fd = worker->epoll_fd, .rcu = worker->rcu};
}

uint64_t worker_hz(void)
{
    return rte_get_tsc_hz();
}

json_t *worker_describe(const struct worker *worker)
{
    return json_pack("{s:i, s:i, s:I, s:I, s:I, s:I, s:I}", "lcore", (int)worker->lcore, "networks", (int)worker->n_vns,
                     "cycles_per_s", (json_int_t)worker->hz, "busy_cycles", (json_int_t)counter_get(&worker->busy_cycles),
                     "idle_cycles", (json_int_t)counter_get(&worker->idle_cycles), "stolen_cycles",
                     (json_int_t)counter_get(&worker->stolen), "sleeps", (json_int_t)counter_get(&worker->sleeps));
}
