// The method disk.add of the store's control socket, and what methods have in common: see control.c. The loop's thread.
//
// A disk whose image is still locked by a dead process, whose last writes are landing, waits for it without holding up anybody: it
// is tried again and again for CONTROL_ADD_WAIT_MS.
#pragma once

#include "base/rpc.h"

#include <stdbool.h>

#define CONTROL_ADD_WAIT_MS 5000

struct store;

void control_add(void *arg, struct rpc_request *req, const json_t *params); // arg: the store
// A disk of that name that waits is not added, and whoever asked for it is told. False: none does.
bool control_add_cancel(struct store *store, const char *name);
void control_add_cancel_all(struct store *store);

// Answers that the parameters are wrong.
void control_refuse(struct rpc_request *req, const char *what);
// The parameter "name", or NULL when the request has been answered already.
const char *control_need_name(struct rpc_request *req, const json_t *params);
// An unsigned parameter that may be absent.
bool control_get_u64(const json_t *params, const char *key, uint64_t otherwise, uint64_t most, uint64_t *value);
