// The back end of vhost-user and a front end by hand, on one thread: what is sent is served by the same loop. For tests of what our
// own front end never says.
#pragma once

#include "vhost/protocol.h"
#include "vhost_rig.h"

#define PEER_USER 0x7f0000000000ull // where the peer says that it has its memory
#define PEER_RAM_BYTES 0x20000ull
#define PEER_FEATURES (1ull << 32) // VIRTIO_F_VERSION_1

struct peer {
    struct rig_device dev;
    int listen_fd, fd, ram_fd, kick_fd, call_fd;
    uint8_t *ram;
    struct virtq_driver drv;
};

void peer_open(struct peer *p); // connected, and nothing said
void peer_close(struct peer *p);
void peer_connect(struct peer *p); // again; the old descriptor is the caller's to close
void peer_serve(struct peer *p);   // until nothing is left to be done

// fd goes with it; -1: none does.
void peer_put(struct peer *p, uint32_t request, const void *payload, size_t size, int fd);
void peer_put_u64(struct peer *p, uint32_t request, uint64_t value, int fd);
void peer_put_ring(struct peer *p, uint32_t request, uint32_t index, uint32_t num);
// A reply must be there, since everything sent was served.
union vhost_payload peer_take_reply(struct peer *p, uint32_t request);

void peer_set_memory(struct peer *p);
// One queue up to, but not including, its kick descriptor; with a request in it.
void peer_set_queue(struct peer *p, uint64_t features);
bool peer_is_answered(struct peer *p);
