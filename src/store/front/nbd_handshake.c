// The first phase of an NBD connection, from the greeting to the choice of an export: see nbd_private.h. What an option is answered
// with is in nbd_option.c.
//
// One option at a time is answered, and the next one only when the answer has been sent ("the client MUST NOT send any option until
// it has received a final reply"): so one buffer for replies will do, and a client that does not read gets no further.
#include "store/front/nbd_private.h"

#include <errno.h>
#include <string.h>

#define OPTION_DATA_MAX (16u << 10) // of an option that is understood
#define OPTION_SKIP_MAX (1u << 20)  // a longer one is no option

void nbd_handshake_begin(struct nbd_conn *c)
{
    nbd_put_greeting(c->output, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    c->out_len = NBD_GREETING_BYTES;
    nbd_handshake_event(c);
}

static void refuse(struct nbd_conn *c, const char *why)
{
    nbd_server_log_refusal(c->server, why);
    nbd_conn_fail(c);
}

static bool has_input(const struct nbd_conn *c, uint32_t len)
{
    return c->in_len - c->in_at >= len;
}

// "Client flags": an unknown one ends the connection.
static void take_flags(struct nbd_conn *c)
{
    const uint32_t flags = nbd_get_client_flags(c->input + c->in_at);
    if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
        refuse(c, "unknown client flags");
        return;
    }
    c->in_at += NBD_CLIENT_FLAGS_BYTES;
    c->is_fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
    c->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    c->phase = NBD_OPTIONS;
}

static void answer(struct nbd_conn *c, struct nbd_option option, const uint8_t *data)
{
    if (!c->is_fixed && option.type != NBD_OPT_EXPORT_NAME)
        refuse(c, "an option of fixed newstyle from a client that does not speak it");
    else if (nbd_option_answer(c, option, data))
        refuse(c, "the export that was asked for cannot be had, and the option has no answer for that");
    // Whoever could put something between the option and the handshake would have it taken for the client's.
    else if (c->phase == NBD_TLS && c->in_at != c->in_len)
        refuse(c, "something in clear behind STARTTLS");
}

// False: more is to come first.
static bool take_option(struct nbd_conn *c)
{
    struct nbd_option option;
    if (!has_input(c, NBD_OPTION_BYTES))
        return false;
    if (nbd_get_option(c->input + c->in_at, &option) || option.len_bytes > OPTION_SKIP_MAX) {
        refuse(c, "not an option of the protocol's");
        return false;
    }
    if (option.len_bytes > OPTION_DATA_MAX) {
        c->in_at += NBD_OPTION_BYTES;
        c->skip_bytes = option.len_bytes;
        if (option.type == NBD_OPT_EXPORT_NAME)
            refuse(c, "a name that is too long");
        else
            nbd_option_refuse(c, option.type, NBD_REP_ERR_TOO_BIG, "too much data");
        return true;
    }
    if (!has_input(c, NBD_OPTION_BYTES + option.len_bytes))
        return false;
    const uint8_t *data = c->input + c->in_at + NBD_OPTION_BYTES;
    c->in_at += NBD_OPTION_BYTES + option.len_bytes;
    answer(c, option, data);
    return true;
}

static void skip(struct nbd_conn *c)
{
    const uint32_t there = c->in_len - c->in_at, n = c->skip_bytes < there ? (uint32_t)c->skip_bytes : there;
    c->in_at += n;
    c->skip_bytes -= n;
}

static bool take_one(struct nbd_conn *c)
{
    skip(c);
    if (c->skip_bytes)
        return false;
    if (c->phase == NBD_OPTIONS)
        return take_option(c);
    if (!has_input(c, NBD_CLIENT_FLAGS_BYTES))
        return false;
    take_flags(c);
    return true;
}

static bool is_talking(const struct nbd_conn *c)
{
    return !c->is_dead && !c->is_ending && (c->phase == NBD_FLAGS || c->phase == NBD_OPTIONS);
}

static void parse(struct nbd_conn *c)
{
    while (is_talking(c) && !c->out_len && take_one(c))
        nbd_send(c);
    if (c->phase == NBD_TRANSMISSION)
        return; // what else is there are requests
    memmove(c->input, c->input + c->in_at, c->in_len - c->in_at);
    c->in_len -= c->in_at;
    c->in_at = 0;
}

// False: there was nothing. There is always room: an option that is not whole yet is shorter than the input.
static bool receive(struct nbd_conn *c)
{
    const struct iovec iov = {c->input + c->in_len, NBD_INPUT_BYTES - c->in_len};
    const ssize_t n = nbd_stream_receive(&c->stream, &iov, 1);
    if (n == -EAGAIN)
        return false;
    if (n <= 0) {
        nbd_conn_fail(c); // gone, which is its right
        return false;
    }
    c->in_len += (uint32_t)n;
    parse(c);
    return true;
}

static void shake_hands(struct nbd_conn *c)
{
    const char *why = "no memory";
    bool wants_output = false;
    int r = c->stream.session ? 0 : nbd_stream_start_tls(&c->stream, c->listener->credentials);
    if (!r)
        r = nbd_stream_shake_hands(&c->stream, &wants_output, &why);
    c->is_paused = c->is_blocked = r == -EAGAIN && wants_output;
    if (r == -EAGAIN)
        return;
    if (r)
        refuse(c, why);
    c->phase = NBD_OPTIONS;
}

static void step(struct nbd_conn *c)
{
    nbd_send(c);
    if (c->is_dead || c->out_len)
        return;
    if (c->phase == NBD_TLS)
        shake_hands(c);
    if (is_talking(c))
        parse(c); // what waited for the output
    while (is_talking(c) && !c->out_len && receive(c) && !c->is_dead && nbd_stream_has_input(&c->stream)) {
    }
}

void nbd_handshake_event(struct nbd_conn *c)
{
    step(c);
    if (c->export) {
        struct store *store = c->server->store;
        nbd_export_mark(c);
        nbd_receive_more(c);
        store_end_batch(store);
    } else if (c->is_dead) {
        nbd_server_forget(c);
        nbd_conn_free(c);
    } else {
        nbd_conn_watch(c);
    }
}
