// Memory that a machine shares with the router by vhost-user: taken only when its file cannot be cut off any more. A mapping whose
// file is truncated makes whoever touches it take SIGBUS, and that would be the end of all networks of the host.
#pragma once

#include <stdbool.h>

// Checks a message before DPDK's library sees it, as rte_vhost's pre_msg_handle has it: `message` is the library's, and its
// descriptors are closed when it is refused. On the library's thread.
//
// Refused, with a line in the log that names `socket`: descriptors of memory (SET_MEM_TABLE, SET_LOG_BASE, ADD_MEM_REG) without
// F_SEAL_SHRINK unless `unsealed`; buffers for requests in flight, which no network uses and which the library makes without a
// seal. True: refused.
bool vhost_memory_refuses(void *message, const char *socket, bool unsealed);
