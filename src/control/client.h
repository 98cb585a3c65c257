// The command's side of trivetd's control socket. Blocking; for programs without a loop.
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stddef.h>

#define CLIENT_TIMEOUT_MS 120000
#define CLIENT_HELLO_MS 15000 // for the first answer of a trivetd, which does nothing that takes long

// A connection to a trivetd that answers; one that died (its socket is there, nobody listens) is started again and takes up its
// machines. -ESRCH with the remedy when none ran, -EADDRINUSE when what listens there gives no answer.
int client_connect(struct tv_error *err);
// The same; starts a trivetd that goes when its last machine is removed, if none runs.
int client_connect_or_start(struct tv_error *err);

// Takes params. *result is the caller's.
int client_call(int fd, const char *method, json_t *params, json_t **result, struct tv_error *err);
// The same of what may take so long by itself, as a guest's shutdown does.
int client_call_long(int fd, const char *method, json_t *params, unsigned takes_ms, json_t **result, struct tv_error *err);
// The same with a descriptor, unless pass_fd is -1.
int client_call_with(int fd, const char *method, json_t *params, int pass_fd, json_t **result, struct tv_error *err);
// trivetd, started for what then failed or is done, ends if it has nothing; it is waited for, so that who calls next, or takes the
// folders away, does not meet it.
void client_end_if_empty(int fd);
// A method of a machine, through trivetd.
int client_call_machine(int fd, const char *machine, const char *method, json_t *params, int pass_fd, json_t **result,
                        struct tv_error *err);
