// vhost-user messages: layout, sending and receiving with descriptors, and decoding (vhost-user protocol of the QEMU documentation,
// "Message Specification", "Front-end message types", "Back-end message types"). Numbers are in the host's own byte order.
//
// Private to this folder. No threads of its own.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VHOST_FDS_MAX 8
#define VHOST_TABLE_REGIONS_MAX 8 // in SET_MEM_TABLE
#define VHOST_CONFIG_MAX 256
#define VHOST_SOCKET_QUEUES_MAX 256 // an index is 8 bits in SET_VRING_KICK and its like

#define VHOST_VERSION 1u
#define VHOST_VERSION_MASK 3u
#define VHOST_REPLY (1u << 2)
#define VHOST_NEED_REPLY (1u << 3)

#define VHOST_VRING_INDEX_MASK 0xffu
#define VHOST_VRING_NO_FD (1u << 8)
#define VHOST_VRING_F_LOG 1u // of struct vhost_ring_addr

// Of the virtio features, what concerns only the two ends.
#define VHOST_F_LOG_ALL 26
#define VHOST_F_PROTOCOL_FEATURES 30

enum vhost_protocol_feature {
    VHOST_PROTOCOL_MQ = 0,
    VHOST_PROTOCOL_LOG_SHMFD = 1,
    VHOST_PROTOCOL_RARP = 2,
    VHOST_PROTOCOL_REPLY_ACK = 3,
    VHOST_PROTOCOL_NET_MTU = 4,
    VHOST_PROTOCOL_BACKEND_REQ = 5,
    VHOST_PROTOCOL_CONFIG = 9,
    VHOST_PROTOCOL_INFLIGHT_SHMFD = 12,
    VHOST_PROTOCOL_RESET_DEVICE = 13,
    VHOST_PROTOCOL_CONFIGURE_MEM_SLOTS = 15,
    VHOST_PROTOCOL_STATUS = 16,
};

// What both of our ends speak.
#define VHOST_PROTOCOL_FEATURES                                                                                                    \
    (1ull << VHOST_PROTOCOL_MQ | 1ull << VHOST_PROTOCOL_LOG_SHMFD | 1ull << VHOST_PROTOCOL_REPLY_ACK |                             \
     1ull << VHOST_PROTOCOL_BACKEND_REQ | 1ull << VHOST_PROTOCOL_CONFIG | 1ull << VHOST_PROTOCOL_INFLIGHT_SHMFD |                  \
     1ull << VHOST_PROTOCOL_RESET_DEVICE | 1ull << VHOST_PROTOCOL_CONFIGURE_MEM_SLOTS | 1ull << VHOST_PROTOCOL_STATUS)

// What the front end of a network's device speaks. INFLIGHT_SHMFD is for requests: a frame may be lost, or come twice.
#define VHOST_NET_PROTOCOL_FEATURES                                                                                                \
    ((VHOST_PROTOCOL_FEATURES & ~(1ull << VHOST_PROTOCOL_CONFIG | 1ull << VHOST_PROTOCOL_INFLIGHT_SHMFD)) |                        \
     1ull << VHOST_PROTOCOL_RARP | 1ull << VHOST_PROTOCOL_NET_MTU)

enum vhost_request {
    VHOST_GET_FEATURES = 1,
    VHOST_SET_FEATURES = 2,
    VHOST_SET_OWNER = 3,
    VHOST_RESET_OWNER = 4,
    VHOST_SET_MEM_TABLE = 5,
    VHOST_SET_LOG_BASE = 6,
    VHOST_SET_LOG_FD = 7,
    VHOST_SET_VRING_NUM = 8,
    VHOST_SET_VRING_ADDR = 9,
    VHOST_SET_VRING_BASE = 10,
    VHOST_GET_VRING_BASE = 11,
    VHOST_SET_VRING_KICK = 12,
    VHOST_SET_VRING_CALL = 13,
    VHOST_SET_VRING_ERR = 14,
    VHOST_GET_PROTOCOL_FEATURES = 15,
    VHOST_SET_PROTOCOL_FEATURES = 16,
    VHOST_GET_QUEUE_NUM = 17,
    VHOST_SET_VRING_ENABLE = 18,
    VHOST_SEND_RARP = 19,
    VHOST_NET_SET_MTU = 20,
    VHOST_SET_BACKEND_REQ_FD = 21,
    VHOST_GET_CONFIG = 24,
    VHOST_SET_CONFIG = 25,
    VHOST_GET_INFLIGHT_FD = 31,
    VHOST_SET_INFLIGHT_FD = 32,
    VHOST_RESET_DEVICE = 34,
    VHOST_GET_MAX_MEM_SLOTS = 36,
    VHOST_ADD_MEM_REG = 37,
    VHOST_REM_MEM_REG = 38,
    VHOST_SET_STATUS = 39,
    VHOST_GET_STATUS = 40,
    VHOST_REQUESTS_END
};

enum { VHOST_BACKEND_CONFIG_CHANGE = 2 };

struct vhost_header {
    uint32_t request, flags, size_bytes;
};

struct vhost_ring_state {
    uint32_t index, num;
};

struct vhost_ring_addr {
    uint32_t index, flags;
    uint64_t desc, used, avail, log; // user addresses
};

struct vhost_region {
    uint64_t guest_addr, size_bytes, user_addr, mmap_offset;
};

struct vhost_mem_table {
    uint32_t n_regions, padding;
    struct vhost_region regions[VHOST_TABLE_REGIONS_MAX];
};

struct vhost_one_region {
    uint64_t padding;
    struct vhost_region region;
};

struct vhost_config {
    uint32_t offset, size_bytes, flags;
    uint8_t bytes[VHOST_CONFIG_MAX];
};
#define VHOST_CONFIG_HEAD offsetof(struct vhost_config, bytes)

struct vhost_log {
    uint64_t mmap_size, mmap_offset;
};

struct vhost_inflight {
    uint64_t mmap_size, mmap_offset;
    uint16_t n_queues, queue_size;
    uint32_t padding; // QEMU sends the structure with its padding, others without
};
#define VHOST_INFLIGHT_HEAD offsetof(struct vhost_inflight, padding)

union vhost_payload {
    uint64_t u64;
    struct vhost_ring_state state;
    struct vhost_ring_addr addr;
    struct vhost_mem_table memory;
    struct vhost_one_region region;
    struct vhost_config config;
    struct vhost_log log;
    struct vhost_inflight inflight;
};

// A message with the descriptors that came with it. Who consumes one sets it to -1; vhost_message_clear() closes the rest.
struct vhost_message {
    struct vhost_header header;
    union vhost_payload payload;
    unsigned n_fds;
    int fds[VHOST_FDS_MAX];
};

// Assembles messages from a stream socket, never reading beyond the current one.
struct vhost_receiver {
    struct vhost_message message;
    size_t got_bytes; // of header and payload
};

void vhost_receiver_init(struct vhost_receiver *rx);
// 1: rx->message is whole (then vhost_message_clear() it and go on). 0: no more bytes now. -ECONNRESET: the peer has gone.
// -EPROTO: too long, too many descriptors, or another version.
int vhost_receive(struct vhost_receiver *rx, int fd, struct tv_error *err);
void vhost_message_clear(struct vhost_receiver *rx); // closes what descriptors are left, makes ready for the next
int vhost_message_take_fd(struct vhost_message *message, unsigned index);

// Whole or not at all. -EAGAIN when the socket is full. Borrows fds.
int vhost_send(int fd, uint32_t request, uint32_t flags, const void *payload, size_t size_bytes, const int *fds, unsigned n_fds);

const char *vhost_request_name(uint32_t request); // "?" for what we do not know
// Checks a request of a front end by itself: known, of a feature that was negotiated, its size, its counts, its descriptors.
int vhost_check_request(const struct vhost_message *message, uint64_t protocol_features, struct tv_error *err);
bool vhost_request_has_reply(uint32_t request); // a reply of its own, with or without REPLY_ACK
