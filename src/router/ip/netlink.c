// Messages of rtnetlink: see netlink.h.
#include "router/ip/netlink.h"

#include <assert.h>
#include <errno.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>
#include <string.h>
#include <sys/socket.h>

// ---- writing ----

static void *append(struct netlink_writer *w, size_t len_bytes)
{
    assert(NLMSG_ALIGN(w->len) + NLMSG_ALIGN(len_bytes) <= sizeof(w->bytes));
    w->len = NLMSG_ALIGN(w->len);
    void *at = w->bytes + w->len;
    w->len += len_bytes;
    return at;
}

static void set_length(struct netlink_writer *w)
{
    const uint32_t len = (uint32_t)w->len;
    memcpy(w->bytes, &len, sizeof(len)); // the header's first member
}

void netlink_begin(struct netlink_writer *w, unsigned type, unsigned flags, const void *header, size_t header_bytes)
{
    const struct nlmsghdr h = {.nlmsg_type = (uint16_t)type, .nlmsg_flags = (uint16_t)flags};
    *w = (struct netlink_writer){.len = 0};
    memcpy(append(w, sizeof(h)), &h, sizeof(h));
    memcpy(append(w, header_bytes), header, header_bytes);
    set_length(w);
}

void netlink_put(struct netlink_writer *w, unsigned attribute, const void *data, size_t len_bytes)
{
    const struct rtattr a = {.rta_len = (uint16_t)(sizeof(a) + len_bytes), .rta_type = (uint16_t)attribute};
    uint8_t *at = append(w, sizeof(a) + len_bytes);
    memcpy(at, &a, sizeof(a));
    memcpy(at + sizeof(a), data, len_bytes);
    set_length(w);
}

void netlink_set_sequence(struct netlink_writer *w, uint32_t sequence)
{
    memcpy(w->bytes + offsetof(struct nlmsghdr, nlmsg_seq), &sequence, sizeof(sequence));
}

// ---- reading ----

bool netlink_next(const uint8_t **at, size_t *len_bytes, struct netlink_attribute *attribute)
{
    struct rtattr a;
    if (*len_bytes < sizeof(a))
        return false;
    memcpy(&a, *at, sizeof(a));
    if (a.rta_len < sizeof(a) || a.rta_len > *len_bytes)
        return false;
    *attribute = (struct netlink_attribute){a.rta_type & (unsigned)NLA_TYPE_MASK, *at + sizeof(a), a.rta_len - sizeof(a)};
    const size_t whole = RTA_ALIGN(a.rta_len) < *len_bytes ? RTA_ALIGN(a.rta_len) : *len_bytes;
    *at += whole;
    *len_bytes -= whole;
    return true;
}

// A number of the attribute's own size. False: it has another one.
static bool get_u32(const struct netlink_attribute *a, uint32_t *value)
{
    if (a->len_bytes != sizeof(*value))
        return false;
    memcpy(value, a->data, sizeof(*value));
    return true;
}

static bool get_address(const uint8_t *data, size_t len_bytes, unsigned af, uint8_t *family, rib_key *key)
{
    uint8_t bytes[16] = {0};
    const size_t expected = af == AF_INET ? 4 : af == AF_INET6 ? 16 : 0;
    if (!expected || len_bytes != expected)
        return false;
    memcpy(bytes, data, expected);
    *family = af == AF_INET ? IP4 : IP6;
    *key = ip6_key(bytes);
    return true;
}

// struct rtvia: a gateway of another family.
static bool get_via(const struct netlink_attribute *a, struct netlink_hop *hop)
{
    uint16_t af;
    if (a->len_bytes < sizeof(af))
        return false;
    memcpy(&af, a->data, sizeof(af));
    return get_address(a->data + sizeof(af), a->len_bytes - sizeof(af), af, &hop->family, &hop->gateway);
}

// One of those that a hop has; others are passed over.
static bool get_hop(const struct netlink_attribute *a, unsigned af, struct netlink_hop *hop)
{
    switch (a->type) {
    case RTA_GATEWAY:
        return get_address(a->data, a->len_bytes, af, &hop->family, &hop->gateway);
    case RTA_VIA:
        return get_via(a, hop);
    case RTA_OIF:
        return get_u32(a, &hop->device);
    default:
        return true;
    }
}

// struct rtnexthop and its attributes, several. Legs that are dead are no legs.
static bool get_hops(const struct netlink_attribute *a, unsigned af, struct netlink_route *route)
{
    const uint8_t *at = a->data;
    size_t len = a->len_bytes;
    struct rtnexthop leg;
    struct netlink_attribute inner;
    while (len >= sizeof(leg)) {
        memcpy(&leg, at, sizeof(leg));
        if (leg.rtnh_len < sizeof(leg) || leg.rtnh_len > len)
            return false;
        struct netlink_hop hop = {.device = (uint32_t)leg.rtnh_ifindex};
        const uint8_t *inside = at + sizeof(leg);
        for (size_t left = leg.rtnh_len - sizeof(leg); netlink_next(&inside, &left, &inner);)
            if (inner.type != RTA_OIF && !get_hop(&inner, af, &hop))
                return false;
        if (!(leg.rtnh_flags & RTNH_F_DEAD) && route->n_hops < NETLINK_HOPS_MAX)
            route->hops[route->n_hops++] = hop;
        const size_t whole = NLMSG_ALIGN((size_t)leg.rtnh_len) < len ? NLMSG_ALIGN((size_t)leg.rtnh_len) : len;
        at += whole;
        len -= whole;
    }
    return !len;
}

static bool get_route_attribute(const struct netlink_attribute *a, unsigned af, struct netlink_route *route,
                                struct netlink_hop *hop)
{
    switch (a->type) {
    case RTA_DST:
        return get_address(a->data, a->len_bytes, af, &route->prefix.family, &route->prefix.key);
    case RTA_PRIORITY:
        return get_u32(a, &route->metric);
    case RTA_TABLE:
        return get_u32(a, &route->table);
    case RTA_NH_ID:
        return get_u32(a, &route->nexthop);
    case RTA_MULTIPATH:
        return get_hops(a, af, route);
    default:
        return get_hop(a, af, hop);
    }
}

static int read_route(const uint8_t *at, size_t len, struct netlink_message *m)
{
    struct rtmsg h;
    struct netlink_attribute a;
    struct netlink_hop hop = {0};
    struct netlink_route *route = &m->route;
    if (len < sizeof(h))
        return -EBADMSG;
    memcpy(&h, at, sizeof(h));
    if (h.rtm_family != AF_INET && h.rtm_family != AF_INET6)
        return 0;
    *route = (struct netlink_route){.prefix = {.family = h.rtm_family == AF_INET ? IP4 : IP6, .len = h.rtm_dst_len},
                                    .protocol = h.rtm_protocol,
                                    .type = h.rtm_type,
                                    .is_clone = h.rtm_flags & RTM_F_CLONED,
                                    .table = h.rtm_table};
    if (h.rtm_dst_len > ip_bits(route->prefix.family))
        return -EBADMSG;
    at += NLMSG_ALIGN(sizeof(h));
    for (len -= sizeof(h); netlink_next(&at, &len, &a);)
        if (!get_route_attribute(&a, h.rtm_family, route, &hop))
            return -EBADMSG;
    route->prefix.key = rib_mask(route->prefix.key, route->prefix.len);
    if (!route->n_hops && (hop.family || hop.device) && !(h.rtm_flags & RTNH_F_DEAD))
        route->hops[route->n_hops++] = hop;
    m->kind = NETLINK_ROUTE_MESSAGE;
    return 0;
}

static bool get_members(const struct netlink_attribute *a, struct netlink_nexthop *nexthop)
{
    struct nexthop_grp member;
    if (a->len_bytes % sizeof(member))
        return false;
    for (size_t i = 0; i < a->len_bytes / sizeof(member) && nexthop->n_members < NETLINK_HOPS_MAX; i++) {
        memcpy(&member, a->data + i * sizeof(member), sizeof(member));
        nexthop->members[nexthop->n_members++] = member.id;
    }
    return true;
}

static bool get_nexthop_attribute(const struct netlink_attribute *a, unsigned af, struct netlink_nexthop *nexthop)
{
    switch (a->type) {
    case NHA_ID:
        return get_u32(a, &nexthop->id);
    case NHA_GROUP:
        return get_members(a, nexthop);
    case NHA_BLACKHOLE:
        nexthop->is_blackhole = true;
        return true;
    case NHA_OIF:
        return get_u32(a, &nexthop->hop.device);
    case NHA_GATEWAY:
        return get_address(a->data, a->len_bytes, af, &nexthop->hop.family, &nexthop->hop.gateway);
    default:
        return true;
    }
}

static int read_nexthop(const uint8_t *at, size_t len, struct netlink_message *m)
{
    struct nhmsg h;
    struct netlink_attribute a;
    if (len < sizeof(h))
        return -EBADMSG;
    memcpy(&h, at, sizeof(h));
    m->nexthop = (struct netlink_nexthop){0};
    at += NLMSG_ALIGN(sizeof(h));
    for (len -= sizeof(h); netlink_next(&at, &len, &a);)
        if (!get_nexthop_attribute(&a, h.nh_family, &m->nexthop))
            return -EBADMSG;
    if (!m->nexthop.id)
        return -EBADMSG;
    m->kind = NETLINK_NEXTHOP_MESSAGE;
    return 0;
}

static int read_neighbour(const uint8_t *at, size_t len, struct netlink_message *m)
{
    struct ndmsg h;
    struct netlink_attribute a;
    struct netlink_neighbour *n = &m->neighbour;
    if (len < sizeof(h))
        return -EBADMSG;
    memcpy(&h, at, sizeof(h));
    if (h.ndm_family != AF_INET && h.ndm_family != AF_INET6)
        return 0;
    *n = (struct netlink_neighbour){.device = (uint32_t)h.ndm_ifindex, .state = h.ndm_state, .flags = h.ndm_flags};
    at += NLMSG_ALIGN(sizeof(h));
    for (len -= sizeof(h); netlink_next(&at, &len, &a);) {
        if (a.type == NDA_DST && !get_address(a.data, a.len_bytes, h.ndm_family, &n->address.family, &n->address.key))
            return -EBADMSG;
        if (a.type == NDA_LLADDR && a.len_bytes == sizeof(n->mac)) {
            memcpy(n->mac, a.data, sizeof(n->mac));
            n->has_mac = true;
        }
    }
    if (!n->address.family)
        return 0;
    n->address.len = (uint8_t)ip_bits(n->address.family);
    m->kind = NETLINK_NEIGHBOUR_MESSAGE;
    return 0;
}

static int read_error(const uint8_t *at, size_t len, enum netlink_kind kind, struct netlink_message *m)
{
    int32_t code = 0;
    if (len >= sizeof(code))
        memcpy(&code, at, sizeof(code));
    else if (kind == NETLINK_ERROR_MESSAGE)
        return -EBADMSG;
    m->kind = kind;
    m->error = code;
    return 0;
}

static int read_payload(unsigned type, const uint8_t *at, size_t len, struct netlink_message *m)
{
    switch (type) {
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        m->adds = type == RTM_NEWROUTE;
        return read_route(at, len, m);
    case RTM_NEWNEXTHOP:
    case RTM_DELNEXTHOP:
        m->adds = type == RTM_NEWNEXTHOP;
        return read_nexthop(at, len, m);
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
        m->adds = type == RTM_NEWNEIGH;
        return read_neighbour(at, len, m);
    case RTM_NEWLINK:
    case RTM_DELLINK:
    case RTM_NEWADDR:
    case RTM_DELADDR:
        m->kind = NETLINK_LINK_MESSAGE;
        return 0;
    case NLMSG_DONE:
        return read_error(at, len, NETLINK_DONE_MESSAGE, m);
    case NLMSG_ERROR:
        return read_error(at, len, NETLINK_ERROR_MESSAGE, m);
    default:
        return 0;
    }
}

int netlink_read(const uint8_t **at, size_t *len_bytes, struct netlink_message *message)
{
    struct nlmsghdr h;
    if (!*len_bytes)
        return -ENODATA;
    const uint8_t *begin = *at;
    const size_t there = *len_bytes;
    *len_bytes = 0;
    if (there < sizeof(h))
        return -EBADMSG;
    memcpy(&h, begin, sizeof(h));
    if (h.nlmsg_len < sizeof(h) || h.nlmsg_len > there)
        return -EBADMSG;
    const size_t whole = NLMSG_ALIGN((size_t)h.nlmsg_len) < there ? NLMSG_ALIGN((size_t)h.nlmsg_len) : there;
    *at = begin + whole;
    *len_bytes = there - whole;
    message->kind = NETLINK_OTHER;
    message->adds = false;
    message->flags = h.nlmsg_flags;
    message->sequence = h.nlmsg_seq;
    message->error = 0;
    return read_payload(h.nlmsg_type, begin + sizeof(h), h.nlmsg_len - sizeof(h), message);
}
