// Copies of packets: see capture.h.
#include "router/capture.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

// A copy in the ring: this, then its bytes, filled up to the size of a word. None goes around the end: what is too little there for
// a copy is skipped by one that has SKIP for its length.
struct record {
    uint64_t at_ns;
    uint32_t kept_bytes, len_bytes, direction;
    char port[PORT_NAME_MAX + 1];
};
#define SKIP UINT32_MAX
#define ALIGNED(bytes) (((bytes) + 7) & ~(size_t)7)

struct capture {
    uint32_t snap_bytes;
    _Atomic uint64_t head; // bytes written; the worker's
    _Atomic uint64_t seen, dropped;
    _Alignas(64) _Atomic uint64_t tail; // bytes read; the control thread's
    size_t reading;                     // of them, those of the packet that was given out
    _Alignas(64) uint8_t ring[CAPTURE_RING_BYTES];
};

struct capture *capture_create(uint32_t snap_bytes)
{
    struct capture *capture = aligned_alloc(64, (sizeof(*capture) + 63) & ~(size_t)63);
    if (!capture)
        return NULL;
    memset(capture, 0, offsetof(struct capture, ring)); // the ring's pages are taken as they are used
    capture->snap_bytes = snap_bytes;
    return capture;
}

void capture_destroy(struct capture *capture)
{
    free(capture);
}

// ---- worker ----

// Room for so many bytes in one piece; NULL: there is none.
static struct record *reserve(struct capture *c, size_t bytes, uint64_t *head)
{
    const uint64_t tail = atomic_load_explicit(&c->tail, memory_order_acquire);
    const size_t at = *head % CAPTURE_RING_BYTES, to_end = CAPTURE_RING_BYTES - at;
    const size_t skipped = to_end < bytes ? to_end : 0;
    if (*head + skipped + bytes - tail > CAPTURE_RING_BYTES)
        return NULL;
    if (skipped) {
        if (skipped >= sizeof(struct record))
            ((struct record *)(c->ring + at))->kept_bytes = SKIP;
        *head += skipped;
    }
    return (struct record *)(c->ring + *head % CAPTURE_RING_BYTES);
}

static void copy_bytes(uint8_t *to, const struct rte_mbuf *m, uint32_t bytes)
{
    for (; m && bytes; m = m->next) {
        const uint32_t n = m->data_len < bytes ? m->data_len : bytes;
        memcpy(to, rte_pktmbuf_mtod(m, const void *), n);
        to += n;
        bytes -= n;
    }
}

void capture_packets(struct capture *c, const char *port, enum pcapng_direction direction, struct rte_mbuf *const *packets,
                     unsigned n)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t head = atomic_load_explicit(&c->head, memory_order_relaxed), dropped = 0;
    for (unsigned i = 0; i < n; i++) {
        const uint32_t len = packets[i]->pkt_len, kept = len < c->snap_bytes ? len : c->snap_bytes;
        const size_t bytes = ALIGNED(sizeof(struct record) + kept);
        struct record *r = reserve(c, bytes, &head);
        if (!r) {
            dropped++;
            continue;
        }
        *r = (struct record){.at_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
                             .kept_bytes = kept,
                             .len_bytes = len,
                             .direction = direction};
        strncpy(r->port, port, PORT_NAME_MAX);
        copy_bytes((uint8_t *)(r + 1), packets[i], kept);
        head += bytes;
    }
    atomic_store_explicit(&c->seen, atomic_load_explicit(&c->seen, memory_order_relaxed) + n, memory_order_relaxed);
    atomic_store_explicit(&c->dropped, atomic_load_explicit(&c->dropped, memory_order_relaxed) + dropped, memory_order_relaxed);
    atomic_store_explicit(&c->head, head, memory_order_release); // acquired in capture_next()
}

// ---- control thread ----

bool capture_next(struct capture *c, struct capture_packet *packet)
{
    uint64_t tail = atomic_load_explicit(&c->tail, memory_order_relaxed) + c->reading;
    const uint64_t head = atomic_load_explicit(&c->head, memory_order_acquire);
    c->reading = 0;
    const size_t to_end = CAPTURE_RING_BYTES - tail % CAPTURE_RING_BYTES;
    const struct record *r = (const void *)(c->ring + tail % CAPTURE_RING_BYTES);
    if (tail != head && (to_end < sizeof(*r) || r->kept_bytes == SKIP)) {
        tail += to_end;
        r = (const void *)c->ring;
    }
    atomic_store_explicit(&c->tail, tail, memory_order_release); // acquired in reserve()
    if (tail == head)
        return false;
    *packet = (struct capture_packet){.at_ns = r->at_ns,
                                      .kept_bytes = r->kept_bytes,
                                      .len_bytes = r->len_bytes,
                                      .direction = (enum pcapng_direction)r->direction,
                                      .data = (const uint8_t *)(r + 1)};
    memcpy(packet->port, r->port, sizeof(packet->port));
    c->reading = ALIGNED(sizeof(*r) + r->kept_bytes);
    return true;
}

uint64_t capture_seen(const struct capture *c)
{
    return atomic_load_explicit(&c->seen, memory_order_relaxed);
}

uint64_t capture_dropped(const struct capture *c)
{
    return atomic_load_explicit(&c->dropped, memory_order_relaxed);
}
