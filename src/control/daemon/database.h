// What trivetd remembers: SQLite in WAL mode, so that it can be killed at any instruction and go on from the last committed change.
//
// One row a machine: what it is to be (JSON of spec.h), whether it is wanted, and which process runs it. On trivetd's thread.
#pragma once

#include "base/error.h"
#include "control/worker/worker.h"

#include <jansson.h>
#include <stdbool.h>

struct database;

struct database_machine {
    const char *name;
    const char *spec;     // JSON text
    bool wanted;          // the user wants it to run
    struct worker worker; // pid 0: not running
    int exit_status;      // of its last run; -1: it never ended
    const char *reason;
    unsigned restarts;
};

struct database *database_open(const char *path, struct tv_error *err);
void database_close(struct database *db);

int database_put_machine(struct database *db, const struct database_machine *machine, struct tv_error *err);
int database_delete_machine(struct database *db, const char *name, struct tv_error *err);
// Calls fn for each machine, in the order of names; what it is given lives until it returns.
int database_each_machine(struct database *db, void (*fn)(void *arg, const struct database_machine *machine), void *arg,
                          struct tv_error *err);

// Networks, as net_spec.h has them. One that is not settled was being changed: the router may have it or what it was before.
int database_put_network(struct database *db, const json_t *spec, bool is_settled, struct tv_error *err);
int database_delete_network(struct database *db, const char *name, struct tv_error *err);
// In the order of names; the specification is fn's.
int database_each_network(struct database *db, void (*fn)(void *arg, json_t *spec, bool is_settled), void *arg,
                          struct tv_error *err);

// Single values by key, as JSON: "store" and "router" (the processes), "tenants".
int database_put(struct database *db, const char *key, const json_t *value, struct tv_error *err);
json_t *database_get(struct database *db, const char *key); // the caller's; NULL if there is none
