// Split virtqueues against a driver written from the specification: requests, notifications both ways over the wrap of the indices,
// indirect chains, hostile rings, and a driver on another thread.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>

#include "vhost/virtqueue.h"
#include "virtq_driver.h"

#define RAM 0x80000000ull
#define RAM_BYTES (128ull << 20)  // sparse
#define DATA (RAM + (1ull << 20)) // behind the rings
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

struct rig {
    struct guest_memory mem; // two regions that touch each other in the middle of RAM
    struct virtqueue vq;
    struct virtq_driver drv;
    struct virtq_chain chain;
};

static void rig_open(struct rig *rig, uint16_t size, bool event_idx, uint16_t idx)
{
    guest_memory_init(&rig->mem);
    for (unsigned i = 0; i < 2; i++) {
        int fd = guest_ram_create("rig", RAM_BYTES / 2, NULL);
        assert_int_equal(guest_memory_add(&rig->mem, RAM + i * (RAM_BYTES / 2), RAM_BYTES / 2, fd, 0, 0, NULL), 0);
    }
    virtq_driver_init(&rig->drv, guest_memory_view(&rig->mem, RAM, virtq_driver_bytes(size)), RAM, size, event_idx);
    virtq_driver_jump(&rig->drv, idx);
    virtqueue_init(&rig->vq, &rig->mem);
    assert_int_equal(virtqueue_pop(&rig->vq, &rig->chain), 0);
    assert_int_equal(
        virtqueue_start(&rig->vq, size, rig->drv.desc_addr, rig->drv.avail_addr, rig->drv.used_addr, idx, event_idx, NULL), 0);
}

static void rig_close(struct rig *rig)
{
    virtqueue_stop(&rig->vq);
    guest_memory_fini(&rig->mem);
}

static void test_request(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 8, false, 0);
    memcpy(guest_memory_view(&rig.mem, DATA, 6), "abcdef", 6);
    virtq_driver_desc(&rig.drv, 5, DATA, 2, NEXT, 1);
    virtq_driver_desc(&rig.drv, 1, DATA + 2, 4, NEXT, 7);
    virtq_driver_desc(&rig.drv, 7, DATA + 64, 3, NEXT | WRITE, 2);
    virtq_driver_desc(&rig.drv, 2, DATA + 67, 5, WRITE, 0);
    assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 0);
    assert_true(virtqueue_is_empty(&rig.vq));
    virtq_driver_offer(&rig.drv, 5);
    assert_false(virtqueue_is_empty(&rig.vq));
    assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
    assert_int_equal(rig.chain.head, 5);
    assert_int_equal(rig.chain.n_out, 2);
    assert_int_equal(rig.chain.n_in, 2);
    assert_int_equal(rig.chain.len_out_bytes, 6);
    assert_int_equal(rig.chain.len_in_bytes, 8);
    char text[16] = {0};
    assert_int_equal(virtq_chain_read(&rig.chain, 1, text, sizeof(text)), 5);
    assert_string_equal(text, "bcdef");
    assert_int_equal(virtq_chain_read(&rig.chain, 6, text, sizeof(text)), 0);
    assert_int_equal(virtq_chain_write(&rig.chain, 2, "xyz", 3), 3);
    assert_int_equal(virtq_chain_write(&rig.chain, 6, "0123", 4), 2);
    assert_memory_equal(guest_memory_view(&rig.mem, DATA + 64, 8),
                        "\0\0xyz\0"
                        "01",
                        8);
    uint32_t id = 0, len = 0;
    assert_false(virtq_driver_take(&rig.drv, &id, &len));
    virtqueue_push(&rig.vq, 5, 8);
    assert_true(virtq_driver_take(&rig.drv, &id, &len));
    assert_int_equal(id, 5);
    assert_int_equal(len, 8);
    assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 0);
    rig_close(&rig);
}

static void test_buffer_over_two_regions(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 4, false, 0);
    virtq_driver_desc(&rig.drv, 0, RAM + RAM_BYTES / 2 - 3, 10, WRITE, 0);
    virtq_driver_offer(&rig.drv, 0);
    assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
    assert_int_equal(rig.chain.n_in, 2);
    assert_int_equal(rig.chain.iov[0].iov_len, 3);
    assert_int_equal(rig.chain.iov[1].iov_len, 7);
    assert_int_equal(rig.chain.len_in_bytes, 10);
    rig_close(&rig);
}

static void test_indirect(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 4, false, 0);
    // A table longer than the queue, at an odd address, after one direct descriptor.
    uint8_t *table = guest_memory_view(&rig.mem, DATA + 1, 16 * 200);
    for (unsigned i = 0; i < 200; i++) {
        struct vring_desc desc = {
            .addr = DATA + 8192 + i, .len = 1, .flags = WRITE | (i < 199 ? NEXT : 0), .next = (uint16_t)(i + 1)};
        memcpy(table + 16 * i, &desc, sizeof(desc));
    }
    virtq_driver_desc(&rig.drv, 3, DATA, 1, NEXT, 2);
    virtq_driver_desc(&rig.drv, 2, DATA + 1, 16 * 200, INDIRECT | WRITE, 0); // 2.7.5.3.2: the device ignores WRITE here
    virtq_driver_offer(&rig.drv, 3);
    assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
    assert_int_equal(rig.chain.n_out, 1);
    assert_int_equal(rig.chain.n_in, 200);
    assert_int_equal(rig.chain.len_in_bytes, 200);
    rig_close(&rig);
}

// Goes three times around the 16-bit indices with batches of changing sizes. The device polls while kicks are off; whenever both
// sides sleep, the one that has work must have been notified.
static void run_around(bool event_idx)
{
    struct rig rig;
    rig_open(&rig, 16, event_idx, 65000);
    for (uint16_t i = 0; i < 16; i++)
        virtq_driver_desc(&rig.drv, i, DATA + i, 1, WRITE, 0);
    unsigned round = 0, kicks = 0, calls = 0;
    for (uint32_t done = 0; done < 3 * 65536; round++) {
        uint16_t batch = (uint16_t)(1 + round % 16);
        assert_false(virtq_driver_calls_on(&rig.drv));
        for (uint16_t i = 0; i < batch; i++)
            virtq_driver_offer(&rig.drv, i);
        // The device slept with kicks on and an empty queue: it must be woken.
        assert_true(virtq_driver_needs_kick(&rig.drv));
        kicks++;
        virtqueue_kicks_off(&rig.vq);
        for (uint16_t i = 0; i < batch; i++) {
            assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
            assert_int_equal(rig.chain.head, i);
        }
        assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 0);
        if (round % 3 == 0) { // a request that comes while kicks are off needs none, and kicks_on() tells of it
            uint16_t late = batch < 16 ? batch : UINT16_MAX;
            if (late != UINT16_MAX) {
                virtq_driver_offer(&rig.drv, late);
                assert_false(virtq_driver_needs_kick(&rig.drv));
                assert_true(virtqueue_kicks_on(&rig.vq));
                assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
                assert_int_equal(rig.chain.head, late);
                batch++;
            }
        }
        assert_false(virtqueue_kicks_on(&rig.vq));
        for (uint16_t i = 0; i < batch; i++)
            virtqueue_push(&rig.vq, (uint16_t)(batch - 1 - i), 1);
        assert_true(virtqueue_needs_call(&rig.vq));
        calls++;
        if (event_idx)
            assert_false(virtqueue_needs_call(&rig.vq));
        virtq_driver_calls_off(&rig.drv);
        uint32_t id = 0, len = 0;
        for (uint16_t i = 0; i < batch; i++) {
            assert_true(virtq_driver_take(&rig.drv, &id, &len));
            assert_int_equal(id, batch - 1 - i);
        }
        assert_false(virtq_driver_take(&rig.drv, &id, &len));
        if (!event_idx) // calls are off
            assert_false(virtqueue_needs_call(&rig.vq));
        done += batch;
    }
    assert_int_equal(kicks, round);
    assert_int_equal(calls, round);
    rig_close(&rig);
}

static void test_around_flags(void **state)
{
    (void)state;
    run_around(false);
}

static void test_around_event_idx(void **state)
{
    (void)state;
    run_around(true);
}

// The driver asks for an interrupt only at the fourth completion.
static void test_used_event(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 8, true, 65534);
    for (uint16_t i = 0; i < 8; i++) {
        virtq_driver_desc(&rig.drv, i, DATA, 1, 0, 0);
        virtq_driver_offer(&rig.drv, i);
        assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
    }
    rig.drv.avail->ring[8] = 1; // 65534, 65535, 0, 1
    bool called[8];
    for (uint16_t i = 0; i < 8; i++) {
        virtqueue_push(&rig.vq, i, 0);
        called[i] = virtqueue_needs_call(&rig.vq);
    }
    assert_true(called[0]); // the first after the start always: nothing is known of the driver's last sight
    assert_false(called[1]);
    assert_false(called[2]);
    assert_true(called[3]);
    for (unsigned i = 4; i < 8; i++)
        assert_false(called[i]);
    rig_close(&rig);
}

typedef void poison_fn(struct rig *rig);

static void poison_loop(struct rig *rig)
{
    virtq_driver_desc(&rig->drv, 0, DATA, 1, NEXT, 1);
    virtq_driver_desc(&rig->drv, 1, DATA, 1, NEXT, 0);
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_head(struct rig *rig)
{
    virtq_driver_offer(&rig->drv, 8);
}

static void poison_next(struct rig *rig)
{
    virtq_driver_desc(&rig->drv, 0, DATA, 1, NEXT, 8);
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_address(struct rig *rig)
{
    virtq_driver_desc(&rig->drv, 0, RAM + RAM_BYTES - 1, 2, 0, 0);
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_address_wraps(struct rig *rig)
{
    virtq_driver_desc(&rig->drv, 0, UINT64_MAX - 1, UINT32_MAX, 0, 0);
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_empty(struct rig *rig)
{
    virtq_driver_desc(&rig->drv, 0, DATA, 0, 0, 0);
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_order(struct rig *rig)
{
    virtq_driver_desc(&rig->drv, 0, DATA, 1, WRITE | NEXT, 1);
    virtq_driver_desc(&rig->drv, 1, DATA, 1, 0, 0);
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_index(struct rig *rig)
{
    rig->drv.avail->idx = (uint16_t)(rig->drv.avail_idx + 9);
}

static void poison_index_back(struct rig *rig)
{
    rig->drv.avail->idx = (uint16_t)(rig->drv.avail_idx - 1);
}

static void indirect(struct rig *rig, uint32_t len, uint16_t flags, uint16_t inner_flags, uint16_t inner_next)
{
    struct vring_desc desc = {.addr = DATA, .len = 16, .flags = inner_flags, .next = inner_next};
    memcpy(guest_memory_view(&rig->mem, DATA, 16), &desc, 16);
    virtq_driver_desc(&rig->drv, 0, DATA, len, flags, 1);
    virtq_driver_desc(&rig->drv, 1, DATA, 1, 0, 0);
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_indirect_twice(struct rig *rig)
{
    indirect(rig, 16, INDIRECT, INDIRECT, 0);
}

static void poison_indirect_next(struct rig *rig)
{
    indirect(rig, 16, INDIRECT | NEXT, 0, 0);
}

static void poison_indirect_length(struct rig *rig)
{
    indirect(rig, 24, INDIRECT, 0, 0);
}

static void poison_indirect_empty(struct rig *rig)
{
    indirect(rig, 0, INDIRECT, 0, 0);
}

static void poison_indirect_beyond(struct rig *rig)
{
    indirect(rig, 16, INDIRECT, NEXT, 1);
}

static void poison_indirect_outside(struct rig *rig)
{
    indirect(rig, 0xfffffff0, INDIRECT, 0, 0);
}

static void poison_indirect_loop(struct rig *rig)
{
    indirect(rig, 16, INDIRECT, NEXT, 0);
}

static void poison_4_gib(struct rig *rig)
{
    struct vring_desc *table = guest_memory_view(&rig->mem, DATA, 64 * 16);
    for (uint16_t i = 0; i < 64; i++)
        table[i] = (struct vring_desc){.addr = RAM, .len = 64u << 20, .flags = i < 63 ? NEXT : 0, .next = (uint16_t)(i + 1)};
    virtq_driver_desc(&rig->drv, 0, DATA, 64 * 16, INDIRECT, 0);
    virtq_driver_offer(&rig->drv, 0);
}

static void poison_twice(struct rig *rig)
{
    virtq_driver_desc(&rig->drv, 0, DATA, 1, 0, 0);
    virtq_driver_offer(&rig->drv, 0);
    assert_int_equal(virtqueue_pop(&rig->vq, &rig->chain), 1);
    virtq_driver_offer(&rig->drv, 0);
}

static void test_hostile_rings(void **state)
{
    (void)state;
    poison_fn *const poisons[] = {poison_loop,
                                  poison_head,
                                  poison_next,
                                  poison_address,
                                  poison_address_wraps,
                                  poison_empty,
                                  poison_order,
                                  poison_index,
                                  poison_index_back,
                                  poison_indirect_twice,
                                  poison_indirect_next,
                                  poison_indirect_length,
                                  poison_indirect_empty,
                                  poison_indirect_beyond,
                                  poison_indirect_outside,
                                  poison_indirect_loop,
                                  poison_4_gib,
                                  poison_twice};
    for (size_t i = 0; i < sizeof(poisons) / sizeof(poisons[0]); i++) {
        for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
            struct rig rig;
            rig_open(&rig, 8, event_idx, 0);
            poisons[i](&rig);
            assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), -EPROTO);
            assert_true(rig.vq.broken);
            assert_non_null(rig.vq.why);
            assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), -EPROTO); // stays so
            assert_true(virtqueue_is_empty(&rig.vq));
            rig_close(&rig);
        }
    }
}

static void test_start_refusals(void **state)
{
    (void)state;
    struct rig rig;
    struct tv_error err = {0};
    rig_open(&rig, 8, false, 0);
    assert_int_equal(virtqueue_start(&rig.vq, 0, RAM, RAM, RAM, 0, false, &err), -EINVAL);
    assert_int_equal(virtqueue_start(&rig.vq, 12, RAM, RAM, RAM, 0, false, &err), -EINVAL);
    assert_int_equal(virtqueue_start(&rig.vq, 2048, RAM, RAM, RAM, 0, false, &err), -EINVAL);
    assert_int_equal(virtqueue_start(&rig.vq, 8, RAM + 8, RAM, RAM, 0, false, &err), -EINVAL);
    assert_int_equal(virtqueue_start(&rig.vq, 8, RAM, RAM + 1, RAM, 0, false, &err), -EINVAL);
    assert_int_equal(virtqueue_start(&rig.vq, 8, RAM, RAM, RAM + 2, 0, false, &err), -EINVAL);
    assert_int_equal(virtqueue_start(&rig.vq, 8, RAM + RAM_BYTES - 64, RAM, RAM, 0, false, &err), -EFAULT);
    assert_int_equal(virtqueue_start(&rig.vq, 8, RAM, RAM + RAM_BYTES - 16, RAM, 0, false, &err), -EFAULT);
    assert_int_equal(virtqueue_start(&rig.vq, 8, RAM, RAM, 0, 0, false, &err), -EFAULT);
    assert_false(rig.vq.ready);
    rig_close(&rig);
}

static void test_pop_head(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 8, false, 0);
    virtq_driver_desc(&rig.drv, 3, DATA, 7, WRITE, 0);
    assert_int_equal(virtqueue_pop_head(&rig.vq, 3, &rig.chain), 1);
    assert_int_equal(rig.chain.len_in_bytes, 7);
    assert_int_equal(virtqueue_pop_head(&rig.vq, 3, &rig.chain), -EPROTO);
    rig_close(&rig);
}

// Saved with a request in flight and another one waiting; loaded with the same memory; refused when the memory is not there.
static void test_save_and_load(void **state)
{
    (void)state;
    struct rig rig;
    struct virtqueue other;
    void *saved = NULL;
    size_t saved_bytes = 0;
    rig_open(&rig, 8, true, 65534);
    for (uint16_t i = 0; i < 3; i++) {
        virtq_driver_desc(&rig.drv, i, DATA, 1, WRITE, 0);
        virtq_driver_offer(&rig.drv, i);
    }
    assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
    assert_int_equal(virtqueue_pop(&rig.vq, &rig.chain), 1);
    virtqueue_push(&rig.vq, 0, 1);
    struct state *s = state_create_save();
    assert_int_equal(virtqueue_state(&rig.vq, s), 0);
    assert_int_equal(state_finish(s, &saved, &saved_bytes, NULL), 0);
    state_destroy(s);

    virtqueue_init(&other, &rig.mem);
    s = state_create_load(saved, saved_bytes);
    assert_int_equal(virtqueue_state(&other, s), 0);
    assert_int_equal(state_finish(s, NULL, NULL, NULL), 0);
    state_destroy(s);
    virtqueue_push(&other, 1, 1); // the one in flight
    assert_int_equal(virtqueue_pop(&other, &rig.chain), 1);
    assert_int_equal(rig.chain.head, 2);
    virtqueue_push(&other, 2, 1);
    assert_int_equal(virtqueue_pop(&other, &rig.chain), 0);
    uint32_t id = 0, len = 0;
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(virtq_driver_take(&rig.drv, &id, &len));
        assert_int_equal(id, i);
    }

    struct guest_memory none;
    guest_memory_init(&none);
    virtqueue_init(&other, &none);
    s = state_create_load(saved, saved_bytes);
    assert_true(virtqueue_state(&other, s) < 0);
    assert_false(other.ready);
    struct tv_error err = {0};
    assert_true(state_finish(s, NULL, NULL, &err) < 0);
    assert_non_null(strstr(err.text, "outside of guest memory"));
    state_destroy(s);
    free(saved);
    rig_close(&rig);
}

// A driver on a thread of its own sends numbered requests as fast as it may; the device answers each with its number. Neither
// sleeps but on the other's word, which is modelled by two counters under a lock.
#define SHARED_REQUESTS 20000

struct bell {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool rung;
};

static void bell_ring(struct bell *bell)
{
    pthread_mutex_lock(&bell->lock);
    bell->rung = true;
    pthread_cond_signal(&bell->cond);
    pthread_mutex_unlock(&bell->lock);
}

static void bell_wait(struct bell *bell)
{
    pthread_mutex_lock(&bell->lock);
    while (!bell->rung)
        pthread_cond_wait(&bell->cond, &bell->lock);
    bell->rung = false;
    pthread_mutex_unlock(&bell->lock);
}

struct shared {
    struct rig rig;
    struct bell kick, call;
    unsigned wrong;
};

static void *driver_thread(void *arg)
{
    struct shared *shared = arg;
    struct virtq_driver *drv = &shared->rig.drv;
    uint32_t *data = guest_memory_view(&shared->rig.mem, DATA, 2 * 16 * sizeof(uint32_t));
    uint16_t free_slots[16], n_free = 16;
    for (uint16_t i = 0; i < 16; i++)
        free_slots[i] = i;
    uint32_t sent = 0, received = 0;
    while (received < SHARED_REQUESTS) {
        while (n_free > 0 && sent < SHARED_REQUESTS) {
            uint16_t slot = free_slots[--n_free];
            data[2 * slot] = sent++;
            virtq_driver_offer(drv, (uint16_t)(2 * slot));
        }
        if (virtq_driver_needs_kick(drv))
            bell_ring(&shared->kick);
        uint32_t id, len;
        while (virtq_driver_take(drv, &id, &len)) {
            shared->wrong += len != 4 || data[id + 1] != data[id] + 1;
            free_slots[n_free++] = (uint16_t)(id / 2);
            received++;
        }
        bool stuck = n_free == 0 || sent == SHARED_REQUESTS;
        if (stuck && received < SHARED_REQUESTS && !virtq_driver_calls_on(drv))
            bell_wait(&shared->call);
    }
    return NULL;
}

static void run_threads(bool event_idx)
{
    struct shared shared = {.kick = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER},
                            .call = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER}};
    struct rig *rig = &shared.rig;
    rig_open(rig, 32, event_idx, 65500);
    for (uint16_t i = 0; i < 32; i = (uint16_t)(i + 2)) {
        virtq_driver_desc(&rig->drv, i, DATA + 4ull * i, 4, NEXT, (uint16_t)(i + 1));
        virtq_driver_desc(&rig->drv, (uint16_t)(i + 1), DATA + 4ull * i + 4, 4, WRITE, 0);
    }
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, driver_thread, &shared), 0);
    for (unsigned done = 0; done < SHARED_REQUESTS;) {
        int ret = virtqueue_pop(&rig->vq, &rig->chain);
        assert_true(ret >= 0);
        if (ret == 0) {
            bell_wait(&shared.kick);
            continue;
        }
        uint32_t number = 0;
        assert_int_equal(virtq_chain_read(&rig->chain, 0, &number, 4), 4);
        number++;
        assert_int_equal(virtq_chain_write(&rig->chain, 0, &number, 4), 4);
        virtqueue_push(&rig->vq, rig->chain.head, 4);
        if (virtqueue_needs_call(&rig->vq))
            bell_ring(&shared.call);
        done++;
    }
    pthread_join(thread, NULL);
    assert_int_equal(shared.wrong, 0);
    rig_close(rig);
}

static void test_threads_flags(void **state)
{
    (void)state;
    run_threads(false);
}

static void test_threads_event_idx(void **state)
{
    (void)state;
    run_threads(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request),          cmocka_unit_test(test_buffer_over_two_regions),
        cmocka_unit_test(test_indirect),         cmocka_unit_test(test_around_flags),
        cmocka_unit_test(test_around_event_idx), cmocka_unit_test(test_used_event),
        cmocka_unit_test(test_hostile_rings),    cmocka_unit_test(test_start_refusals),
        cmocka_unit_test(test_pop_head),         cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_threads_flags),    cmocka_unit_test(test_threads_event_idx),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
