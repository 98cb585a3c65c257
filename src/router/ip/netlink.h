// Messages of rtnetlink (rtnetlink(7); linux/rtnetlink.h): written, attribute after attribute, and taken apart. Pure logic over
// foreign bytes; who sends and receives them is elsewhere.
#pragma once

#include "router/ip/address.h"
#include "router/ip/ecmp.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- writing ----

#define NETLINK_WRITTEN_MAX 512

struct netlink_writer {
    _Alignas(NLMSG_ALIGNTO) uint8_t bytes[NETLINK_WRITTEN_MAX];
    size_t len; // bytes of the message, as its header says
};

// A message with the fixed header of its type. What does not fit is our own bug.
void netlink_begin(struct netlink_writer *w, unsigned type, unsigned flags, const void *header, size_t header_bytes);
void netlink_put(struct netlink_writer *w, unsigned attribute, const void *data, size_t len_bytes);
void netlink_set_sequence(struct netlink_writer *w, uint32_t sequence); // by which the answer is known

// ---- reading ----

struct netlink_attribute {
    unsigned type; // without flags
    const uint8_t *data;
    size_t len_bytes;
};
// Takes the next attribute off what lies at *at, or returns false: nothing is left, or what is left is none.
bool netlink_next(const uint8_t **at, size_t *len_bytes, struct netlink_attribute *attribute);

#define NETLINK_HOPS_MAX ECMP_MEMBERS_MAX // the others of a route are left out

struct netlink_hop {
    uint8_t family; // of the gateway; 0: none
    rib_key gateway;
    uint32_t device; // the index of an interface; 0: not said
};

// RTM_NEWROUTE, RTM_DELROUTE.
struct netlink_route {
    struct ip_prefix prefix;
    uint8_t protocol, type; // RTPROT_*, RTN_*
    bool is_clone;          // of the cache, no route
    uint32_t table, metric, nexthop;
    unsigned n_hops;
    struct netlink_hop hops[NETLINK_HOPS_MAX];
};

// RTM_NEWNEXTHOP, RTM_DELNEXTHOP: an object that routes refer to, one hop or a group of objects (ip-nexthop(8)).
struct netlink_nexthop {
    uint32_t id;
    bool is_blackhole;
    struct netlink_hop hop;
    unsigned n_members; // 0: no group
    uint32_t members[NETLINK_HOPS_MAX];
};

// RTM_NEWNEIGH, RTM_DELNEIGH.
struct netlink_neighbour {
    struct ip_prefix address;
    uint32_t device;
    uint16_t state; // NUD_*
    uint8_t flags;  // NTF_*
    bool has_mac;
    uint8_t mac[6];
};

enum netlink_kind {
    NETLINK_OTHER, // of no interest
    NETLINK_ROUTE_MESSAGE,
    NETLINK_NEXTHOP_MESSAGE,
    NETLINK_NEIGHBOUR_MESSAGE,
    NETLINK_LINK_MESSAGE, // a device or an address has come, changed or gone
    NETLINK_DONE_MESSAGE,
    NETLINK_ERROR_MESSAGE,
};

struct netlink_message {
    enum netlink_kind kind;
    bool adds; // it is there, or gone
    uint16_t flags;
    uint32_t sequence;
    int error; // of NETLINK_ERROR_MESSAGE and _DONE_: -errno or 0
    union {
        struct netlink_route route;
        struct netlink_nexthop nexthop;
        struct netlink_neighbour neighbour;
    };
};

// Takes the first message off what lies at *at, whole. 0; -ENODATA: nothing is left; -EBADMSG: no message, or one that says what
// cannot be. It has been taken off then, if it has a length.
int netlink_read(const uint8_t **at, size_t *len_bytes, struct netlink_message *message);
