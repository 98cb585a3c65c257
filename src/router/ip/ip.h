// Networks of the type `ip`: a router for IPv4 and IPv6 (RFC 1812, RFC 8200), each port a link with addresses of the router's own.
// What the parts of it share; nothing outside this folder includes this.
//
// Threads: the control thread makes networks and ports (ip.c) and changes routes (command.c, fib.h); the worker carries packets
// (forward.c), knows neighbours (neighbour.h, resolve.c, arp.c, nd.c), answers (icmp.c, local.c) and hands over what is the control
// plane's in a namespace (punt.c) or the server's (serve.c). What the control thread has to say about neighbours goes by a list of
// messages (ip_post).
#pragma once

#include "router/ethernet/guard.h"
#include "router/ip/candidates.h"
#include "router/ip/fib.h"
#include "router/ip/header.h"
#include "router/ip/neighbour.h"
#include "router/vn.h"

#define IP_PORT_ADDRESSES_MAX 16
#define IP_MTU_DEFAULT 1500
#define IP_MTU_MOST (PORT_FRAME_MAX - (unsigned)sizeof(struct ethernet_header) - 1)
#define IP4_MTU_LEAST 68   // RFC 791, 3.2
#define IP6_MTU_LEAST 1280 // RFC 8200, 5
#define IP_TTL_OWN 64      // of what the router itself sends (RFC 1700)

// So many per second at most, some at once.
struct ip_budget {
    uint64_t tokens, last_cycles; // tokens in cycles of the time-stamp counter
};

struct ip_port {
    // Set when it is made.
    uint64_t mac_word; // the six bytes of `mac` as they lie at the beginning of a frame
    uint8_t mac[6];
    uint16_t mtu, mtu_most; // links find out that there is less room than that; the worker's then
    bool is_guarded;        // a machine is behind it, which sends with its own addresses alone
    bool has_server;        // behind it is the network's server (serve.c), with this MAC address
    uint8_t server[6];
    struct guard guard; // its addresses
    unsigned n_addresses;
    struct ip_prefix addresses[IP_PORT_ADDRESSES_MAX]; // the router's own, with the length of the link's prefix
    rib_key link_local;                                // RFC 4291, 2.5.6, made from `mac`
    unsigned device;                                   // in the namespace: its interface's index
    // The worker's.
    struct ip_budget errors;
    _Atomic uint64_t for_router, resolved, errors_sent, errors_limited, fragments_sent;
};

// What the control thread has to say to the worker. Made and freed by the control thread, freed when is_done.
struct ip_message {
    struct ip_message *next_posted, *next_kept;
    _Atomic bool is_done;
    bool adds; // a static neighbour; else it is forgotten, whatever it was
    uint8_t family, mac[6];
    unsigned port;
    rib_key address;
};

struct ip {
    struct fib fib;
    struct neighbours *neighbours;
    uint64_t flow_key, hz;
    uint32_t errors_per_s, neighbour_age_s;
    _Atomic(struct ip_message *) posted; // taken whole by the worker
    struct ip_message *kept;             // the control thread's: all that are not freed yet
    struct control_plane *plane;         // the control thread's, as what is next; NULL: there is none
    struct candidates *candidates;       // with a control plane: all routes; else they are in `fib` alone
    struct vn_port *vtep;                // the worker's: where packets of tunnels go; NULL: none
    struct vn_port *server;              // the same: where the server is (serve.c)
    unsigned vtep_index, server_index;   // of them, and one more
    uint32_t n_waiting;                  // buffers of packets, for neighbours
    uint16_t next_id;                    // of IPv4 packets that the router makes
};

// ---- ip.c ----

// Control thread. The message is the network's from now on.
void ip_post(struct vn *vn, struct ip_message *message);
extern const struct vn_command ip_commands[]; // command.c

// Control thread: a route of the network's ports or its configuration, as fib_set() and fib_remove().
int ip_set_route(struct ip *ip, enum origin origin, const struct ip_prefix *prefix, const struct route *route);
int ip_remove_route(struct ip *ip, enum origin origin, const struct ip_prefix *prefix);
// Control thread: the port on whose link an address is, by its own ones; or NULL.
struct vn_port *ip_find_link(struct vn *vn, unsigned family, rib_key address);

// Whether the address is one of the port's own.
bool ip_is_own(const struct ip_port *own, unsigned family, rib_key address);
// Whether it is on the port's link.
bool ip_is_on_link(const struct ip_port *own, unsigned family, rib_key address);
// An address of the router's to send from (RFC 1812, 4.3.2.4): the port's or another's on whose link `to` is, else any of the
// port's, else any of the network's. False: there is none.
bool ip_choose_source(struct vn *vn, const struct ip_port *own, unsigned family, rib_key to, rib_key *source);

// Whether machines ask for an address of somebody behind another port, and are to send to the router for it, though they take him
// to be on their own link (RFC 1027; RFC 4861, 7.2.8): vARP.
bool ip_is_elsewhere(struct vn *vn, const struct vn_port *in, unsigned family, rib_key address);

// ---- trace.c ----

void ip_trace(struct vn *vn, struct vn_port *in, const uint8_t *bytes, size_t len_bytes, struct trace *t);

// ---- forward.c ----

void ip_input(struct vn *vn, struct vn_port *in, struct rte_mbuf **packets, unsigned n);
// Sends what the router has made: an IP packet behind room for an Ethernet header. Taken. `in`: where what caused it came from, and
// where it is counted if it goes no further.
void ip_output(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet);
// To whom it is for, who is on the link of the port. Taken.
void ip_output_on_link(struct vn *vn, struct vn_port *out, struct rte_mbuf *packet, unsigned family, rib_key to);
// To a neighbour whose address is known; fragments what is too large and may be. Taken.
void ip_emit(struct vn *vn, struct vn_port *in, struct neighbour *n, struct rte_mbuf *packet);

static inline struct ethernet_header *ip_frame(const struct rte_mbuf *packet)
{
    return rte_pktmbuf_mtod(packet, struct ethernet_header *);
}

static inline void *ip_packet(const struct rte_mbuf *packet)
{
    return ip_frame(packet) + 1;
}

// ---- fragment.c ----

// RFC 791, 3.2. The packet, with a valid header and larger than the MTU, goes as fragments; taken. False: no buffers for all of
// them; it is the caller's then, and nothing was sent.
bool ip4_fragment(struct vn *vn, struct neighbour *n, struct rte_mbuf *packet);

// ---- resolve.c: neighbours that have to be asked for ----

// The packet waits until the neighbour is known, or not for long; taken.
void resolve_wait(struct vn *vn, struct vn_port *in, struct neighbour *n, struct rte_mbuf *packet);
// The neighbour for an address behind a port, asked for if it is not known. NULL: there is no room for one more.
struct neighbour *resolve_get(struct vn *vn, unsigned family, struct vn_port *out, rib_key address);
// The same for one that tells about itself just now, with resolve_heard(), and is not asked.
struct neighbour *resolve_meet(struct vn *vn, unsigned family, struct vn_port *out, rib_key address);
// It was heard of: `is_answer` to a question of ours, or by the way.
void resolve_heard(struct vn *vn, struct neighbour *n, const uint8_t mac[static 6], bool is_answer);
void resolve_set_static(struct vn *vn, struct vn_port *out, unsigned family, rib_key address, const uint8_t mac[static 6]);
void resolve_tick(struct vn *vn);
void resolve_set_mtu(struct vn *vn, struct vn_port *out, uint16_t mtu); // of the port and of who is behind it
void resolve_forget_port(struct vn *vn, unsigned port);
void resolve_take_messages(struct vn *vn);

// ---- arp.c (RFC 826), nd.c (RFC 4861) ----

void arp_input(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet); // taken
void arp_solicit(struct vn *vn, struct vn_port *out, const struct neighbour *n);
// An ICMPv6 message of Neighbour Discovery, its header and checksum checked. Taken.
void nd_input(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet);
void nd_solicit(struct vn *vn, struct vn_port *out, const struct neighbour *n);

// ---- local.c: packets for the router itself ----

// Taken.
void local_input4(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet);
void local_input6(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet);

// ---- punt.c: what the control plane in the namespace receives and sends ----

// To the kernel of the namespace, as if it had come by a device of the port's; taken. False: there is no namespace, and it is the
// caller's still.
bool punt_up(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet);
// What comes from there, by the punt of a port. Taken.
void punt_input(struct vn *vn, struct vn_port *punt, struct rte_mbuf **packets, unsigned n);
// ---- serve.c: the server of a network, behind a port that has one ----

// Whether it is the server's; taken then. Something for the router's own address, a question that is for all on the link, an answer
// that is. Headers are checked.
bool serve_local(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet, uint8_t protocol);
bool serve_question(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet);
bool serve_answer(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet);

// ---- underlay.c: links of other networks (router/link/vtep.h) ----

// Control thread, for a port of that kind; -EEXIST.
int underlay_publish(struct vn *vn, struct vn_port *port, struct tv_error *err);
// Worker. A packet to one of the router's own addresses, no fragment: taken if it is a link's.
bool underlay_input(struct vn *vn, struct rte_mbuf *packet, unsigned family);
// What was sent for a link was too big: here, or so the error says whose payload this is, with len_bytes of the packet.
void underlay_too_big(struct vn *vn, unsigned family, const void *packet, size_t len_bytes, unsigned mtu);

// ---- icmp.c ----

enum { ICMP_ECHO_REPLY = 0, ICMP_UNREACHABLE = 3, ICMP_ECHO = 8, ICMP_TIME_EXCEEDED = 11 };
enum { ICMP_NET = 0, ICMP_HOST = 1, ICMP_PROTOCOL = 2, ICMP_PORT = 3, ICMP_FRAGMENTATION_NEEDED = 4, ICMP_PROHIBITED = 13 };
enum { ICMP6_UNREACHABLE = 1, ICMP6_TOO_BIG = 2, ICMP6_TIME_EXCEEDED = 3, ICMP6_PARAMETER = 4, ICMP6_ECHO = 128, ICMP6_ECHO_REPLY };
enum { ICMP6_NO_ROUTE = 0, ICMP6_PROHIBITED = 1, ICMP6_ADDRESS = 3, ICMP6_PORT = 4, ICMP6_NEXT_HEADER = 1 };

// Tells the sender of the packet, which stays the caller's, unless nobody is to be told (RFC 1812, 4.3.2.7; RFC 4443, 2.4) or too
// much has been told already. word: the second one of the message's header, in host order.
void icmp4_error(struct vn *vn, struct vn_port *in, const struct rte_mbuf *packet, uint8_t type, uint8_t code, uint32_t word);
void icmp6_error(struct vn *vn, struct vn_port *in, const struct rte_mbuf *packet, uint8_t type, uint8_t code, uint32_t word);
