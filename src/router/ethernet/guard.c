// Port security: see guard.h.
#include "router/ethernet/guard.h"

#include <stdbool.h>
#include <string.h>

enum { TYPE_IP4 = 0x0800, TYPE_ARP = 0x0806, TYPE_VLAN = 0x8100, TYPE_IP6 = 0x86dd, TYPE_QINQ = 0x88a8 };
enum { NEXT_HOP_BY_HOP = 0, NEXT_ROUTING = 43, NEXT_FRAGMENT = 44, NEXT_AUTHENTICATION = 51, NEXT_ICMP6 = 58, NEXT_OPTIONS = 60 };
enum { ND_ROUTER_SOLICIT = 133, ND_ROUTER_ADVERT, ND_SOLICIT, ND_ADVERT, ND_REDIRECT };
enum { ND_OPTION_SOURCE = 1, ND_OPTION_TARGET = 2 };
#define TAGS_MAX 2
#define EXTENSIONS_MAX 8

struct view {
    const uint8_t *at;
    size_t len;
};

static struct view behind(struct view v, size_t n)
{
    return (struct view){v.at + n, v.len - n};
}

static unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static bool is_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static bool is_own_mac(const struct guard *g, const uint8_t *p)
{
    return !memcmp(g->mac, p, 6);
}

static bool is_own_ip4(const struct guard *g, const uint8_t *p)
{
    bool found = false;
    for (unsigned i = 0; i < g->n_ip4 && !found; i++)
        found = !memcmp(g->ip4[i], p, 4);
    return found;
}

// fe80::/64 with the interface identifier of the MAC address (RFC 4291, appendix A): what a machine gives itself.
static bool is_own_link_local(const struct guard *g, const uint8_t *p)
{
    static const uint8_t prefix[8] = {0xfe, 0x80};
    const uint8_t id[8] = {g->mac[0] ^ 2, g->mac[1], g->mac[2], 0xff, 0xfe, g->mac[3], g->mac[4], g->mac[5]};
    return !memcmp(p, prefix, 8) && !memcmp(p + 8, id, 8);
}

static bool is_own_ip6(const struct guard *g, const uint8_t *p)
{
    bool found = is_own_link_local(g, p);
    for (unsigned i = 0; i < g->n_ip6 && !found; i++)
        found = !memcmp(g->ip6[i], p, 16);
    return found;
}

// Ethernet and IPv4 alone (RFC 826). A sender address of zero is a probe (RFC 5227, 1.1).
static enum drop check_arp(const struct guard *g, struct view v, bool has_ip)
{
    static const uint8_t head[6] = {0, 1, 8, 0, 6, 4};
    if (v.len < 28 || memcmp(v.at, head, sizeof(head)))
        return DROP_MALFORMED;
    const uint8_t *sender = v.at + 8;
    if (!is_own_mac(g, sender))
        return DROP_SPOOFED;
    return !has_ip || is_zero(sender + 6, 4) || is_own_ip4(g, sender + 6) ? DROP_NONE : DROP_SPOOFED;
}

// From 0.0.0.0 a machine may ask for an address, all there are (RFC 2131, 4.1).
static enum drop check_ip4(const struct guard *g, struct view v)
{
    static const uint8_t all[4] = {255, 255, 255, 255};
    if (v.len < 20 || v.at[0] >> 4 != 4 || (v.at[0] & 15) < 5)
        return DROP_MALFORMED;
    const bool asks = is_zero(v.at + 12, 4) && !memcmp(v.at + 16, all, 4);
    return asks || is_own_ip4(g, v.at + 12) ? DROP_NONE : DROP_SPOOFED;
}

// RFC 4861, 4.6: type, length in units of eight bytes; link-layer addresses must be the machine's.
static enum drop check_nd_options(const struct guard *g, struct view v)
{
    while (v.len >= 8) {
        const size_t len = (size_t)v.at[1] * 8;
        if (!len || len > v.len)
            return DROP_MALFORMED;
        if ((v.at[0] == ND_OPTION_SOURCE || v.at[0] == ND_OPTION_TARGET) && !is_own_mac(g, v.at + 2))
            return DROP_SPOOFED;
        v = behind(v, len);
    }
    return v.len ? DROP_MALFORMED : DROP_NONE;
}

static enum drop check_icmp6(const struct guard *g, struct view v, bool has_ip)
{
    if (v.len < 8)
        return DROP_MALFORMED;
    switch (v.at[0]) {
    case ND_ROUTER_ADVERT: // RFC 4861, 4.2
        if (!g->is_router || v.len < 16)
            return g->is_router ? DROP_MALFORMED : DROP_SPOOFED;
        return check_nd_options(g, behind(v, 16));
    case ND_REDIRECT:
        return DROP_SPOOFED;
    case ND_ROUTER_SOLICIT:
        return check_nd_options(g, behind(v, 8));
    case ND_SOLICIT:
    case ND_ADVERT:
        if (v.len < 24)
            return DROP_MALFORMED;
        if (v.at[0] == ND_ADVERT && has_ip && !is_own_ip6(g, v.at + 8))
            return DROP_SPOOFED;
        return check_nd_options(g, behind(v, 24));
    default:
        return DROP_NONE;
    }
}

static bool is_extension(uint8_t next)
{
    return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT || next == NEXT_AUTHENTICATION ||
           next == NEXT_OPTIONS;
}

// A fragment may be of anything but Neighbour Discovery; what it is of stands in its first one, and that one must tell.
static enum drop check_fragment(struct view v)
{
    if (v.len < 8)
        return DROP_MALFORMED;
    if (is_extension(v.at[0]))
        return DROP_MALFORMED;
    const bool is_first = !(get16(v.at + 2) & 0xfff8);
    if (!is_first || v.at[0] != NEXT_ICMP6)
        return DROP_NONE;
    if (v.len < 9)
        return DROP_MALFORMED;
    return v.at[8] >= ND_ROUTER_SOLICIT && v.at[8] <= ND_REDIRECT ? DROP_SPOOFED : DROP_NONE;
}

static enum drop check_ip6_payload(const struct guard *g, uint8_t next, struct view v, bool has_ip)
{
    for (unsigned i = 0; i < EXTENSIONS_MAX; i++) {
        if (next == NEXT_ICMP6)
            return check_icmp6(g, v, has_ip);
        if (next == NEXT_FRAGMENT)
            return check_fragment(v);
        if (!is_extension(next))
            return DROP_NONE;
        if (v.len < 8)
            return DROP_MALFORMED;
        // RFC 8200, 4.3 to 4.6; RFC 4302, 2.2
        const size_t len = next == NEXT_AUTHENTICATION ? ((size_t)v.at[1] + 2) * 4 : ((size_t)v.at[1] + 1) * 8;
        if (len > v.len)
            return DROP_MALFORMED;
        next = v.at[0];
        v = behind(v, len);
    }
    return DROP_MALFORMED;
}

// From :: a machine looks whether an address is free (RFC 4862, 5.4.2), and joins groups (RFC 3590).
// elsewhere_bytes: of the packet, behind the view.
static enum drop check_ip6(const struct guard *g, struct view v, size_t elsewhere_bytes, bool has_ip)
{
    if (v.len < 40 || v.at[0] >> 4 != 6)
        return DROP_MALFORMED;
    const size_t payload = get16(v.at + 4);
    if (payload > v.len - 40 + elsewhere_bytes)
        return DROP_MALFORMED;
    if (has_ip && !is_own_ip6(g, v.at + 8) && !(is_zero(v.at + 8, 16) && v.at[24] == 0xff))
        return DROP_SPOOFED;
    return check_ip6_payload(g, v.at[6], (struct view){v.at + 40, payload < v.len - 40 ? payload : v.len - 40}, has_ip);
}

enum drop guard_check(const struct guard *g, const uint8_t *frame, size_t len_bytes, size_t whole_bytes)
{
    const bool has_ip = g->n_ip4 || g->n_ip6;
    if (len_bytes < 14)
        return DROP_MALFORMED;
    if (!is_own_mac(g, frame + 6))
        return DROP_SPOOFED;
    struct view v = {frame + 12, len_bytes - 12};
    for (unsigned tags = 0;; tags++) {
        const unsigned type = get16(v.at);
        if (type != TYPE_VLAN && type != TYPE_QINQ)
            break;
        if (tags == TAGS_MAX || v.len < 6)
            return DROP_MALFORMED;
        v = behind(v, 4);
    }
    const unsigned type = get16(v.at);
    v = behind(v, 2);
    if (type == TYPE_ARP)
        return check_arp(g, v, has_ip);
    if (type == TYPE_IP4)
        return has_ip ? check_ip4(g, v) : DROP_NONE;
    return type == TYPE_IP6 ? check_ip6(g, v, whole_bytes - len_bytes, has_ip) : DROP_NONE;
}
