// What passes the ports of a network, copied to whoever looks.
//
// A worker writes copies into a ring of bytes, the control thread empties it (control_capture.c): one writer and one reader, which
// never wait for each other. What there is no room for is counted and not copied, so looking costs the network time and no packets.
// Off, it is one pointer that is read for each burst.
#pragma once

#include "router/pcapng.h"
#include "router/port/port.h"

#include <rte_mbuf.h>
#include <stdatomic.h>

#define CAPTURE_RING_BYTES (8u << 20)
#define CAPTURE_SNAP_MAX PORT_FRAME_MAX

struct capture;

struct capture *capture_create(uint32_t snap_bytes); // NULL: no memory
void capture_destroy(struct capture *capture);       // no worker has it any more

// Worker.
void capture_packets(struct capture *capture, const char *port, enum pcapng_direction direction, struct rte_mbuf *const *packets,
                     unsigned n);

// Control thread. A packet as it was copied; valid until the next call. False: there is none.
struct capture_packet {
    uint64_t at_ns; // since 1970
    uint32_t kept_bytes, len_bytes;
    enum pcapng_direction direction;
    char port[PORT_NAME_MAX + 1];
    const uint8_t *data;
};
bool capture_next(struct capture *capture, struct capture_packet *packet);
uint64_t capture_seen(const struct capture *capture);
uint64_t capture_dropped(const struct capture *capture);
