// Any bytes from an NBD client, before and after the choice of an export: the server answers with what the protocol knows, and when
// the client has gone nothing of it is left. Input: a byte of flags (bit 0: the export is chosen already; 1: with structured
// replies and base:allocation; 2: the read-only one; 3: the bytes come in small pieces), then what the client sends.
#include "base/log.h"
#include "store/front/nbd_private.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROUNDS_MAX 64
#define SMALL_PIECE 7u
#define OUTPUT_BYTES (8u << 20)
#define DISK_BYTES (4u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static struct store *store;
static struct nbd_listener listener;
static uint8_t *output;
static size_t output_len;

static void add_disk(const char *name, bool read_only)
{
    json_t *volume = json_pack("{s:s, s:i}", "type", "ram", "size_bytes", DISK_BYTES);
    const struct disk_config config = {
        .name = name, .volume = volume, .vhost = -1, .n_queues = 1, .nbd = true, .read_only = read_only};
    if (store_add_disk(store, &config, NULL, 0, NULL))
        abort();
    json_decref(volume);
}

static void set_up(void)
{
    static const struct store_config config = {.no_uring = true, .shadow_fd = -1, .verdicts_fd = -1};
    if (store)
        return;
    signal(SIGPIPE, SIG_IGN);
    log_configure(LOG_ERROR, false);
    loop = loop_create(NULL);
    store = store_create(loop, &config, NULL);
    add_disk("rw", false);
    add_disk("ro", true);
    store->nbd = nbd_server_create(store, NULL);
    listener.server = store->nbd;
    strcpy(listener.name, "fuzz");
    output = malloc(OUTPUT_BYTES);
}

static void take_output(int fd)
{
    for (ssize_t n; (n = recv(fd, output + output_len, OUTPUT_BYTES - output_len, MSG_DONTWAIT)) > 0;)
        output_len += (size_t)n;
}

static void run_loop(int fd)
{
    for (unsigned i = 0; i < ROUNDS_MAX && loop_run_once(loop, 0) > 0; i++)
        take_output(fd);
    take_output(fd);
}

// What the server does not take any more is given up.
static void say(int fd, const uint8_t *bytes, size_t len, size_t piece)
{
    for (size_t at = 0; at < len;) {
        const size_t n = len - at < piece ? len - at : piece;
        const ssize_t sent = send(fd, bytes + at, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return;
        if (sent < 0 && !loop_run_once(loop, 0))
            return;
        at += sent > 0 ? (size_t)sent : 0;
        run_loop(fd);
    }
}

static void say_option(int fd, uint32_t type, const uint8_t *data, uint32_t len)
{
    uint8_t head[NBD_OPTION_BYTES];
    nbd_put_option(head, (struct nbd_option){type, len});
    say(fd, head, sizeof(head), sizeof(head));
    say(fd, data, len, len + 1);
}

static void choose(int fd, bool structured, const char *name)
{
    uint8_t bytes[128];
    const struct nbd_string export = {name, 2}, context = {NBD_CONTEXT_ALLOCATION, sizeof(NBD_CONTEXT_ALLOCATION) - 1};
    nbd_put_client_flags(bytes, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    say(fd, bytes, NBD_CLIENT_FLAGS_BYTES, sizeof(bytes));
    if (structured) {
        say_option(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
        say_option(fd, NBD_OPT_SET_META_CONTEXT, bytes, (uint32_t)nbd_put_meta(bytes, sizeof(bytes), export, &context, 1));
    }
    say_option(fd, NBD_OPT_GO, bytes, (uint32_t)nbd_put_go(bytes, sizeof(bytes), export, NULL, 0));
    output_len = 0;
}

static void check_chunk(const struct nbd_reply *reply, const uint8_t *payload)
{
    struct nbd_string message;
    uint64_t offset = 0;
    uint32_t value = 0;
    unsigned n;
    switch (reply->type) {
    case NBD_REPLY_TYPE_NONE:
        assert(!reply->len_bytes && reply->flags == NBD_REPLY_FLAG_DONE);
        break;
    case NBD_REPLY_TYPE_OFFSET_DATA:
        assert(reply->len_bytes > NBD_CHUNK_DATA_BYTES);
        offset = nbd_get_chunk_data(payload);
        assert(offset < DISK_BYTES && reply->len_bytes - NBD_CHUNK_DATA_BYTES <= DISK_BYTES - offset);
        break;
    case NBD_REPLY_TYPE_OFFSET_HOLE:
        assert(reply->len_bytes == NBD_CHUNK_HOLE_BYTES);
        nbd_get_chunk_hole(payload, &offset, &value);
        assert(value && offset < DISK_BYTES && value <= DISK_BYTES - offset);
        break;
    case NBD_REPLY_TYPE_BLOCK_STATUS:
        assert(!nbd_get_chunk_status(payload, reply->len_bytes, &value, &n));
        break;
    case NBD_REPLY_TYPE_ERROR:
        assert(!nbd_get_chunk_error(payload, reply->len_bytes, reply->type, &value, &message, &offset));
        break;
    default:
        abort();
    }
}

// With structured replies what the server says can be understood without knowing what it was asked.
static void check_output(void)
{
    struct nbd_reply reply;
    for (size_t at = 0;;) {
        const int head = nbd_get_reply(output + at, output_len - at, &reply);
        assert(head >= 0);
        if (!head || reply.len_bytes > output_len - at - (size_t)head)
            return;
        at += (size_t)head;
        if (reply.is_structured)
            check_chunk(&reply, output + at);
        at += reply.len_bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fds[2];
    if (!size)
        return 0;
    set_up();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds))
        abort();
    const bool is_chosen = data[0] & 1, structured = data[0] & 2;
    output_len = 0;
    nbd_server_adopt(&listener, fds[0]);
    if (is_chosen)
        choose(fds[1], structured, data[0] & 4 ? "ro" : "rw");
    say(fds[1], data + 1, size - 1, data[0] & 8 ? SMALL_PIECE : size);
    run_loop(fds[1]);
    if (is_chosen && structured)
        check_output();
    close(fds[1]);
    for (unsigned i = 0; i < ROUNDS_MAX; i++)
        loop_run_once(loop, 0);
    assert(!store->nbd->half_open && !store->nbd->n_half_open);
    for (const struct disk *disk = store->disks; disk; disk = disk->next)
        assert(!nbd_export_of(disk)->conns && !nbd_export_of(disk)->in_flight && !disk->n_in_flight);
    return 0;
}
