// Networks of the router's in this process, without a worker's thread: frames are put into ports (of the kind ring), the network
// is given its turn, and what it sent is taken.
#pragma once

#include "router/ip/header.h"
#include "router/vn.h"

#include <stddef.h>
#include <stdint.h>

struct packet {
    size_t len;
    uint8_t bytes[PORT_FRAME_MAX];
};

// DPDK, on ordinary memory; once a process.
void rig_start(void);

// Parameters as JSON with ' for ". What cannot be made ends the test, but for rig_try_port(), which is then NULL with rig_error.
struct vn *rig_vn(const char *name, const char *params);
void rig_remove_vn(struct vn *vn); // with its ports
struct vn_port *rig_port(struct vn *vn, const char *name, const char *params);
struct vn_port *rig_try_port(struct vn *vn, const char *name, const char *params);
void rig_remove_port(struct vn *vn, struct vn_port *port);
// 0, or -errno with rig_error. *result may be NULL.
int rig_command(struct vn *vn, const char *command, const char *params, json_t **result);
extern struct tv_error rig_error;

void rig_put(struct vn_port *port, const struct packet *packet);
void rig_run(struct vn *vn);                                // until nothing more comes
void rig_seconds(struct vn *vn, unsigned n);                // pass
bool rig_take(struct vn_port *port, struct packet *packet); // false: nothing was sent
unsigned rig_discard(struct vn_port *port);                 // takes all; how many
uint64_t rig_drops(const struct vn_port *port, enum drop cause);
unsigned rig_used(const struct vn *vn); // buffers

// ---- frames ----

// The MAC address 02:00:00:00:00:n.
void mac_of(unsigned n, uint8_t mac[static 6]);
// Appends bytes as hexadecimal digits, blanks between them as you like.
void add_hex(struct packet *packet, const char *hex);
struct packet make_frame(unsigned to, unsigned from, unsigned type);

struct ip4_fields {
    const char *from, *to;
    uint8_t ttl, protocol;
    uint16_t flags;      // and offset
    const char *options; // hexadecimal
    size_t payload;      // bytes: 0, 1, 2...
};
// An Ethernet frame, its header with a right checksum.
struct packet make_ip4(unsigned mac_to, unsigned mac_from, const struct ip4_fields *fields);

struct ip6_fields {
    const char *from, *to;
    uint8_t hop_limit, next;
    size_t payload;
};
struct packet make_ip6(unsigned mac_to, unsigned mac_from, const struct ip6_fields *fields);

struct packet make_echo4(unsigned mac_to, unsigned mac_from, const char *from, const char *to, size_t payload);
struct packet make_echo6(unsigned mac_to, unsigned mac_from, const char *from, const char *to, size_t payload);
struct packet make_arp(unsigned mac_to, unsigned mac_from, unsigned operation, const char *sender, const char *target);
// A message of Neighbour Discovery from its type on; its checksum is filled in.
struct packet make_icmp6(unsigned mac_to, unsigned mac_from, const char *from, const char *to, uint8_t hop_limit, const char *hex);

static inline struct ethernet_header *frame_of(const struct packet *packet)
{
    return (struct ethernet_header *)packet->bytes;
}

static inline struct ip4_header *ip4_of(const struct packet *packet)
{
    return (struct ip4_header *)(packet->bytes + sizeof(struct ethernet_header));
}

static inline struct ip6_header *ip6_of(const struct packet *packet)
{
    return (struct ip6_header *)(packet->bytes + sizeof(struct ethernet_header));
}
