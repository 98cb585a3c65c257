// Ports of the kind `source`, for measurements: frames of a list are received in turn, without end; what is sent is copied and
// forgotten. Just what DPDK's net_null does with copy=1, but for the frames not being empty, for buffers being given back together,
// as drivers of devices do, and for there being room for hundreds (DPDK has 32 devices a process).
#include "router/frame_text.h"
#include "router/params.h"
#include "router/port/port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES_MOST 65536

struct frame {
    uint32_t at, len;
};

struct source {
    unsigned n, next;
    struct frame *frames;
    uint8_t *bytes;
    uint8_t sink[PORT_FRAME_MAX]; // where what is sent is copied to
};

static void free_source(struct source *own)
{
    free(own->frames);
    free(own->bytes);
    free(own);
}

static void source_close(struct port *port)
{
    free_source(port->own);
}

static int read_frames(struct source *own, const json_t *list, uint32_t pad, struct tv_error *err)
{
    uint8_t frame[PORT_FRAME_MAX];
    const json_t *entry;
    size_t i, len, at = 0, room = 0;
    json_array_foreach(list, i, entry)
    {
        int r = frame_read(entry, frame, &len, err);
        if (r)
            return r;
        if (at + PORT_FRAME_MAX > room) {
            uint8_t *grown = realloc(own->bytes, room = 2 * room + 2 * PORT_FRAME_MAX);
            if (!grown)
                return tv_error_set(err, -ENOMEM, "out of memory");
            own->bytes = grown;
        }
        memset(own->bytes + at, 0, PORT_FRAME_MAX);
        memcpy(own->bytes + at, frame, len);
        own->frames[i] = (struct frame){(uint32_t)at, len < pad ? pad : (uint32_t)len};
        at += (own->frames[i].len + 63) & ~63u;
    }
    return 0;
}

static int source_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    const json_t *list = json_object_get(params, "frames");
    uint32_t pad;
    (void)fd;
    if (!json_is_array(list) || !json_array_size(list) || json_array_size(list) > FRAMES_MOST)
        return tv_error_set(err, -EINVAL, "\"frames\" must be a list of 1 to %d frames", FRAMES_MOST);
    if (params_get_u32(params, "pad_to", 0, 0, PORT_FRAME_MAX - 1, &pad, err))
        return -EINVAL;
    struct source *own = calloc(1, sizeof(*own));
    if (!own)
        return tv_error_set(err, -ENOMEM, "out of memory");
    own->frames = calloc(json_array_size(list), sizeof(*own->frames));
    int r = own->frames ? read_frames(own, list, pad, err) : tv_error_set(err, -ENOMEM, "out of memory");
    if (r) {
        free_source(own);
        return r;
    }
    own->n = (unsigned)json_array_size(list);
    port->own = own;
    return 0;
}

static uint16_t source_receive(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct source *own = port->own;
    if (rte_pktmbuf_alloc_bulk(port->env.pool, packets, n)) {
        counter_add(&port->env.counters->dropped[DROP_NO_BUFFERS], n);
        return 0;
    }
    for (uint16_t i = 0; i < n; i++) {
        const struct frame *frame = &own->frames[own->next];
        own->next = own->next + 1 < own->n ? own->next + 1 : 0;
        memcpy(rte_pktmbuf_mtod(packets[i], void *), own->bytes + frame->at, frame->len);
        packets[i]->data_len = (uint16_t)frame->len;
        packets[i]->pkt_len = frame->len;
    }
    return n;
}

static uint16_t source_send(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct source *own = port->own;
    for (uint16_t i = 0; i < n; i++)
        memcpy(own->sink, rte_pktmbuf_mtod(packets[i], void *), packets[i]->data_len);
    rte_pktmbuf_free_bulk(packets, n);
    return n;
}

static bool source_arm(struct port *port)
{
    (void)port;
    return false; // there is always something
}

const struct port_kind port_source = {
    .name = "source",
    .open = source_open,
    .close = source_close,
    .receive = source_receive,
    .send = source_send,
    .arm = source_arm,
};
