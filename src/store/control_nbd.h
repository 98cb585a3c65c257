// Methods of the store's control socket about NBD: see control.c.
#pragma once

#include "base/rpc.h"

void control_nbd_listen(void *store, struct rpc_request *req, const json_t *params);
void control_nbd_close(void *store, struct rpc_request *req, const json_t *params);
void control_nbd_list(void *store, struct rpc_request *req, const json_t *params);
