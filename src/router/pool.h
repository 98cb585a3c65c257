// The packet buffers of a network: a pool of DPDK's, with less beside the buffers than rte_pktmbuf_pool_create() makes.
//
// DPDK has 2560 memory zones a process and gives three to each pool of its own making; here it is one, so that there may be a
// thousand networks. And a pool of DPDK's has a cache of buffers for each of 128 threads, half a megabyte that is touched when it
// is made: a small pool has a small one for its worker alone.
#pragma once

#include <rte_mempool.h>

// Each holds data_bytes behind the usual headroom. rte_mempool_free() when no packet is out. -ENOMEM.
int pool_create(unsigned id, unsigned n_buffers, unsigned data_bytes, struct rte_mempool **pool);
