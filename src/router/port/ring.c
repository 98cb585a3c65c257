// Ports of the kind `ring`: two rings in memory. What is put into one is received, what is sent lies in the other. Their far end is
// the control socket, or another port of the same network: two ports that name each other's rings are joined by a cable.
#include "router/port/port.h"

#include "router/params.h"

#include <errno.h>
#include <rte_malloc.h>
#include <rte_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES 1024

// By name, within a network: no packet leaves the network's pool by a cable.
struct ring {
    struct ring *next;
    char name[PORT_NAME_MAX + 8];
    unsigned vn_id, n_users;
    struct rte_ring *packets;
};

struct ring_port {
    struct ring *receive, *send;
};

static struct ring *rings; // the control thread's

static struct ring *find_ring(const char *name, unsigned vn_id)
{
    struct ring *ring = rings;
    while (ring && (ring->vn_id != vn_id || strcmp(ring->name, name)))
        ring = ring->next;
    return ring;
}

static struct ring *make_ring(const char *name, unsigned vn_id, struct tv_error *err)
{
    static unsigned n_made;
    char unique[RTE_RING_NAMESIZE - 8];
    struct ring *ring = calloc(1, sizeof(*ring));
    snprintf(unique, sizeof(unique), "trivet.%u", n_made++);
    // In plain memory: rte_ring_create() takes one of DPDK's 2560 memory zones for each.
    struct rte_ring *packets = ring ? rte_malloc(NULL, (size_t)rte_ring_get_memsize(ENTRIES), RTE_CACHE_LINE_SIZE) : NULL;
    if (!packets || rte_ring_init(packets, unique, ENTRIES, 0)) {
        rte_free(packets);
        free(ring);
        tv_error_set(err, -ENOMEM, "no memory for a ring of %u packets", ENTRIES);
        return NULL;
    }
    *ring = (struct ring){.next = rings, .vn_id = vn_id, .packets = packets};
    snprintf(ring->name, sizeof(ring->name), "%s", name);
    rings = ring;
    return ring;
}

static int use_ring(const char *name, unsigned vn_id, struct ring **ring, struct tv_error *err)
{
    if (strlen(name) >= sizeof((*ring)->name))
        return tv_error_set(err, -EINVAL, "ring '%s': a name has at most %zu characters", name, sizeof((*ring)->name) - 1);
    *ring = find_ring(name, vn_id);
    if (!*ring)
        *ring = make_ring(name, vn_id, err);
    if (!*ring)
        return -ENOMEM;
    (*ring)->n_users++;
    return 0;
}

static void leave_ring(struct ring *ring)
{
    void *packet;
    if (!ring || --ring->n_users)
        return;
    while (!rte_ring_dequeue(ring->packets, &packet))
        rte_pktmbuf_free(packet);
    rte_free(ring->packets);
    struct ring **at = &rings;
    while (*at != ring)
        at = &(*at)->next;
    *at = ring->next;
    free(ring);
}

static void ring_close(struct port *port)
{
    struct ring_port *own = port->own;
    leave_ring(own->receive);
    leave_ring(own->send);
    free(own);
}

static int ring_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    const char *receive, *send;
    char names[2][PORT_NAME_MAX + 8];
    (void)fd;
    struct ring_port *own = port->own = calloc(1, sizeof(*own));
    if (!own)
        return tv_error_set(err, -ENOMEM, "out of memory");
    snprintf(names[0], sizeof(names[0]), "%s.in", port->name);
    snprintf(names[1], sizeof(names[1]), "%s.out", port->name);
    int r = params_get_string(params, "receive", names[0], &receive, err);
    if (!r)
        r = params_get_string(params, "send", names[1], &send, err);
    if (!r)
        r = use_ring(receive, port->env.vn_id, &own->receive, err);
    if (!r)
        r = use_ring(send, port->env.vn_id, &own->send, err);
    if (r)
        ring_close(port);
    return r;
}

static uint16_t ring_receive(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct ring_port *own = port->own;
    return (uint16_t)rte_ring_dequeue_burst(own->receive->packets, (void **)packets, n, NULL);
}

static uint16_t ring_send(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct ring_port *own = port->own;
    return (uint16_t)rte_ring_enqueue_burst(own->send->packets, (void **)packets, n, NULL);
}

static bool ring_arm(struct port *port)
{
    struct ring_port *own = port->own;
    return rte_ring_empty(own->receive->packets);
}

static int ring_put(struct port *port, const void *frame, size_t len_bytes)
{
    struct ring_port *own = port->own;
    struct rte_mbuf *packet = rte_pktmbuf_alloc(port->env.pool);
    char *data = packet ? rte_pktmbuf_append(packet, (uint16_t)len_bytes) : NULL;
    if (data)
        memcpy(data, frame, len_bytes);
    if (data && !rte_ring_enqueue(own->receive->packets, packet))
        return 0;
    rte_pktmbuf_free(packet);
    return -ENOBUFS;
}

static int ring_take(struct port *port, void *frame, size_t max_bytes)
{
    struct ring_port *own = port->own;
    void *packet;
    if (rte_ring_dequeue(own->send->packets, &packet))
        return -EAGAIN;
    struct rte_mbuf *m = packet;
    const uint32_t len = m->pkt_len < max_bytes ? m->pkt_len : (uint32_t)max_bytes;
    const void *data = rte_pktmbuf_read(m, 0, len, frame);
    if (data && data != frame)
        memcpy(frame, data, len);
    rte_pktmbuf_free(m);
    return (int)len;
}

const struct port_kind port_ring = {
    .name = "ring",
    .open = ring_open,
    .close = ring_close,
    .receive = ring_receive,
    .send = ring_send,
    .arm = ring_arm,
    .put = ring_put,
    .take = ring_take,
    .naps = true,
};
