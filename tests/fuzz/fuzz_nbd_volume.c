// An NBD server that says anything to a volume that has asked for some things: nothing is written but what was asked for, and all
// of it is answered in the end.
//
// clang -fsanitize=fuzzer,address,undefined -Isrc tests/fuzz/fuzz_nbd_volume.c and the libraries store and base
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "store/volume/nbd_private.h"

#define BYTES (1u << 20)
#define OPS 8u

struct asked {
    struct volume_request request;
    struct nbd_op context;
    struct iovec iov[2];
    uint8_t *memory;
    bool is_done;
};

static struct volume_env env;

static void on_done(struct volume_request *request, int result)
{
    struct asked *asked = (struct asked *)request;
    if (asked->is_done)
        abort();
    asked->is_done = true;
    memset(&asked->context, 0xab, sizeof(asked->context)); // the asker's again, as its memory is
    free(asked->memory);
    if (!result && request->op == VOLUME_STATUS && (!request->extent.len_bytes || request->extent.len_bytes > request->len_bytes))
        abort();
}

static void set_up(void)
{
    struct loop *loop = loop_create(NULL);
    struct io_engine *io = loop ? io_create(loop, &(struct io_config){.depth = 8, .no_uring = true}, NULL) : NULL;
    log_configure(LOG_ERROR, false);
    if (!io || volume_env_init(&env, loop, io, NULL))
        abort();
}

static void ask(struct nbd_volume *n, struct asked *asked, unsigned i)
{
    static const enum volume_op ops[OPS] = {VOLUME_READ,  VOLUME_STATUS, VOLUME_READ, VOLUME_FLUSH,
                                            VOLUME_WRITE, VOLUME_ZERO,   VOLUME_READ, VOLUME_DISCARD};
    const uint32_t len = ops[i] == VOLUME_FLUSH ? 0 : 512u << (i == 6 ? 8 : i);
    asked->memory = malloc(len + 1);
    asked->iov[0] = (struct iovec){asked->memory, len / 4};
    asked->iov[1] = (struct iovec){asked->memory + len / 4, len - len / 4};
    asked->request = (struct volume_request){
        .op = ops[i],
        .offset_bytes = len ? 4096u * i : 0,
        .len_bytes = len,
        .data = {.iov = asked->iov, .n_iov = 2},
        .done = on_done,
        .context = &asked->context,
    };
    nbd_client_start(&n->volume, &asked->request);
}

static void discard_what_was_sent(int fd)
{
    uint8_t bytes[65536];
    while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct nbd_volume n;
    static struct asked asked[OPS];
    const char *why = NULL;
    int pair[2];
    if (!env.loop)
        set_up();
    if (!size || size > 200000 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair))
        return 0;
    memset(&n, 0, sizeof(n));
    memset(asked, 0, sizeof(asked));
    n.volume.env = &env;
    n.terms = (struct nbd_terms){.size_bytes = BYTES,
                                 .flags = NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_TRIM | (data[0] & 4 ? NBD_FLAG_SEND_WRITE_ZEROES : 0),
                                 .block_bytes = 512,
                                 .payload_max_bytes = data[0] & 8 ? 4096 : NBD_PAYLOAD_DEFAULT,
                                 .is_structured = data[0] & 1,
                                 .has_context = data[0] & 2};
    n.in = malloc(NBD_IN_BYTES);
    n.fd = pair[0];
    nbd_client_init_queues(&n);
    if (data[0] & 16) // not all that is asked goes out at once
        setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &(int){4096}, sizeof(int));
    for (unsigned i = 0; i < OPS; i++)
        ask(&n, &asked[i], i);
    volume_env_deliver(&env);
    for (size_t at = 1; at < size;) { // in pieces, as much as fits
        const size_t piece = size - at < 1u + data[0] * 64u ? size - at : 1u + data[0] * 64u;
        if (send(pair[1], data + at, piece, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 || nbd_client_receive(&n, &why) < 0)
            break;
        at += piece;
        nbd_client_give_waiting(&n);
        volume_env_deliver(&env);
        if (data[0] & 32)
            discard_what_was_sent(pair[1]);
        nbd_client_send(&n);
    }
    nbd_client_take_back(&n);
    nbd_client_fail_all(&n, -5);
    volume_end_never(&env, &n.ender);
    while (volume_env_deliver(&env))
        ;
    for (unsigned i = 0; i < OPS; i++)
        if (!asked[i].is_done)
            abort();
    free(n.in);
    close(pair[0]);
    close(pair[1]);
    return 0;
}
