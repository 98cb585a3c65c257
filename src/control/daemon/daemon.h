// trivetd's inside: the machines and networks it knows, the store, the router, and the control socket. Private to this folder.
//
// One thread, one loop, which waits for nobody: neither a machine nor the store can keep trivetd from answering. The workers are
// sessions of their own and do not need us: whoever comes after us finds them by pid and start time in the database and by their
// sockets in the run directory, and takes them over without touching them.
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/rpc.h"
#include "control/daemon/database.h"
#include "control/spec/spec.h"
#include "control/worker/router_process.h"
#include "control/worker/store_process.h"

#include <limits.h>
#include <stdbool.h>

enum machine_state { MACHINE_STOPPED, MACHINE_STARTING, MACHINE_RUNNING, MACHINE_STOPPING, MACHINE_WAITING, MACHINE_FAILED };

struct batch; // an answer that waits for several machines: batch.c

struct launch;
struct promise_archive;
struct disk_reading; // look.c

struct waiter {
    struct waiter *next;
    struct batch *batch;
};

// A disk on its way to the store: its image is opened first (open.c), and then the store answers it.
struct disk_opening {
    struct daemon_machine *machine; // NULL: nobody wants it any more
    unsigned disk;
    bool is_asked; // the store has got it
    // while its image is opened
    struct daemon *daemon;
    struct disk_opening *next;
    struct disk_spec spec; // a copy: the machine may go meanwhile
    json_t *volume;
    struct store_fds fds;
    int result;
    struct tv_error err;
};

// A machine's place in a network on its way to the router; freed by its answer.
struct nic_opening {
    struct daemon_machine *machine; // NULL: nobody wants it any more
    unsigned nic;
};

// Invariants: worker.pid != 0 exactly in STARTING, RUNNING and STOPPING, and then watch is set, but for the first part of STARTING:
// launch is set while the store opens the disks, and the router the ports, of a machine that has no worker yet. control is set
// while it is connected.
struct daemon_machine {
    struct daemon_machine *next;
    struct daemon *daemon;
    struct machine_spec spec;
    enum machine_state state;
    bool wanted, paused;
    struct worker worker;
    int pidfd;                 // -1: none
    struct loop_source *watch; // of pidfd
    struct loop_source *timer; // kills what does not stop, starts what waits
    struct rpc_conn *control;
    struct waiter *starting, *stopping; // who waits for it
    struct launch *launch;
    struct disk_opening *opening[SPEC_DISKS_MAX]; // NULL: none; each is freed by its answer
    bool disk_away[SPEC_DISKS_MAX];
    struct nic_opening *nic_opening[SPEC_NICS_MAX]; // as opening
    bool nic_away[SPEC_NICS_MAX];
    struct {
        struct disk_reading *reading; // under way
        json_t *disks;                // what the last one found; NULL: nothing
        uint64_t at_ns;
        pid_t pid;       // the process that had them
    } look;              // look.c
    unsigned restarts;   // since it last ran for long
    uint64_t started_ns; // monotonic
    int exit_status;     // -1: it has not ended yet
    json_t *unproven;    // what its disks are promised on trust, as of the last start: [{"name", "promise"}]; NULL: nothing
    char reason[256];
    char engine[16], engine_why[256]; // as its worker says; "": not known yet
};

enum net_state { NET_MAKING, NET_UP, NET_FAILED };

struct daemon_net {
    struct daemon_net *next;
    json_t *spec;         // net_spec.h
    enum net_state state; // as far as the router has answered
    char reason[256];     // of NET_FAILED
    // dnsmasq of its gateway; gateway.c.
    struct daemon *daemon;
    struct worker dnsmasq; // pid 0: none
    int dnsmasq_pidfd;
    struct loop_source *dnsmasq_watch, *dnsmasq_timer;
    json_t *hosts; // that it was told
};

struct daemon {
    struct loop *loop;
    struct database *db;
    struct rpc_server *server;
    struct daemon_machine *machines; // in the order of names
    struct store_process store;
    struct rpc_conn *store_control; // set while the store runs
    bool store_late;                // it has left a question without an answer for longer than it should
    int store_pidfd;
    struct daemon_net *nets; // in the order of names
    struct router_process router;
    struct rpc_conn *router_control; // set while the router runs
    int router_pidfd;
    unsigned router_deaths; // soon after it was started, in a row
    uint64_t router_started_ns;
    struct loop_source *router_watch, *router_timer;
    json_t *host;          // host_spec.h; NULL: not stated
    char host_word[40];    // that no other has: made at random once, and recorded
    bool host_told;        // the router that runs has it
    char host_reason[256]; // why it has not
    struct loop_source *host_timer;
    int lock_fd; // of the state folder
    struct loop_source *store_watch, *store_timer;
    struct loop_source *quit_timer;
    struct opener *opener;
    struct gateway_jobs *gateway_jobs;
    char run_dir[PATH_MAX], state_dir[PATH_MAX];
    bool exit_when_empty;
};

// daemon.c
int daemon_init(struct daemon *d, struct tv_error *err); // paths are set; opens the database, takes over what runs
void daemon_fini(struct daemon *d);                      // leaves the machines running
bool daemon_consider_end(struct daemon *d);              // after a machine or network was removed; true: we end

// machine.c
struct daemon_machine *machine_find(const struct daemon *d, const char *name);
struct daemon_machine *machine_add(struct daemon *d, struct machine_spec *spec, struct tv_error *err); // takes spec's contents
void machine_remove(struct daemon_machine *m);                                                         // one that does not run
void machine_free(struct daemon_machine *m);
int machine_record(const struct daemon_machine *m, struct tv_error *err);
int machine_path(const struct daemon_machine *m, const char *file, char path[static PATH_MAX], struct tv_error *err);
int machine_log_path(const struct daemon_machine *m, char path[static PATH_MAX], struct tv_error *err);
bool machine_is_up(const struct daemon_machine *m); // it has a worker, or is to get one
const char *machine_state_name(const struct daemon_machine *m);
json_t *machine_describe(const struct daemon_machine *m);

// life.c: start and end. The batches are answered when it is done.
void machine_timer_expired(void *arg); // the machine's
int machine_start(struct daemon_machine *m, struct tv_error *err);
void machine_adopt(struct daemon_machine *m);
void machine_stop(struct daemon_machine *m, unsigned timeout_ms);
void machine_kill(struct daemon_machine *m);
void machine_drop_launch(struct daemon_machine *m);
// The store has opened a disk of a machine that starts (fd is taken), or has not.
void machine_disk_opened(struct daemon_machine *m, unsigned disk, int fd, struct tv_error *err);
// The same of the router and a port.
void machine_nic_opened(struct daemon_machine *m, unsigned nic, int fd, struct tv_error *err);

// store.c
int daemon_store_need(struct daemon *d, struct tv_error *err); // starts it if none runs
void daemon_store_adopt(struct daemon *d);
void daemon_store_stop(struct daemon *d);
void daemon_store_disconnect(struct daemon *d); // leaves it running
void daemon_store_label(const struct daemon_machine *m, unsigned disk, char label[static 128]);
int daemon_store_open_disk(struct daemon_machine *m, unsigned disk, struct tv_error *err); // the answer follows
void daemon_store_close_disks(struct daemon_machine *m);
void daemon_store_abandon(struct daemon_machine *m); // what is being opened for it
void daemon_disk_away(struct daemon_machine *m, const char *disk);
void daemon_store_image_opened(struct disk_opening *opening); // or not: see its result

// open.c: images are made, copied, grown and unlocked on a thread of its own, one after the other.
int daemon_opener_init(struct daemon *d, struct tv_error *err);
void daemon_opener_fini(struct daemon *d);              // waits for what is under way
void daemon_opener_start(struct disk_opening *opening); // what it needs is set
void disk_opening_free(struct disk_opening *opening);

// router.c
int daemon_router_need(struct daemon *d, struct tv_error *err); // starts it if none runs
void daemon_router_adopt(struct daemon *d);
void daemon_router_stop(struct daemon *d);
void daemon_router_disconnect(struct daemon *d); // leaves it running
void daemon_router_gather(struct daemon *d);     // machines' ports that are away come back soon

// net.c
struct daemon_net *net_find(const struct daemon *d, const char *name);
void net_load(struct daemon *d, json_t *spec, bool is_settled); // takes the specification
void net_free_all(struct daemon *d);
void net_host_changed(struct daemon *d, const json_t *before); // links follow
void net_restore(struct daemon *d);                            // what the router should have and has not, and the other way around
void net_router_died(struct daemon *d);
rpc_method_fn daemon_net_list, daemon_net_get, daemon_net_apply, daemon_net_remove, daemon_net_attach, daemon_net_detach,
    daemon_net_route, daemon_net_call; // methods

// host.c: what this host is to others, and who they are.
int daemon_host_load(struct daemon *d, struct tv_error *err);
void daemon_host_restore(struct daemon *d); // the router gets it, if it has it not
// Replies with `json` once each of the links in it, or each peer, has the state of its peer. Takes json.
void daemon_host_add_state(struct daemon *d, struct rpc_request *req, json_t *json);
rpc_method_fn daemon_host_get, daemon_host_apply, daemon_host_peer; // methods

// gateway.c: a network with services has a gateway (gateway.h), whose DHCP and DNS are looked after here.
// Its device, for the router, once it is there: fd is closed after `done`; else err says why not.
void daemon_gateway_open(struct daemon_net *n, bool anew, void (*done)(void *arg, int fd, const struct tv_error *err), void *arg);
void daemon_gateway_refresh(struct daemon_net *n);                    // the network is up, or its machines have changed
void daemon_gateway_remove(struct daemon_net *n, const json_t *spec); // what the network has, or had, by that
void daemon_gateway_adopt(struct daemon_net *n);
void daemon_gateway_leave(struct daemon_net *n); // it goes on without us

// gateway_jobs.c: one after the other, and nobody waits for ip(8) and nft(8) meanwhile. NEED: make it if it is not there; NOTHING:
// only to know when all before it are done.
enum gateway_work { GATEWAY_MAKE, GATEWAY_NEED, GATEWAY_REMOVE, GATEWAY_NOTHING };
void daemon_gateway_work(struct daemon *d, enum gateway_work work, const json_t *spec,
                         void (*done)(void *arg, const struct tv_error *err), void *arg); // err->code: 0 or why not
bool daemon_gateways_are_busy(const struct daemon *d);
int daemon_gateways_init(struct daemon *d, struct tv_error *err);
void daemon_gateways_fini(struct daemon *d); // waits for what is under way, and for what is to go

// nic.c
int daemon_nic_open(struct daemon_machine *m, unsigned nic, struct tv_error *err); // the answer follows
void daemon_nic_close_all(struct daemon_machine *m);
void daemon_nic_abandon(struct daemon_machine *m);
void daemon_nic_away(struct daemon_machine *m, const char *network);

// look.c
void daemon_look(struct daemon_machine *m, struct rpc_request *req); // answers it
void daemon_look_forget(struct daemon_machine *m);
void daemon_store_note_late(struct daemon *d); // nobody waits for the store until it has answered

// disk.c
// MACHINE.DISK, or DISK where only one machine has a disk of that name. NULL with err.
const struct daemon_machine *daemon_find_disk(const struct daemon *d, const char *name, unsigned *disk, struct tv_error *err);
rpc_method_fn daemon_disk_find, daemon_disk_call; // methods

// promise.c
bool machine_differs_in_promises_only(const struct machine_spec *a, const struct machine_spec *b);
rpc_method_fn daemon_promise, daemon_promises, daemon_change_promises; // methods
rpc_method_fn daemon_promise_changed;                                  // of the store's

// verdicts.c
struct promise_archive *daemon_read_verdicts(const struct daemon *d); // the caller's; NULL: there is nothing on record
// What became of these promises of a disk; of those that were never judged nothing. `a` may be NULL.
json_t *daemon_recorded_verdicts(struct promise_archive *a, const char *label, const char *promises);

// batch.c
struct batch *batch_create(struct rpc_request *req);
int batch_wait(struct batch *b, struct waiter **list, struct tv_error *err);
void batch_result(struct batch *b, const struct daemon_machine *m, const struct tv_error *err); // one machine is done
void batch_seal(struct batch *b);                                                               // all have been asked
void batch_wake(struct waiter **list, const struct daemon_machine *m, const struct tv_error *err);

// rpc.c
extern const struct rpc_method daemon_methods[];
