// trivet net capture: what passes a network's ports, as pcapng, to a file or standard output.
//
// The router writes into a pipe of ours, and we pass on whole blocks, so that what we were ended in the middle of can be read.
#include "base/clock.h"
#include "control/cleanup.h"
#include "control/client.h"
#include "control/command/net.h"
#include "control/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define BUFFER_BYTES (256u << 10)
#define BLOCK_MAX (64u << 10)
#define BLOCK_PACKET 6u // of pcapng: an Enhanced Packet Block
#define STOP_MS 10000

struct reader {
    int in, out;
    const char *name; // of `out`
    uint64_t most, packets, until_ns;
    bool is_asked_to_stop;
    size_t n_bytes;
    uint8_t buffer[BUFFER_BYTES];
};

static int write_all(struct reader *r, size_t len, struct tv_error *err)
{
    for (size_t at = 0; at < len;) {
        const ssize_t n = write(r->out, r->buffer + at, len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return tv_error_set(err, -errno, "%s: cannot be written: %s", r->name, strerror(errno));
        at += (size_t)n;
    }
    r->n_bytes -= len;
    memmove(r->buffer, r->buffer + len, r->n_bytes);
    return 0;
}

// Whole blocks are passed on; of packets no more than were asked for.
static int pass_on(struct reader *r, struct tv_error *err)
{
    size_t at = 0;
    while (r->n_bytes - at >= 8) {
        uint32_t type, len;
        memcpy(&type, r->buffer + at, sizeof(type));
        memcpy(&len, r->buffer + at + 4, sizeof(len));
        if (len < 12 || len > BLOCK_MAX)
            return tv_error_set(err, -EPROTO, "the router has sent something that is no capture");
        if (r->n_bytes - at < len)
            break;
        if (type == BLOCK_PACKET && r->most && r->packets == r->most) { // it is left out
            r->n_bytes -= len;
            memmove(r->buffer + at, r->buffer + at + len, r->n_bytes - at);
            continue;
        }
        r->packets += type == BLOCK_PACKET;
        at += len;
    }
    return write_all(r, at, err);
}

static int stop(struct reader *r, const char *network, json_t **result, struct tv_error *err)
{
    r->is_asked_to_stop = true;
    return net_ask_router("capture.stop", network, NULL, result, err);
}

static int timeout_ms(const struct reader *r)
{
    const uint64_t now = clock_now_ns();
    if (!r->until_ns)
        return -1;
    return now >= r->until_ns ? 0 : (int)((r->until_ns - now) / NS_PER_MS) + 1;
}

// Until the router closes its end.
static int read_all(struct reader *r, const char *network, json_t **result, struct tv_error *err)
{
    int rc = 0;
    for (ssize_t n = 1; n && !rc;) {
        struct pollfd pfd = {.fd = r->in, .events = POLLIN};
        const int ready = poll(&pfd, 1, r->is_asked_to_stop ? STOP_MS : timeout_ms(r));
        const bool enough = tool_interrupted() || ready == 0 || (r->most && r->packets == r->most);
        if (r->is_asked_to_stop && ready == 0)
            return tv_error_set(err, -ETIMEDOUT, "the router does not end the capture");
        if (enough && !r->is_asked_to_stop)
            rc = stop(r, network, result, err);
        if (rc || ready <= 0)
            continue;
        n = read(r->in, r->buffer + r->n_bytes, sizeof(r->buffer) - r->n_bytes);
        if (n < 0 && errno != EINTR)
            return tv_error_set(err, -errno, "the router's end of the capture: %s", strerror(errno));
        r->n_bytes += n > 0 ? (size_t)n : 0;
        rc = pass_on(r, err);
    }
    return rc;
}

static int start(const struct net_command *c, int *in, struct tv_error *err)
{
    int ends[2];
    json_t *inner = json_object();
    if (c->port)
        json_object_set_new(inner, "port", json_string(c->port));
    cleanup_json json_t *result = NULL,
                        *params = json_pack("{s:s, s:s, s:o}", "name", c->words[0], "method", "capture.start", "params", inner);
    if (c->snap)
        net_put_number(inner, "snap", c->snap);
    cleanup_close int fd = client_connect(err);
    if (fd < 0)
        return fd;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return tv_error_set(err, -errno, "pipe: %s", strerror(errno));
    fcntl(ends[1], F_SETPIPE_SZ, 1 << 20); // a larger one, if that is allowed
    const int rc = client_call_with(fd, "net.call", json_incref(params), ends[1], &result, err);
    close(ends[1]);
    if (rc)
        close(ends[0]);
    else
        *in = ends[0];
    return rc;
}

static int read_numbers(const struct net_command *c, struct reader *r, unsigned *ms)
{
    char *end = NULL;
    *ms = 0;
    if (c->count) {
        r->most = strtoull(c->count, &end, 10);
        if (*end || !r->most || *c->count == '-')
            return command_usage("net", "--count '%s' should be a number of packets", c->count);
    }
    if (c->seconds && (command_seconds(c->seconds, ms) || !*ms))
        return command_usage("net", "--seconds '%s' is no number of seconds", c->seconds);
    return 0;
}

int net_capture(const struct net_command *c)
{
    static struct reader r = {.in = -1};
    struct tv_error err = {0};
    cleanup_json json_t *result = NULL;
    unsigned ms;
    const bool to_file = c->output && strcmp(c->output, "-") != 0;
    if (read_numbers(c, &r, &ms))
        return EXIT_USAGE;
    if (!to_file && isatty(STDOUT_FILENO))
        return command_usage("net", "a capture is nothing for a terminal; give --output FILE, or pipe it into `tshark -r -`");
    r.name = to_file ? c->output : "standard output";
    r.out = to_file ? open(c->output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : STDOUT_FILENO;
    if (r.out < 0) {
        tv_error_set(&err, -errno, "%s: %s", c->output, strerror(errno));
        return net_failed(c, &err);
    }
    tool_catch_signals();
    int rc = start(c, &r.in, &err);
    r.until_ns = ms ? clock_now_ns() + ms * NS_PER_MS : 0;
    if (!rc)
        rc = read_all(&r, c->words[0], &result, &err);
    if (to_file)
        close(r.out);
    if (rc)
        return command_failed("net", false, command_status(&err), &err);
    fprintf(stderr, "%" JSON_INTEGER_FORMAT " packets, %" JSON_INTEGER_FORMAT " of them had no room and are not in it\n",
            json_integer_value(json_object_get(result, "packets")), json_integer_value(json_object_get(result, "dropped")));
    return EXIT_OK;
}
