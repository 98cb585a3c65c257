// What a machine's memory must be: see vhost_memory.h.
#include "router/port/vhost_memory.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

// vhost-user protocol, "Front-end message types".
enum {
    SET_MEM_TABLE = 5,
    SET_LOG_BASE = 6,
    GET_INFLIGHT_FD = 31,
    SET_INFLIGHT_FD = 32,
    ADD_MEM_REG = 37,
};

// What the library hands over, and no public header has: `struct vhu_msg_context` of DPDK 22.11's lib/vhost/vhost_user.h, which
// meson.build holds us to. The largest payload there is VhostUserCryptoSessionParam. tests/system/router_vhost.py notices when
// the descriptors are elsewhere, and so does check_fds(): what is no descriptor has no seals.
enum { PAYLOAD_BYTES = 632, FDS_MAX = 8 };
struct message {
    uint32_t request, flags, size_bytes;
    uint8_t payload[PAYLOAD_BYTES];
    int fds[FDS_MAX];
    int n_fds;
};

static bool is_sealed(int fd)
{
    const int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK);
}

static const char *check_fds(const struct message *message, bool unsealed)
{
    if (message->n_fds < 1 || message->n_fds > FDS_MAX)
        return "memory comes with 1 to 8 descriptors";
    for (int i = 0; i < message->n_fds && !unsealed; i++)
        if (!is_sealed(message->fds[i]))
            return "memory must be a memfd with F_SEAL_SHRINK (QEMU: memory-backend-memfd with seal=on, its default), or the port "
                   "have \"unsealed\": true";
    return NULL;
}

static const char *check(const struct message *message, bool unsealed)
{
    switch (message->request) {
    case SET_MEM_TABLE:
    case SET_LOG_BASE:
    case ADD_MEM_REG:
        return check_fds(message, unsealed);
    case GET_INFLIGHT_FD:
    case SET_INFLIGHT_FD:
        return "networks keep no buffer for requests in flight";
    default:
        return NULL;
    }
}

bool vhost_memory_refuses(void *message, const char *socket, bool unsealed)
{
    struct message *m = message;
    const char *why = check(m, unsealed);
    if (!why)
        return false;
    for (int i = 0; i < m->n_fds && i < FDS_MAX; i++) {
        if (m->fds[i] >= 0)
            close(m->fds[i]);
        m->fds[i] = -1;
    }
    log_event(LOG_WARN, "router", "a machine is refused", LOG_STR("socket", socket), LOG_STR("why", why));
    return true;
}
