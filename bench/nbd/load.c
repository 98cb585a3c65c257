// Load for an NBD server over one connection, as much as it takes: a program of the benchmark. One thread; keeps `depth` requests
// outstanding, takes all replies that are there by one receive and sends as many new requests by one send, and looks at nothing but
// the heads, so that the server is the bottleneck. Replies may come in any order. Prints one object of JSON.
//
//   nbd_load --socket PATH|--port N [--export NAME] [--pattern randread|randwrite|read|write] [--size N] [--depth N] [--seconds N]
//   [--structured]
#include "base/clock.h"
#include "base/histogram.h"
#include "store/nbd/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define DEPTH_MAX 128u
#define INPUT_BYTES (1u << 20)
#define WARM_UP_NS 200000000u

struct load {
    const char *socket, *export, *pattern;
    unsigned port, size_bytes, depth, seconds;
    int structured, is_write, is_random;
    int fd;
    uint64_t export_bytes, next_block, random;
    uint64_t sent_ns[DEPTH_MAX];
    uint8_t heads[DEPTH_MAX][NBD_REQUEST_BYTES];
    uint8_t *data, *input;
    size_t in_len;
    uint64_t skip_bytes; // of a reply's data
    unsigned free[DEPTH_MAX], n_free;
    uint64_t n_done, n_failed;
    struct histogram latency;
};

static void fail(const char *what)
{
    fprintf(stderr, "nbd_load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

// ---- connecting ----

static void receive_all(int fd, void *to, size_t len)
{
    if (recv(fd, to, len, MSG_WAITALL) != (ssize_t)len)
        fail("the server closed the connection");
}

static void send_all(int fd, const void *from, size_t len)
{
    if (send(fd, from, len, MSG_NOSIGNAL) != (ssize_t)len)
        fail("send");
}

static int connect_to(const struct load *load)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_port = htons((uint16_t)load->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int one = 1, bytes = 1 << 20;
    int fd = socket(load->socket ? AF_UNIX : AF_INET, SOCK_STREAM, 0), r;
    if (load->socket) {
        snprintf(local.sun_path, sizeof(local.sun_path), "%s", load->socket);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
        r = connect(fd, (struct sockaddr *)&local, sizeof(local));
    } else {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        r = connect(fd, (struct sockaddr *)&tcp, sizeof(tcp));
    }
    if (r)
        fail("connect");
    return fd;
}

static void ask(struct load *load, uint32_t type, const uint8_t *data, uint32_t len)
{
    uint8_t head[NBD_OPTION_BYTES];
    nbd_put_option(head, (struct nbd_option){type, len});
    send_all(load->fd, head, sizeof(head));
    if (len)
        send_all(load->fd, data, len);
    for (;;) {
        uint8_t answer[NBD_OPTION_REPLY_BYTES], rest[4096];
        struct nbd_option_reply reply;
        struct nbd_info info;
        receive_all(load->fd, answer, sizeof(answer));
        if (nbd_get_option_reply(answer, &reply) || reply.type & NBD_REP_ERROR || reply.len_bytes > sizeof(rest))
            fail("the server refused an option");
        if (reply.len_bytes)
            receive_all(load->fd, rest, reply.len_bytes);
        if (reply.type == NBD_REP_ACK)
            return;
        if (reply.type == NBD_REP_INFO && !nbd_get_info(rest, reply.len_bytes, &info) && info.type == NBD_INFO_EXPORT)
            load->export_bytes = info.export.size_bytes;
    }
}

static void start(struct load *load)
{
    uint8_t bytes[512];
    uint16_t flags;
    const uint16_t wanted = NBD_INFO_BLOCK_SIZE;
    load->fd = connect_to(load);
    receive_all(load->fd, bytes, NBD_GREETING_BYTES);
    if (nbd_get_greeting(bytes, &flags))
        fail("not an NBD server");
    nbd_put_client_flags(bytes, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    send_all(load->fd, bytes, NBD_CLIENT_FLAGS_BYTES);
    if (load->structured)
        ask(load, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    const struct nbd_string name = {load->export, (uint32_t)strlen(load->export)};
    const int len = nbd_put_go(bytes, sizeof(bytes), name, &wanted, 1);
    if (len < 0)
        fail("the export's name is too long");
    ask(load, NBD_OPT_GO, bytes, (uint32_t)len);
}

// ---- load ----

static uint64_t next_offset(struct load *load)
{
    const uint64_t blocks = load->export_bytes / load->size_bytes;
    if (!load->is_random)
        return load->next_block++ % blocks * load->size_bytes;
    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    return load->random % blocks * load->size_bytes;
}

static void send_vector(struct load *load, struct iovec *iov, unsigned n)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = n};
    while (message.msg_iovlen) {
        ssize_t r = sendmsg(load->fd, &message, MSG_NOSIGNAL);
        if (r < 0)
            fail("send");
        while (message.msg_iovlen && (size_t)r >= message.msg_iov->iov_len) {
            r -= (ssize_t)message.msg_iov->iov_len;
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (message.msg_iovlen) {
            message.msg_iov->iov_base = (uint8_t *)message.msg_iov->iov_base + r;
            message.msg_iov->iov_len -= (size_t)r;
        }
    }
}

static void send_requests(struct load *load)
{
    struct iovec iov[2 * DEPTH_MAX];
    unsigned n = 0;
    const uint64_t now_ns = clock_now_ns();
    while (load->n_free) {
        const unsigned i = load->free[--load->n_free];
        const struct nbd_request request = {
            .type = load->is_write ? NBD_CMD_WRITE : NBD_CMD_READ,
            .cookie = i,
            .offset_bytes = next_offset(load),
            .len_bytes = load->size_bytes,
        };
        nbd_put_request(load->heads[i], &request);
        load->sent_ns[i] = now_ns;
        iov[n++] = (struct iovec){load->heads[i], NBD_REQUEST_BYTES};
        if (load->is_write)
            iov[n++] = (struct iovec){load->data + (size_t)i * load->size_bytes, load->size_bytes};
    }
    if (n)
        send_vector(load, iov, n);
}

static void take_done(struct load *load, uint64_t cookie, uint64_t now_ns)
{
    if (cookie >= load->depth)
        fail("a cookie that was not sent");
    load->n_done++;
    load->free[load->n_free++] = (unsigned)cookie;
    histogram_add(&load->latency, now_ns - load->sent_ns[cookie]);
}

static size_t take_reply(struct load *load, const uint8_t *at, size_t there, uint64_t now_ns)
{
    struct nbd_reply reply;
    const int head = nbd_get_reply(at, there, &reply);
    if (head < 0)
        fail("not a reply");
    if (!head)
        return 0;
    load->n_failed += reply.error || reply.type & 1u << 15;
    load->skip_bytes = reply.is_structured ? reply.len_bytes : !reply.error && !load->is_write ? load->size_bytes : 0;
    if (!reply.is_structured || reply.flags & NBD_REPLY_FLAG_DONE)
        take_done(load, reply.cookie, now_ns);
    return (size_t)head;
}

static void receive_replies(struct load *load)
{
    const ssize_t n = recv(load->fd, load->input + load->in_len, INPUT_BYTES - load->in_len, 0);
    if (n <= 0)
        fail("the server closed the connection");
    const uint64_t now_ns = clock_now_ns();
    size_t at = 0, end = load->in_len + (size_t)n;
    for (;;) {
        const size_t skipped = load->skip_bytes < end - at ? load->skip_bytes : end - at;
        at += skipped;
        load->skip_bytes -= skipped;
        const size_t taken = load->skip_bytes ? 0 : take_reply(load, load->input + at, end - at, now_ns);
        if (!taken)
            break;
        at += taken;
    }
    memmove(load->input, load->input + at, end - at);
    load->in_len = end - at;
}

static void run_until(struct load *load, uint64_t end_ns)
{
    while (clock_now_ns() < end_ns) {
        send_requests(load);
        receive_replies(load);
    }
}

// Takes what is still to come and says good-bye, as peers want it that would complain or worse.
static void finish(struct load *load)
{
    const struct nbd_request request = {.type = NBD_CMD_DISC};
    while (load->n_free < load->depth)
        receive_replies(load);
    nbd_put_request(load->heads[0], &request);
    send_all(load->fd, load->heads[0], NBD_REQUEST_BYTES);
    while (recv(load->fd, load->input, INPUT_BYTES, 0) > 0) {
    }
    close(load->fd);
}

static void parse(struct load *load, int argc, char **argv)
{
    static const struct option longs[] = {
        {"socket", 1, NULL, 's'},  {"port", 1, NULL, 'p'},       {"export", 1, NULL, 'e'},
        {"pattern", 1, NULL, 'P'}, {"size", 1, NULL, 'b'},       {"depth", 1, NULL, 'd'},
        {"seconds", 1, NULL, 't'}, {"structured", 0, NULL, 'S'}, {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        const unsigned number = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 0;
        switch (option) {
        case 's':
            load->socket = optarg;
            break;
        case 'p':
            load->port = number;
            break;
        case 'e':
            load->export = optarg;
            break;
        case 'P':
            load->pattern = optarg;
            break;
        case 'b':
            load->size_bytes = number;
            break;
        case 'd':
            load->depth = number;
            break;
        case 't':
            load->seconds = number;
            break;
        case 'S':
            load->structured = 1;
            break;
        default:
            exit(2);
        }
    }
    load->is_random = !strncmp(load->pattern, "rand", 4);
    load->is_write = strstr(load->pattern, "write") != NULL;
    if ((!load->socket && !load->port) || !load->depth || load->depth > DEPTH_MAX || !load->size_bytes || !load->seconds)
        fail("--socket or --port is needed, and a depth of 1 to 128");
}

int main(int argc, char **argv)
{
    static struct load load = {
        .export = "", .pattern = "randread", .size_bytes = 4096, .depth = 32, .seconds = 2, .random = 0x9e3779b97f4a7c15u};
    parse(&load, argc, argv);
    load.input = malloc(INPUT_BYTES);
    load.data = malloc((size_t)load.depth * load.size_bytes);
    if (!load.input || !load.data)
        fail("out of memory");
    memset(load.data, 0x5a, (size_t)load.depth * load.size_bytes);
    start(&load);
    if (load.export_bytes < load.size_bytes)
        fail("the export is too small");
    while (load.n_free < load.depth) {
        load.free[load.n_free] = load.n_free;
        load.n_free++;
    }
    run_until(&load, clock_now_ns() + WARM_UP_NS);
    memset(&load.latency, 0, sizeof(load.latency));
    load.n_done = 0;
    const uint64_t from_ns = clock_now_ns();
    run_until(&load, from_ns + load.seconds * NS_PER_S);
    const double seconds = (double)(clock_now_ns() - from_ns) / (double)NS_PER_S, iops = (double)load.n_done / seconds;
    printf("{\"iops\": %.0f, \"mb_per_s\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"errors\": %llu}\n", iops,
           iops * load.size_bytes / 1e6, (double)histogram_percentile(&load.latency, 500) / 1e3,
           (double)histogram_percentile(&load.latency, 990) / 1e3, (unsigned long long)load.n_failed);
    finish(&load);
    return load.n_failed ? 1 : 0;
}
