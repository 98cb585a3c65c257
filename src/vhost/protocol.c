// vhost-user messages: see protocol.h.
#include "vhost/protocol.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void vhost_receiver_init(struct vhost_receiver *rx)
{
    rx->got_bytes = 0;
    rx->message.n_fds = 0;
}

void vhost_message_clear(struct vhost_receiver *rx)
{
    for (unsigned i = 0; i < rx->message.n_fds; i++) {
        if (rx->message.fds[i] >= 0)
            close(rx->message.fds[i]);
    }
    vhost_receiver_init(rx);
}

int vhost_message_take_fd(struct vhost_message *message, unsigned index)
{
    if (index >= message->n_fds)
        return -1;
    int fd = message->fds[index];
    message->fds[index] = -1;
    return fd;
}

static int keep_fds(struct vhost_message *message, struct msghdr *msg)
{
    int ret = msg->msg_flags & MSG_CTRUNC ? -EPROTO : 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (message->n_fds < VHOST_FDS_MAX) {
                message->fds[message->n_fds++] = fd;
            } else {
                close(fd);
                ret = -EPROTO;
            }
        }
    }
    return ret;
}

// Reads up to len_bytes; a descriptor belongs to the message whose bytes it came with.
static ssize_t read_some(struct vhost_message *message, int fd, void *to, size_t len_bytes)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(VHOST_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = to, .iov_len = len_bytes};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    ssize_t n;
    do
        n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    int ret = keep_fds(message, &msg);
    if (ret < 0)
        return ret;
    return n == 0 ? -ECONNRESET : n;
}

static int check_header(const struct vhost_header *header, struct tv_error *err)
{
    if ((header->flags & VHOST_VERSION_MASK) != VHOST_VERSION)
        return tv_error_set(err, -EPROTO, "message %u: version %u of the protocol, not %u", header->request,
                            header->flags & VHOST_VERSION_MASK, VHOST_VERSION);
    if (header->size_bytes > sizeof(union vhost_payload))
        return tv_error_set(err, -EPROTO, "message %u (%s): a payload of %u bytes", header->request,
                            vhost_request_name(header->request), header->size_bytes);
    return 0;
}

int vhost_receive(struct vhost_receiver *rx, int fd, struct tv_error *err)
{
    struct vhost_message *message = &rx->message;
    const size_t head = sizeof(message->header);
    for (;;) {
        bool in_head = rx->got_bytes < head;
        size_t whole = in_head ? head : head + message->header.size_bytes;
        if (rx->got_bytes == whole) // cannot be in the head
            return 1;
        uint8_t *to = in_head ? (uint8_t *)&message->header + rx->got_bytes : (uint8_t *)&message->payload + (rx->got_bytes - head);
        ssize_t n = read_some(message, fd, to, whole - rx->got_bytes);
        if (n == -EAGAIN)
            return 0;
        if (n < 0)
            return tv_error_set(err, (int)n, "%s",
                                n == -ECONNRESET ? "the other end closed the connection"
                                : n == -EPROTO   ? "more descriptors than a message may carry"
                                                 : strerror((int)-n));
        rx->got_bytes += (size_t)n;
        if (rx->got_bytes == head && check_header(&message->header, err) < 0)
            return -EPROTO;
    }
}

int vhost_send(int fd, uint32_t request, uint32_t flags, const void *payload, size_t size_bytes, const int *fds, unsigned n_fds)
{
    struct vhost_header header = {.request = request, .flags = flags | VHOST_VERSION, .size_bytes = (uint32_t)size_bytes};
    struct iovec iov[2] = {{.iov_base = &header, .iov_len = sizeof(header)}, {.iov_base = (void *)payload, .iov_len = size_bytes}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = size_bytes > 0 ? 2 : 1};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(VHOST_FDS_MAX * sizeof(int))];
    } control;
    if (n_fds > 0) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    ssize_t n;
    do
        n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    // A local stream socket takes so little at once or not at all.
    return (size_t)n == sizeof(header) + size_bytes ? 0 : -EIO;
}

enum payload_kind {
    PAYLOAD_NONE,
    PAYLOAD_U64,
    PAYLOAD_STATE,
    PAYLOAD_ADDR,
    PAYLOAD_TABLE,
    PAYLOAD_REGION,
    PAYLOAD_CONFIG,
    PAYLOAD_LOG,
    PAYLOAD_INFLIGHT
};
enum fds_kind { FDS_NONE, FDS_ONE, FDS_MAYBE_ONE, FDS_VRING, FDS_TABLE };

#define ALWAYS (-1)
struct request_rule {
    const char *name;
    enum payload_kind payload;
    enum fds_kind fds;
    int feature; // of the protocol, or ALWAYS
    bool has_reply;
};

static const struct request_rule rules[VHOST_REQUESTS_END] = {
    [VHOST_GET_FEATURES] = {"GET_FEATURES", PAYLOAD_NONE, FDS_NONE, ALWAYS, true},
    [VHOST_SET_FEATURES] = {"SET_FEATURES", PAYLOAD_U64, FDS_NONE, ALWAYS, false},
    [VHOST_SET_OWNER] = {"SET_OWNER", PAYLOAD_NONE, FDS_NONE, ALWAYS, false},
    [VHOST_RESET_OWNER] = {"RESET_OWNER", PAYLOAD_NONE, FDS_NONE, ALWAYS, false},
    [VHOST_SET_MEM_TABLE] = {"SET_MEM_TABLE", PAYLOAD_TABLE, FDS_TABLE, ALWAYS, false},
    // "the log memory fd is provided in the ancillary data"; and there is a reply of its own then
    [VHOST_SET_LOG_BASE] = {"SET_LOG_BASE", PAYLOAD_LOG, FDS_ONE, VHOST_PROTOCOL_LOG_SHMFD, true},
    [VHOST_SET_LOG_FD] = {"SET_LOG_FD", PAYLOAD_NONE, FDS_ONE, ALWAYS, false},
    [VHOST_SET_VRING_NUM] = {"SET_VRING_NUM", PAYLOAD_STATE, FDS_NONE, ALWAYS, false},
    [VHOST_SET_VRING_ADDR] = {"SET_VRING_ADDR", PAYLOAD_ADDR, FDS_NONE, ALWAYS, false},
    [VHOST_SET_VRING_BASE] = {"SET_VRING_BASE", PAYLOAD_STATE, FDS_NONE, ALWAYS, false},
    [VHOST_GET_VRING_BASE] = {"GET_VRING_BASE", PAYLOAD_STATE, FDS_NONE, ALWAYS, true},
    [VHOST_SET_VRING_KICK] = {"SET_VRING_KICK", PAYLOAD_U64, FDS_VRING, ALWAYS, false},
    [VHOST_SET_VRING_CALL] = {"SET_VRING_CALL", PAYLOAD_U64, FDS_VRING, ALWAYS, false},
    [VHOST_SET_VRING_ERR] = {"SET_VRING_ERR", PAYLOAD_U64, FDS_VRING, ALWAYS, false},
    [VHOST_GET_PROTOCOL_FEATURES] = {"GET_PROTOCOL_FEATURES", PAYLOAD_NONE, FDS_NONE, ALWAYS, true},
    [VHOST_SET_PROTOCOL_FEATURES] = {"SET_PROTOCOL_FEATURES", PAYLOAD_U64, FDS_NONE, ALWAYS, false},
    [VHOST_GET_QUEUE_NUM] = {"GET_QUEUE_NUM", PAYLOAD_NONE, FDS_NONE, VHOST_PROTOCOL_MQ, true},
    [VHOST_SET_VRING_ENABLE] = {"SET_VRING_ENABLE", PAYLOAD_STATE, FDS_NONE, ALWAYS, false},
    [VHOST_SEND_RARP] = {"SEND_RARP", PAYLOAD_U64, FDS_NONE, VHOST_PROTOCOL_RARP, false},
    [VHOST_NET_SET_MTU] = {"NET_SET_MTU", PAYLOAD_U64, FDS_NONE, VHOST_PROTOCOL_NET_MTU, false},
    [VHOST_SET_BACKEND_REQ_FD] = {"SET_BACKEND_REQ_FD", PAYLOAD_NONE, FDS_ONE, VHOST_PROTOCOL_BACKEND_REQ, false},
    [VHOST_GET_CONFIG] = {"GET_CONFIG", PAYLOAD_CONFIG, FDS_NONE, VHOST_PROTOCOL_CONFIG, true},
    [VHOST_SET_CONFIG] = {"SET_CONFIG", PAYLOAD_CONFIG, FDS_NONE, VHOST_PROTOCOL_CONFIG, false},
    [VHOST_GET_INFLIGHT_FD] = {"GET_INFLIGHT_FD", PAYLOAD_INFLIGHT, FDS_NONE, VHOST_PROTOCOL_INFLIGHT_SHMFD, true},
    [VHOST_SET_INFLIGHT_FD] = {"SET_INFLIGHT_FD", PAYLOAD_INFLIGHT, FDS_ONE, VHOST_PROTOCOL_INFLIGHT_SHMFD, false},
    [VHOST_RESET_DEVICE] = {"RESET_DEVICE", PAYLOAD_NONE, FDS_NONE, VHOST_PROTOCOL_RESET_DEVICE, false},
    [VHOST_GET_MAX_MEM_SLOTS] = {"GET_MAX_MEM_SLOTS", PAYLOAD_NONE, FDS_NONE, VHOST_PROTOCOL_CONFIGURE_MEM_SLOTS, true},
    [VHOST_ADD_MEM_REG] = {"ADD_MEM_REG", PAYLOAD_REGION, FDS_ONE, VHOST_PROTOCOL_CONFIGURE_MEM_SLOTS, false},
    // "the back-end MAY accept messages with one file descriptor", for front ends that send one
    [VHOST_REM_MEM_REG] = {"REM_MEM_REG", PAYLOAD_REGION, FDS_MAYBE_ONE, VHOST_PROTOCOL_CONFIGURE_MEM_SLOTS, false},
    [VHOST_SET_STATUS] = {"SET_STATUS", PAYLOAD_U64, FDS_NONE, VHOST_PROTOCOL_STATUS, false},
    [VHOST_GET_STATUS] = {"GET_STATUS", PAYLOAD_NONE, FDS_NONE, VHOST_PROTOCOL_STATUS, true},
};

static const struct request_rule *rule_of(uint32_t request)
{
    return request < VHOST_REQUESTS_END && rules[request].name ? &rules[request] : NULL;
}

const char *vhost_request_name(uint32_t request)
{
    const struct request_rule *rule = rule_of(request);
    return rule ? rule->name : "?";
}

bool vhost_request_has_reply(uint32_t request)
{
    const struct request_rule *rule = rule_of(request);
    return rule && rule->has_reply;
}

static bool size_is_right(const struct vhost_message *message, enum payload_kind kind)
{
    size_t size = message->header.size_bytes;
    const union vhost_payload *payload = &message->payload;
    switch (kind) {
    case PAYLOAD_NONE:
        return size == 0;
    case PAYLOAD_U64:
        return size == sizeof(payload->u64);
    case PAYLOAD_STATE:
        return size == sizeof(payload->state);
    case PAYLOAD_ADDR:
        return size == sizeof(payload->addr);
    case PAYLOAD_TABLE: // some front ends send all eight places, filled or not
        return size >= offsetof(struct vhost_mem_table, regions) && payload->memory.n_regions <= VHOST_TABLE_REGIONS_MAX &&
               size >= offsetof(struct vhost_mem_table, regions) + payload->memory.n_regions * sizeof(struct vhost_region);
    case PAYLOAD_REGION:
        return size == sizeof(payload->region);
    case PAYLOAD_CONFIG:
        return size >= VHOST_CONFIG_HEAD && payload->config.size_bytes <= VHOST_CONFIG_MAX &&
               size == VHOST_CONFIG_HEAD + payload->config.size_bytes && payload->config.offset <= VHOST_CONFIG_MAX &&
               payload->config.offset + payload->config.size_bytes <= VHOST_CONFIG_MAX;
    case PAYLOAD_LOG:
        return size == sizeof(payload->log);
    case PAYLOAD_INFLIGHT:
        return size == VHOST_INFLIGHT_HEAD || size == sizeof(payload->inflight);
    }
    return false;
}

static bool fds_are_right(const struct vhost_message *message, enum fds_kind kind)
{
    switch (kind) {
    case FDS_NONE:
        return message->n_fds == 0;
    case FDS_ONE:
        return message->n_fds == 1;
    case FDS_MAYBE_ONE:
        return message->n_fds <= 1;
    case FDS_VRING:
        return (message->payload.u64 & ~(uint64_t)(VHOST_VRING_INDEX_MASK | VHOST_VRING_NO_FD)) == 0 &&
               message->n_fds == (message->payload.u64 & VHOST_VRING_NO_FD ? 0 : 1);
    case FDS_TABLE:
        return message->n_fds == message->payload.memory.n_regions;
    }
    return false;
}

int vhost_check_request(const struct vhost_message *message, uint64_t protocol_features, struct tv_error *err)
{
    const struct vhost_header *header = &message->header;
    const struct request_rule *rule = rule_of(header->request);
    if (!rule)
        return tv_error_set(err, -EPROTO, "request %u is not known", header->request);
    if (header->flags & VHOST_REPLY)
        return tv_error_set(err, -EPROTO, "%s: a reply where a request should be", rule->name);
    if (rule->feature != ALWAYS && !(protocol_features >> rule->feature & 1))
        return tv_error_set(err, -EPROTO, "%s: its protocol feature (bit %d) was not negotiated", rule->name, rule->feature);
    if (!size_is_right(message, rule->payload))
        return tv_error_set(err, -EPROTO, "%s: a payload of %u bytes does not fit its contents", rule->name, header->size_bytes);
    if (!fds_are_right(message, rule->fds))
        return tv_error_set(err, -EPROTO, "%s: %u descriptors came with it", rule->name, message->n_fds);
    return 0;
}
