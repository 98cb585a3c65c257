// A volume that another service keeps, by NBD: qemu-nbd(8) or qemu-storage-daemon(1) with an image of any format, another
// trivet-store, anything. The store's thread; while there is no connection a thread of its own tries to make one.
//
// Requests under way when the connection breaks are sent again on the next one. Whether what was answered before is still there
// only the server's host knows, so from then on flushes fail, unless nothing was unflushed, or the options say that the server's
// cache outlives it. A server that answers wrongly, or not at all, loses its connection; the memory of requests is written to only
// by what was asked for, within its bounds.
#pragma once

#include "store/volume/env.h"

struct nbd_volume_options {
    // Where the server listens: a name in a folder that was opened (taken, also on failure), or an address in numbers and a port.
    int dir_fd;       // -1: by TCP
    const char *name; // of the socket
    const char *address;
    uint16_t port;
    const char *export; // "" is one as well: the server's own choice
    bool read_only;
    unsigned reconnect_s; // how long a connection is tried for that broke; 0: not at all
    bool keeps_cache;     // the server's cache outlives its process, and what it was told is not lost by a connection that breaks
    unsigned timeout_s;   // how long the server may be silent while it has something to do
};

struct volume *nbd_volume_create(struct volume_env *env, const struct nbd_volume_options *options, struct tv_error *err);
