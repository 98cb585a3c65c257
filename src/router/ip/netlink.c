// Messages of rtnetlink: see netlink.h.
#include "router/ip/netlink.h"

#include <assert.h>
#include <string.h>

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
