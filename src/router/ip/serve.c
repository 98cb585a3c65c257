// The server of a network that routes: a station behind one of its ports that answers in the router's place what machines want of
// it: DHCP (RFC 2131), and whatever of UDP and TCP is for the router's own addresses, as DNS is. Worker.
//
// It has these addresses as well. So a machine's questions go to it with nothing changed but the MAC addresses, and there are no
// words of a relay agent (RFC 3046) between them; only an answer for all says by nothing but the machine's MAC address, which is in
// the message, to which port it is to go.
#include "router/ip/ip.h"
#include "router/offload.h"

struct udp_header {
    uint16_t source, destination, length, checksum; // RFC 768
} IP_WIRE;

struct bootp {
    uint8_t operation, hardware, hardware_bytes, hops;
    uint32_t transaction;
    uint16_t seconds, flags;
    uint32_t client, yours, server, gateway;
    uint8_t mac[16]; // of whom it is about (RFC 951)
} IP_WIRE;

enum { BOOTP_REQUEST = 1, BOOTP_REPLY = 2, BOOTP_ETHERNET = 1 };
enum { PORT_SERVER = 67, PORT_CLIENT = 68 };

static void send_on(struct vn_port *in, struct vn_port *out, struct rte_mbuf *packet, const uint8_t to[static 6])
{
    const struct ip_port *own = out->state;
    if (offload_frame_bytes(packet) > own->mtu + sizeof(struct ethernet_header)) {
        vn_drop(in, packet, DROP_TOO_BIG);
        return;
    }
    memcpy(ip_frame(packet)->to, to, 6);
    memcpy(ip_frame(packet)->from, own->mac, 6);
    vn_send(out, packet);
}

bool serve_local(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet, uint8_t protocol)
{
    const struct ip *ip = vn->state;
    if (!ip->server || ip->server == in || (protocol != IP_PROTOCOL_UDP && protocol != IP_PROTOCOL_TCP))
        return false;
    const struct ip_port *own = ip->server->state;
    send_on(in, ip->server, packet, own->server);
    return true;
}

// The message of a packet that is whole, in one piece and no fragment, to that UDP port; its header is checked. NULL: it is none.
static const struct bootp *find_bootp(const struct rte_mbuf *packet, uint16_t port, uint8_t operation)
{
    const struct ip4_header *h = ip_packet(packet);
    const size_t header = ip4_header_bytes(h), total = be16toh(h->total_length);
    const struct udp_header *udp = (const void *)((const uint8_t *)h + header);
    const struct bootp *bootp = (const void *)(udp + 1);
    if (h->protocol != IP_PROTOCOL_UDP || h->fragment & htobe16(IP4_MORE_FRAGMENTS | IP4_OFFSET) ||
        total < header + sizeof(*udp) + sizeof(*bootp) || packet->data_len < sizeof(struct ethernet_header) + total ||
        udp->destination != htobe16(port))
        return NULL;
    const bool is_known = bootp->operation == operation && bootp->hardware == BOOTP_ETHERNET && bootp->hardware_bytes == 6;
    return is_known ? bootp : NULL;
}

// Machines alone get addresses: of others nobody could say by which port an answer goes.
bool serve_question(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    const struct ip *ip = vn->state;
    struct ip_port *own = in->state;
    const struct bootp *bootp = ip->server && own->is_guarded ? find_bootp(packet, PORT_SERVER, BOOTP_REQUEST) : NULL;
    if (!bootp)
        return false;
    if (memcmp(bootp->mac, own->guard.mac, sizeof(own->guard.mac))) {
        vn_drop(in, packet, DROP_SPOOFED);
        return true;
    }
    const struct ip_port *server = ip->server->state;
    counter_add(&own->for_router, 1);
    send_on(in, ip->server, packet, server->server);
    return true;
}

bool serve_answer(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    const struct ip *ip = vn->state;
    const struct ip4_header *h = ip_packet(packet);
    if (in != ip->server || h->destination != UINT32_MAX)
        return false;
    const struct bootp *bootp = find_bootp(packet, PORT_CLIENT, BOOTP_REPLY);
    for (unsigned i = 0; bootp && i < vn->n_active; i++) {
        const struct ip_port *own = vn->active[i]->state;
        if (!own || !own->is_guarded || memcmp(own->guard.mac, bootp->mac, sizeof(own->guard.mac)))
            continue;
        send_on(in, vn->active[i], packet, own->guard.mac);
        return true;
    }
    return false;
}
