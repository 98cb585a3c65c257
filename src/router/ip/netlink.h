// Messages of rtnetlink (rtnetlink(7); linux/rtnetlink.h): written, attribute after attribute, and taken apart. Pure logic over
// foreign bytes; who sends and receives them is elsewhere.
#pragma once

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

// ---- reading ----

// Takes the next attribute off what lies at *at, or returns false: nothing is left, or what is left is none.
struct netlink_attribute {
    unsigned type; // without flags
    const uint8_t *data;
    size_t len_bytes;
};
bool netlink_next(const uint8_t **at, size_t *len_bytes, struct netlink_attribute *attribute);
