// Disks served by the NBD protocol: a front end. The store's thread.
//
// The server has listeners, each a listening socket with what TLS it offers; a disk that is exported can be had by its name from
// all of them, or from those that name it. A connection is half open until its client has chosen an export, and then one of the
// export's. What a client can take is bounded: half-open connections in number and time, an export's connections in number, and of
// each connection the requests, and the memory for their data, that are under way at once.
#pragma once

#include "store/disk.h"

struct nbd_server;

struct nbd_server *nbd_server_create(struct store *store, struct tv_error *err);
void nbd_server_destroy(struct nbd_server *server); // no disk is left

// Takes fd, also on failure: a listening stream socket, Unix or TCP.
int nbd_server_listen(struct nbd_server *server, const struct store_nbd_config *config, int fd, struct tv_error *err);
// Ends its connections too: what they asked for is done, and not answered any more.
int nbd_server_close(struct nbd_server *server, const char *name, struct tv_error *err);
json_t *nbd_server_list(const struct nbd_server *server);

// Exports the disk: attached to it, and destroyed with it.
int nbd_export_create(struct disk *disk, struct tv_error *err);
