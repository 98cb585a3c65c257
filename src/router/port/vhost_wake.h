// DPDK's vhost library waits for its sockets in a poll of one second, and a socket that is added does not end it (22.11, fd_man.c):
// a machine that connects at once, as all do when a router is started again, would wait for up to that second.
#pragma once

// Has the library's thread look for new sockets soon. The control thread, after rte_vhost_driver_start().
void vhost_wake(void);
