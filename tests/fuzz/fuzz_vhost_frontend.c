// A front end and a back end that answers whatever the input says: right answers with any values, wrong ones, descriptors nobody
// asked for, requests of its own, an early end. An odd length of the input makes it a network's. The front end must survive, tell,
// and keep no descriptor.
//
// clang -fsanitize=fuzzer,address,undefined -Isrc tests/fuzz/fuzz_vhost_frontend.c and the libraries vhost and base
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "vhost/protocol.h"
#include "vhost/vhost.h"

#define RAM 0x80000000ull
#define RAM_BYTES 65536u

struct peer {
    int fd, request_fd;
    const uint8_t *data;
    size_t size;
};

static uint8_t next(struct peer *peer)
{
    if (peer->size == 0)
        return 0;
    peer->size--;
    return *peer->data++;
}

static void fill(struct peer *peer, void *to, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)to)[i] = next(peer);
}

static void answer(struct peer *peer, const struct vhost_message *message)
{
    uint8_t how = next(peer);
    union vhost_payload payload = message->payload;
    uint32_t request = message->header.request;
    size_t size = message->header.size_bytes;
    int fds[VHOST_FDS_MAX];
    unsigned n_fds = request == VHOST_GET_INFLIGHT_FD;
    if (request == VHOST_GET_FEATURES)
        payload.u64 = how & 1 ? 1ull << 32 | 7ull << 28 | 1ull << VHOST_F_LOG_ALL : next(peer) * 0x0101010101010101ull;
    else if (request == VHOST_GET_PROTOCOL_FEATURES)
        payload.u64 = how & 1 ? VHOST_PROTOCOL_FEATURES | VHOST_NET_PROTOCOL_FEATURES : next(peer) * 0x0101010101010101ull;
    else if (request == VHOST_GET_INFLIGHT_FD)
        payload.inflight.mmap_size = 65536;
    else if (!vhost_request_has_reply(request) || size == 0)
        payload.u64 = how & 2 ? next(peer) : vhost_request_has_reply(request);
    if (size == 0 || !vhost_request_has_reply(request))
        size = 8;
    if (how > 200) { // nonsense
        request = how & 4 ? next(peer) : request;
        size = how & 8 ? next(peer) : size;
        n_fds = how & 16 ? next(peer) % (VHOST_FDS_MAX + 1) : n_fds;
        fill(peer, &payload, size);
    }
    for (unsigned i = 0; i < n_fds; i++)
        fds[i] = eventfd(0, EFD_CLOEXEC); // not our end of the socket: the front end would keep its own peer alive
    vhost_send(peer->fd, request, VHOST_REPLY, &payload, size, fds, n_fds);
    for (unsigned i = 0; i < n_fds; i++)
        close(fds[i]);
    if (peer->request_fd >= 0 && how % 5 == 0) // says something of its own
        vhost_send(peer->request_fd, how % 2 ? next(peer) : VHOST_BACKEND_CONFIG_CHANGE, how & 8, &payload,
                   how % 3 ? 0 : next(peer), NULL, 0);
}

static void *peer_thread(void *arg)
{
    struct peer *peer = arg;
    struct vhost_receiver rx;
    vhost_receiver_init(&rx);
    while (peer->size > 0) {
        struct pollfd p = {.fd = peer->fd, .events = POLLIN};
        int ret = vhost_receive(&rx, peer->fd, NULL);
        if (ret < 0)
            break;
        if (ret == 0) {
            poll(&p, 1, -1);
            continue;
        }
        if (rx.message.header.request == VHOST_SET_BACKEND_REQ_FD && peer->request_fd < 0)
            peer->request_fd = vhost_message_take_fd(&rx.message, 0);
        if ((rx.message.header.flags & VHOST_NEED_REPLY) || vhost_request_has_reply(rx.message.header.request))
            answer(peer, &rx.message);
        vhost_message_clear(&rx);
    }
    vhost_message_clear(&rx);
    if (peer->request_fd >= 0)
        close(peer->request_fd);
    close(peer->fd);
    return NULL;
}

static void drive(struct vhost_frontend *fe, struct loop *loop, int event_fd)
{
    uint8_t bytes[16] = {0};
    uint64_t pages[RAM_BYTES / 4096 / 64 + 1] = {0};
    struct vhost_frontend_queue queue = {.size = 16,
                                         .desc_addr = RAM,
                                         .avail_addr = RAM + 0x1000,
                                         .used_addr = RAM + 0x2000,
                                         .kick_fd = event_fd,
                                         .call_fd = event_fd};
    vhost_frontend_set_features(fe, vhost_frontend_features(fe), NULL);
    for (unsigned i = 0; i < 2; i++)
        vhost_frontend_start_queue(fe, i, &queue, NULL);
    vhost_frontend_set_status(fe, 15);
    vhost_frontend_start_log(fe, NULL);
    vhost_frontend_config_read(fe, 0, bytes, sizeof(bytes));
    vhost_frontend_config_write(fe, 0, bytes, sizeof(bytes));
    vhost_frontend_enable_queue(fe, 1, false);
    vhost_frontend_send_rarp(fe, bytes);
    loop_run_once(loop, 0);
    struct state *s = state_create_save();
    vhost_frontend_state(fe, s);
    state_destroy(s);
    vhost_frontend_resume(fe, NULL);
    vhost_frontend_stop_queue(fe, 0);
    vhost_frontend_take_log(fe, 0, pages, sizeof(pages) / sizeof(pages[0]));
    vhost_frontend_stop_log(fe);
    vhost_frontend_start_log(fe, NULL); // the next one gets it as well
    loop_run_once(loop, 0);
    if (vhost_frontend_max_queues(fe) == 0 || vhost_frontend_max_queues(fe) > 2)
        abort();
}

static int lowest_fd(void)
{
    int fd = dup(STDIN_FILENO);
    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct guest_memory mem;
    if (mem.n_regions == 0) {
        log_configure(LOG_ERROR, false);
        guest_memory_add(&mem, RAM, RAM_BYTES, guest_ram_create("fuzz", RAM_BYTES, NULL), 0, 0, NULL);
    }
    int before = lowest_fd();
    struct loop *loop = loop_create(NULL);
    int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct vhost_frontend_config config = {
        .loop = loop, .mem = &mem, .n_queues = 2, .config_len_bytes = 16, .is_net = size % 2, .mtu_bytes = size % 2 ? 1500 : 0};
    struct vhost_frontend *fe = vhost_frontend_create(&config, NULL);
    struct tv_error err = {0};
    // Two back ends in turn, each with half of the input: the second meets what the first has promised.
    for (unsigned i = 0; i < 2; i++) {
        int fds[2];
        pthread_t thread;
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
            abort();
        struct peer peer = {.fd = fds[1], .request_fd = -1, .data = data + i * (size / 2), .size = size / 2};
        if (pthread_create(&thread, NULL, peer_thread, &peer) != 0)
            abort();
        int ours = dup(fds[0]);
        int ret = vhost_frontend_attach(fe, fds[0], &err);
        if (ret < 0 && (err.code != ret || vhost_frontend_is_attached(fe)))
            abort();
        drive(fe, loop, event_fd);
        shutdown(ours, SHUT_RDWR); // wakes the peer
        close(ours);
        pthread_join(thread, NULL);
    }
    vhost_frontend_destroy(fe);
    loop_destroy(loop);
    close(event_fd);
    if (lowest_fd() != before)
        abort();
    return 0;
}
