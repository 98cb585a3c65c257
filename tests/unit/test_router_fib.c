// Longest prefix match beside a list of routes that is searched from one end to the other: random tables, routes that come, change
// and go, both families, with and without direct pointing. Memory that is missing changes nothing.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "router/ip/poptrie.h"

#define ROUTES_MOST 400
#define STEPS 6000

struct route {
    rib_key key;
    unsigned len;
    uint16_t value;
};

struct model {
    struct route routes[ROUTES_MOST];
    unsigned n, width;
    uint64_t random;
};

static uint64_t draw(struct model *m)
{
    m->random ^= m->random << 13; // xorshift64 (Marsaglia 2003)
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return m->random;
}

static rib_key cut(const struct model *m, rib_key key)
{
    return rib_mask(key, m->width);
}

// Near others often, so that prefixes nest and lie side by side.
static rib_key draw_key(struct model *m)
{
    rib_key key = cut(m, (rib_key)draw(m) << 64 | draw(m));
    if (m->n && draw(m) % 4) {
        const unsigned keep = (unsigned)(draw(m) % (m->width + 1));
        key = rib_mask(m->routes[draw(m) % m->n].key, keep) | (key & ~rib_mask(~(rib_key)0, keep));
    }
    return cut(m, key);
}

static uint16_t model_find(const struct model *m, rib_key key)
{
    uint16_t value = RIB_NONE;
    int len = -1;
    for (unsigned i = 0; i < m->n; i++)
        if ((int)m->routes[i].len > len && rib_mask(key, m->routes[i].len) == m->routes[i].key) {
            len = (int)m->routes[i].len;
            value = m->routes[i].value;
        }
    return value;
}

static uint16_t trie_find(const struct model *m, const struct poptrie *trie, rib_key key)
{
    return m->width == 32 ? poptrie_find4(poptrie_root(trie), (uint32_t)(key >> 96)) : poptrie_find6(poptrie_root(trie), key);
}

static struct route *model_get(struct model *m, rib_key key, unsigned len)
{
    for (unsigned i = 0; i < m->n; i++)
        if (m->routes[i].key == key && m->routes[i].len == len)
            return &m->routes[i];
    return NULL;
}

static void set_both(struct model *m, struct rib *rib, struct poptrie *trie, rib_key key, unsigned len, uint16_t value)
{
    struct route *route = model_get(m, key, len);
    uint16_t before;
    assert_int_equal(rib_get(rib, key, len), route ? route->value : RIB_NONE);
    assert_int_equal(rib_set(rib, key, len, value, &before), 0);
    assert_int_equal(before, route ? route->value : RIB_NONE);
    assert_int_equal(poptrie_update(trie, rib, key, len), 0);
    if (!route)
        route = &m->routes[m->n++];
    *route = value == RIB_NONE ? m->routes[--m->n] : (struct route){key, len, value};
    assert_int_equal(rib->n_routes, m->n);
}

static void step(struct model *m, struct rib *rib, struct poptrie *trie)
{
    const bool removes = m->n == ROUTES_MOST || (m->n && draw(m) % 100 < 45);
    if (removes) {
        const struct route gone = m->routes[draw(m) % m->n];
        set_both(m, rib, trie, gone.key, gone.len, RIB_NONE);
    } else {
        const unsigned len = (unsigned)(draw(m) % (m->width + 1));
        set_both(m, rib, trie, rib_mask(draw_key(m), len), len, (uint16_t)(draw(m) % 7 + 1));
    }
}

// At the ends of routes, beside them, and anywhere.
static void compare(struct model *m, const struct poptrie *trie, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        rib_key key = draw_key(m);
        if (m->n && i % 2) {
            const struct route *route = &m->routes[draw(m) % m->n];
            const rib_key end = cut(m, route->key | (route->len < RIB_KEY_BITS ? ~(rib_key)0 >> route->len : 0));
            const rib_key one = (rib_key)1 << (RIB_KEY_BITS - m->width);
            const rib_key places[4] = {route->key, end, cut(m, route->key - one), cut(m, end + one)};
            key = places[draw(m) % 4];
        }
        assert_int_equal(trie_find(m, trie, key), model_find(m, key));
    }
}

static void check_family(unsigned width, unsigned direct_bits)
{
    struct model *m = calloc(1, sizeof(*m));
    struct rib rib = {0};
    struct poptrie trie;
    m->width = width;
    m->random = 20261127 + width * 100 + direct_bits;
    assert_int_equal(poptrie_init(&trie, direct_bits), 0);
    const size_t empty = trie.bytes;
    for (unsigned i = 0; i < STEPS; i++) {
        step(m, &rib, &trie);
        compare(m, &trie, 20);
        if (i % 8 == 0)
            poptrie_reclaim(&trie);
        if (i % 1000 == 999) {
            assert_int_equal(poptrie_rebuild(&trie, &rib, direct_bits ? 0 : 9), 0);
            compare(m, &trie, 200);
            assert_int_equal(poptrie_rebuild(&trie, &rib, direct_bits), 0);
            compare(m, &trie, 200);
        }
    }
    while (m->n)
        set_both(m, &rib, &trie, m->routes[0].key, m->routes[0].len, RIB_NONE);
    poptrie_reclaim(&trie);
    assert_int_equal(trie.bytes, empty); // all that came went
    assert_int_equal(rib.bytes, 0);
    poptrie_fini(&trie);
    rib_fini(&rib);
    free(m);
}

static void test_ip4(void **state)
{
    (void)state;
    check_family(32, 0);
}

static void test_ip4_direct(void **state)
{
    (void)state;
    check_family(32, 10);
    check_family(32, 16);
}

static void test_ip6(void **state)
{
    (void)state;
    check_family(128, 0);
}

static void test_ip6_direct(void **state)
{
    (void)state;
    check_family(128, 12);
}

// What a change has retired stays as it was until it is reclaimed: a reader that is in it finds what was there before.
static void test_readers_see_the_old_or_the_new(void **state)
{
    (void)state;
    struct model *m = calloc(1, sizeof(*m));
    struct rib rib = {0};
    struct poptrie trie;
    m->width = 32;
    m->random = 7;
    assert_int_equal(poptrie_init(&trie, 0), 0);
    for (unsigned i = 0; i < 300; i++)
        step(m, &rib, &trie);
    poptrie_reclaim(&trie);
    uint16_t before;
    const uintptr_t entry = atomic_load(&poptrie_root(&trie)->entries[0]);
    struct poptrie_root *frozen = malloc(sizeof(*frozen) + sizeof(uintptr_t)); // a reader that loaded the entry just now
    frozen->direct_bits = 0;
    atomic_init(&frozen->entries[0], entry);
    rib_key keys[500];
    uint16_t was[500];
    for (unsigned i = 0; i < 500; i++) {
        keys[i] = draw_key(m);
        was[i] = model_find(m, keys[i]);
    }
    for (unsigned len = 0; len <= 32; len++) {
        assert_int_equal(rib_set(&rib, rib_mask(keys[len], len), len, 100, &before), 0);
        assert_int_equal(poptrie_update(&trie, &rib, rib_mask(keys[len], len), len), 0);
    }
    assert_true(trie.retired_bytes > 0);
    for (unsigned i = 0; i < 500; i++) {
        assert_int_equal(poptrie_find4(frozen, (uint32_t)(keys[i] >> 96)), was[i]);
        if (i <= 32)
            assert_int_equal(trie_find(m, &trie, keys[i]) != RIB_NONE, true);
    }
    free(frozen);
    poptrie_fini(&trie);
    rib_fini(&rib);
    free(m);
}

// ---- memory ----

static int left = -1; // allocations that succeed; -1: all do

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size)
{
    if (!left)
        return NULL;
    left -= left > 0;
    return __real_malloc(size);
}

// Whichever allocation fails, a change that did not succeed has changed nothing, and succeeds when there is memory again.
static void test_missing_memory(void **state)
{
    (void)state;
    struct model *m = calloc(1, sizeof(*m));
    struct rib rib = {0};
    struct poptrie trie;
    unsigned failures = 0;
    m->width = 32;
    m->random = 11;
    assert_int_equal(poptrie_init(&trie, 4), 0);
    for (unsigned i = 0; i < 600; i++) {
        const bool removes = m->n && draw(m) % 3 == 0;
        const unsigned len = removes ? m->routes[0].len : (unsigned)(draw(m) % 33);
        const rib_key key = removes ? m->routes[0].key : rib_mask(draw_key(m), len);
        const uint16_t value = removes ? RIB_NONE : (uint16_t)(draw(m) % 7 + 1);
        uint16_t before, ignored;
        for (int n = 0; n < 40; n++) {
            left = n;
            int r = rib_set(&rib, key, len, value, &before);
            if (!r && (r = poptrie_update(&trie, &rib, key, len)))
                assert_int_equal(rib_set(&rib, key, len, before, &ignored), 0);
            left = -1;
            failures += r != 0;
            if (!r) {
                rib_set(&rib, key, len, before, &ignored);
                poptrie_update(&trie, &rib, key, len);
                break;
            }
            compare(m, &trie, 3);
        }
        set_both(m, &rib, &trie, key, len, value);
        compare(m, &trie, 10);
        poptrie_reclaim(&trie);
    }
    assert_true(failures > 600);
    left = 3;
    assert_int_equal(poptrie_rebuild(&trie, &rib, 12), -ENOMEM);
    left = -1;
    compare(m, &trie, 500);
    poptrie_fini(&trie);
    rib_fini(&rib);
    free(m);
}

struct listing {
    struct route last;
    unsigned n, stop;
};

static bool list_one(void *arg, rib_key key, unsigned len, uint16_t value)
{
    struct listing *l = arg;
    if (l->n)
        assert_true(key > l->last.key || (key == l->last.key && len > l->last.len));
    l->last = (struct route){key, len, value};
    return ++l->n != l->stop;
}

// All routes in order, in pieces as well as at once.
static void test_walks_in_order(void **state)
{
    (void)state;
    struct model *m = calloc(1, sizeof(*m));
    struct rib rib = {0};
    struct poptrie trie;
    m->width = 128;
    m->random = 99;
    assert_int_equal(poptrie_init(&trie, 0), 0);
    for (unsigned i = 0; i < 2000; i++)
        step(m, &rib, &trie);
    struct listing all = {0};
    rib_walk(&rib, 0, 0, list_one, &all);
    assert_int_equal(all.n, m->n);
    unsigned sum = 0;
    for (struct listing part = {.stop = 7}; sum < m->n; sum += part.n - 1) {
        part.n = 0;
        rib_walk(&rib, part.last.key, part.last.len, list_one, &part);
        if (part.n < 7) {
            sum += part.n;
            break;
        }
    }
    assert_int_equal(sum, m->n);
    poptrie_fini(&trie);
    rib_fini(&rib);
    free(m);
}

// A hundred routes are no burden: a thousand networks of them have less than 32 MB of tables.
static void test_small_tables_are_small(void **state)
{
    (void)state;
    struct model m = {.width = 32, .random = 5};
    struct rib rib = {0};
    struct poptrie trie;
    uint16_t before;
    assert_int_equal(poptrie_init(&trie, 0), 0);
    for (unsigned i = 0; i < 100; i++) {
        const rib_key key = (rib_key)(0x0a000000u | (uint32_t)(draw(&m) & 0xffff) << 8) << 96;
        assert_int_equal(rib_set(&rib, key, 24, (uint16_t)(i % 8 + 1), &before), 0);
        assert_int_equal(poptrie_update(&trie, &rib, key, 24), 0);
    }
    poptrie_reclaim(&trie);
    assert_true(trie.bytes + rib.bytes < 32768);
    poptrie_fini(&trie);
    rib_fini(&rib);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ip4),
        cmocka_unit_test(test_ip4_direct),
        cmocka_unit_test(test_ip6),
        cmocka_unit_test(test_ip6_direct),
        cmocka_unit_test(test_readers_see_the_old_or_the_new),
        cmocka_unit_test(test_missing_memory),
        cmocka_unit_test(test_walks_in_order),
        cmocka_unit_test(test_small_tables_are_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
