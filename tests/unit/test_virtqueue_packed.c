// Packed virtqueues against a driver written from the specification: chains of all lengths around the ring, given back in any
// order, notifications both ways, indirect tables, hostile rings, and a queue that is taken up where another one stopped.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vhost/virtqueue.h"
#include "virtq_driver.h"

#define RAM 0x80000000ull
#define RAM_BYTES (1ull << 20)
#define DATA (RAM + (256ull << 10)) // behind the ring
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

struct rig {
    struct guest_memory mem;
    struct virtqueue vq;
    struct virtq_driver drv;
    struct virtq_chain chain;
    uint64_t random;
};

static void start(struct rig *rig, uint32_t base)
{
    struct tv_error err = {0};
    virtqueue_init(&rig->vq, &rig->mem);
    assert_int_equal(virtqueue_start(&rig->vq, rig->drv.size, rig->drv.desc_addr, rig->drv.avail_addr, rig->drv.used_addr, base,
                                     VIRTQ_PACKED | (rig->drv.event_idx ? VIRTQ_EVENT_IDX : 0), &err),
                     0);
}

static void rig_open(struct rig *rig, uint16_t size, bool event_idx)
{
    rig->random = 88172645463325252ull;
    guest_memory_init(&rig->mem);
    assert_int_equal(guest_memory_add(&rig->mem, RAM, RAM_BYTES, guest_ram_create("rig", RAM_BYTES, NULL), 0, 0, NULL), 0);
    virtq_driver_init_packed(&rig->drv, guest_memory_view(&rig->mem, RAM, virtq_driver_bytes(size)), RAM, size, event_idx);
    start(rig, VIRTQ_BASE_PACKED_NEW);
}

static void rig_close(struct rig *rig)
{
    virtqueue_stop(&rig->vq);
    guest_memory_fini(&rig->mem);
}

static unsigned below(struct rig *rig, unsigned n)
{
    rig->random ^= rig->random << 13;
    rig->random ^= rig->random >> 7;
    rig->random ^= rig->random << 17;
    return (unsigned)(rig->random % n);
}

// ---- requests ----

// A chain of n descriptors from `head` on, n - 1 readable and one writable; lengths tell which it is.
static void lay(struct rig *rig, uint16_t head, uint16_t n)
{
    for (uint16_t i = 0; i + 1 < n; i++)
        virtq_driver_desc(&rig->drv, (uint16_t)(head + i), DATA + 64u * head, 1u + head, NEXT, (uint16_t)(head + i + 1));
    virtq_driver_desc(&rig->drv, (uint16_t)(head + n - 1), DATA + 64u * head, 2u + head, WRITE, 0);
}

static void check(const struct rig *rig, uint16_t n)
{
    assert_int_equal(rig->chain.n_out, n - 1);
    assert_int_equal(rig->chain.n_in, 1);
    assert_int_equal(rig->chain.len_out_bytes, (n - 1u) * (1u + rig->chain.head));
    assert_int_equal(rig->chain.len_in_bytes, 2u + rig->chain.head);
}

#define CHAINS 8u
#define LONGEST 4u

struct flight {
    uint16_t n[CHAINS]; // of each chain; 0: it is with nobody
    bool popped[CHAINS];
    unsigned n_popped;
};

static void offer_some(struct rig *rig, struct flight *f)
{
    for (unsigned i = below(rig, CHAINS + 1); i > 0; i--) {
        const unsigned c = below(rig, CHAINS);
        if (f->n[c])
            continue;
        f->n[c] = (uint16_t)(1 + below(rig, LONGEST));
        lay(rig, (uint16_t)(c * LONGEST), f->n[c]);
        virtq_driver_offer(&rig->drv, (uint16_t)(c * LONGEST));
    }
}

static void pop_some(struct rig *rig, struct flight *f)
{
    for (unsigned i = below(rig, CHAINS + 1); i > 0 && virtqueue_pop(&rig->vq, &rig->chain) == 1; i--) {
        const unsigned c = rig->chain.head / LONGEST;
        assert_true(rig->chain.head % LONGEST == 0 && c < CHAINS && f->n[c] && !f->popped[c]);
        check(rig, f->n[c]);
        f->popped[c] = true;
        f->n_popped++;
    }
}

static void push_some(struct rig *rig, struct flight *f)
{
    for (unsigned i = below(rig, CHAINS + 1); i > 0; i--) {
        const unsigned c = below(rig, CHAINS);
        if (!f->popped[c])
            continue;
        virtqueue_push(&rig->vq, (uint16_t)(c * LONGEST), 2 * c);
        f->popped[c] = false;
    }
}

static unsigned take_all(struct rig *rig, struct flight *f)
{
    uint32_t id, len;
    unsigned n = 0;
    for (; virtq_driver_take(&rig->drv, &id, &len); n++) {
        const uint32_t c = id / LONGEST;
        assert_true(id % LONGEST == 0 && c < CHAINS && f->n[c] && !f->popped[c]);
        assert_int_equal(len, 2 * c);
        f->n[c] = 0;
    }
    return n;
}

static void test_any_order(void **state)
{
    (void)state;
    struct rig rig;
    struct flight f = {0};
    unsigned n = 0;
    rig_open(&rig, CHAINS * LONGEST, true);
    for (unsigned i = 0; i < 200000; i++) {
        offer_some(&rig, &f);
        pop_some(&rig, &f);
        push_some(&rig, &f);
        n += take_all(&rig, &f);
        if (i % 1000 == 0) { // whoever comes next goes on there, with what is in flight by other means
            while (virtqueue_pop(&rig.vq, &rig.chain) == 1)
                f.popped[rig.chain.head / LONGEST] = true;
            for (unsigned c = 0; c < CHAINS; c++)
                if (f.popped[c]) {
                    virtqueue_push(&rig.vq, (uint16_t)(c * LONGEST), 2 * c);
                    f.popped[c] = false;
                }
            take_all(&rig, &f);
            assert_int_equal(virtqueue_base(&rig.vq), virtq_driver_packed_base(&rig.drv));
            start(&rig, virtqueue_base(&rig.vq));
        }
    }
    assert_true(n > 100000);
    rig_close(&rig);
}

// Batches of changing sizes around and around. The device polls while kicks are off; whenever both sides sleep, the one that has
// work must have been notified.
static void run_around(uint16_t size, bool event_idx)
{
    struct rig rig;
    rig_open(&rig, size, event_idx);
    for (uint16_t i = 0; i < size; i++)
        virtq_driver_desc(&rig.drv, i, DATA + i, 1, WRITE, 0);
    for (unsigned round = 0; round < 5000; round++) {
        uint16_t batch = (uint16_t)(1 + round % size);
        uint32_t id = 0, len = 0;
        assert_false(virtq_driver_calls_on(&rig.drv));
        for (uint16_t i = 0; i < batch; i++)
            virtq_driver_offer(&rig.drv, i);
        assert_true(virtq_driver_needs_kick(&rig.drv));
        virtqueue_kicks_off(&rig.vq);
        for (uint16_t i = 0; i < batch; i++) {
            assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
            assert_int_equal(rig.chain.head, i);
        }
        assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 0);
        if (round % 3 == 0 && batch < size) { // what comes while kicks are off needs none, and kicks_on() tells of it
            virtq_driver_offer(&rig.drv, batch);
            assert_false(virtq_driver_needs_kick(&rig.drv));
            assert_true(virtqueue_kicks_on(&rig.vq));
            assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
            assert_int_equal(rig.chain.head, batch++);
        }
        assert_false(virtqueue_kicks_on(&rig.vq));
        for (uint16_t i = 0; i < batch; i++)
            virtqueue_push(&rig.vq, (uint16_t)(batch - 1 - i), 1);
        assert_true(virtqueue_needs_call(&rig.vq));
        if (event_idx)
            assert_false(virtqueue_needs_call(&rig.vq));
        virtq_driver_calls_off(&rig.drv);
        for (uint16_t i = 0; i < batch; i++) {
            assert_true(virtq_driver_take(&rig.drv, &id, &len));
            assert_int_equal(id, batch - 1 - i);
        }
        assert_false(virtq_driver_take(&rig.drv, &id, &len));
        assert_false(virtqueue_needs_call(&rig.vq)); // calls are off
    }
    rig_close(&rig);
}

static void test_around(void **state)
{
    (void)state;
    run_around(16, false);
    run_around(16, true);
    run_around(1, true);
    run_around(2, true);
}

// The driver asks for an interrupt only at the fourth completion, wherever the ring's end lies.
static void test_driver_event(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 8, true);
    for (uint16_t i = 0; i < 8; i++)
        virtq_driver_desc(&rig.drv, i, DATA, 1, 0, 0);
    for (unsigned round = 0; round < 100; round++) {
        uint32_t id, len;
        bool wrap = rig.drv.used_wrap;
        uint16_t at = rig.drv.last_used;
        for (unsigned i = 0; i < 3; i++) {
            wrap ^= at == 7;
            at = (uint16_t)((at + 1) % 8);
        }
        rig.drv.driver_event->off_wrap = (uint16_t)(at | (unsigned)wrap << 15);
        rig.drv.driver_event->flags = VRING_PACKED_EVENT_FLAG_DESC;
        virtqueue_needs_call(&rig.vq);
        for (uint16_t i = 0; i < 7; i++) {
            virtq_driver_offer(&rig.drv, i);
            assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
        }
        for (uint16_t i = 0; i < 7; i++) {
            virtqueue_push(&rig.vq, i, 0);
            assert_int_equal(virtqueue_needs_call(&rig.vq), i == 3);
            assert_true(virtq_driver_take(&rig.drv, &id, &len));
        }
    }
    rig_close(&rig);
}

// A table longer than the ring, at an odd address, also after a direct descriptor.
static void test_indirect(void **state)
{
    (void)state;
    for (unsigned direct = 0; direct < 2; direct++) {
        struct rig rig;
        rig_open(&rig, 4, false);
        uint8_t *table = guest_memory_view(&rig.mem, DATA + 1, 16 * 200);
        for (unsigned i = 0; i < 200; i++) {
            // NEXT means nothing there (2.8.7)
            struct vring_packed_desc desc = {.addr = DATA + 8192 + i, .len = 1, .id = 77, .flags = WRITE | (i & 1 ? NEXT : 0)};
            memcpy(table + 16 * i, &desc, sizeof(desc));
        }
        virtq_driver_desc(&rig.drv, 3, DATA, 1, NEXT, 2);
        virtq_driver_desc(&rig.drv, 2, DATA + 1, 16 * 200, INDIRECT | WRITE, 0); // the device ignores WRITE here
        virtq_driver_offer(&rig.drv, direct ? 3 : 2);
        assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
        assert_int_equal(rig.chain.head, direct ? 3 : 2);
        assert_int_equal(rig.chain.n_out, direct);
        assert_int_equal(rig.chain.n_in, 200);
        rig_close(&rig);
    }
}

// ---- hostile ----

static void offer_one(struct rig *rig, uint64_t addr, uint32_t len, uint16_t flags)
{
    virtq_driver_desc(&rig->drv, 0, addr, len, flags, 0);
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_id(struct rig *rig)
{
    offer_one(rig, DATA, 1, 0);
    rig->drv.ring[0].id = 8;
}

static void poison_id_in_flight(struct rig *rig)
{
    offer_one(rig, DATA, 1, 0);
    assert_int_equal(virtqueue_pop(&rig->vq, &rig->chain), 1);
    offer_one(rig, DATA, 1, 0);
}

static void poison_endless(struct rig *rig)
{
    virtq_driver_desc(&rig->drv, 0, DATA, 1, NEXT, 0); // the driver of the rig ends it after a whole lap
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_address(struct rig *rig)
{
    offer_one(rig, RAM + RAM_BYTES - 1, 2, 0);
}

static void poison_empty(struct rig *rig)
{
    offer_one(rig, DATA, 0, 0);
}

static void poison_order(struct rig *rig)
{
    virtq_driver_desc(&rig->drv, 0, DATA, 1, NEXT | WRITE, 1);
    virtq_driver_desc(&rig->drv, 1, DATA, 1, 0, 0);
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_indirect_chained(struct rig *rig)
{
    virtq_driver_desc(&rig->drv, 0, DATA, 16, INDIRECT | NEXT, 1);
    virtq_driver_desc(&rig->drv, 1, DATA, 1, 0, 0);
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_indirect_length(struct rig *rig)
{
    offer_one(rig, DATA, 24, INDIRECT);
}

static void poison_indirect_outside(struct rig *rig)
{
    offer_one(rig, RAM + RAM_BYTES - 16, 32, INDIRECT);
}

static void poison_indirect_in_indirect(struct rig *rig)
{
    struct vring_packed_desc desc = {.addr = DATA, .len = 16, .flags = INDIRECT};
    memcpy(guest_memory_view(&rig->mem, DATA, 16), &desc, 16);
    offer_one(rig, DATA, 16, INDIRECT);
}

static void poison_many(struct rig *rig)
{
    for (unsigned i = 0; i < VIRTQ_SEGMENTS_MAX + 1; i++) {
        struct vring_packed_desc desc = {.addr = DATA, .len = 1};
        memcpy(guest_memory_view(&rig->mem, DATA + 16 * i, 16), &desc, 16);
    }
    offer_one(rig, DATA, 16 * (VIRTQ_SEGMENTS_MAX + 1), INDIRECT);
}

static void test_poison(void **state)
{
    (void)state;
    static void (*const poisons[])(struct rig *) = {
        poison_id,    poison_id_in_flight,     poison_endless,         poison_address,          poison_empty,
        poison_order, poison_indirect_chained, poison_indirect_length, poison_indirect_outside, poison_indirect_in_indirect,
        poison_many,
    };
    for (size_t i = 0; i < sizeof(poisons) / sizeof(poisons[0]); i++) {
        struct rig rig;
        rig_open(&rig, 8, true);
        poisons[i](&rig);
        assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), -EPROTO);
        assert_true(rig.vq.broken && rig.vq.why);
        assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), -EPROTO);
        assert_true(virtqueue_is_empty(&rig.vq));
        rig_close(&rig);
    }
}

static void test_start_refused(void **state)
{
    (void)state;
    struct rig rig;
    struct tv_error err = {0};
    rig_open(&rig, 8, true);
    assert_int_equal(virtqueue_start(&rig.vq, 8, RAM, RAM + 2, RAM + 8, VIRTQ_BASE_PACKED_NEW, VIRTQ_PACKED, &err), -EINVAL);
    assert_int_equal(virtqueue_start(&rig.vq, 8, RAM, RAM + RAM_BYTES, RAM, VIRTQ_BASE_PACKED_NEW, VIRTQ_PACKED, &err), -EFAULT);
    assert_int_equal(virtqueue_start(&rig.vq, 8, RAM, RAM + 256, RAM + 512, 8, VIRTQ_PACKED, &err), -EINVAL);
    assert_int_equal(virtqueue_start(&rig.vq, 8, RAM, RAM + 256, RAM + 512, 8 << 16, VIRTQ_PACKED, &err), -EINVAL);
    rig_close(&rig);
}

// In the middle of things, into another queue over the same memory.
static void test_state(void **state)
{
    (void)state;
    static struct rig rig;
    static struct virtqueue other;
    void *saved = NULL;
    size_t saved_bytes = 0;
    uint32_t id, len;
    rig_open(&rig, 32, true);
    for (uint16_t i = 0; i < 3; i++) {
        lay(&rig, (uint16_t)(i * 4), (uint16_t)(i + 2));
        virtq_driver_offer(&rig.drv, (uint16_t)(i * 4));
        assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
    }
    struct state *s = state_create_save();
    assert_int_equal(virtqueue_state(&rig.vq, s), 0);
    assert_int_equal(state_finish(s, &saved, &saved_bytes, NULL), 0);
    state_destroy(s);
    virtqueue_init(&other, &rig.mem);
    s = state_create_load(saved, saved_bytes);
    assert_int_equal(virtqueue_state(&other, s), 0);
    assert_int_equal(state_finish(s, NULL, NULL, NULL), 0);
    state_destroy(s);
    free(saved);
    for (uint16_t i = 3; i-- > 0;)
        virtqueue_push(&other, (uint16_t)(i * 4), i);
    for (uint16_t i = 3; i-- > 0;) {
        assert_true(virtq_driver_take(&rig.drv, &id, &len));
        assert_int_equal(id, i * 4);
        assert_int_equal(len, i);
    }
    assert_int_equal(virtqueue_base(&other), virtq_driver_packed_base(&rig.drv));
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_order), cmocka_unit_test(test_around), cmocka_unit_test(test_driver_event),
        cmocka_unit_test(test_indirect),  cmocka_unit_test(test_poison), cmocka_unit_test(test_start_refused),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
