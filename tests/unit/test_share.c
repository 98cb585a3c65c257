// Water-filling: by hand where the result is plain, and by its properties over random shares.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "promise/share.h"

typedef unsigned __int128 u128;
enum { N_MAX = 40, ROUNDS = 20000 };

static void expect(const char *what, struct share *shares, size_t n, uint64_t total, uint64_t left, const uint64_t *given)
{
    const uint64_t found = share_fill(shares, n, total);
    if (found != left)
        fail_msg("%s: %llu left, not %llu", what, (unsigned long long)found, (unsigned long long)left);
    for (size_t i = 0; i < n; i++)
        if (shares[i].given != given[i])
            fail_msg("%s: share %zu has %llu, not %llu", what, i, (unsigned long long)shares[i].given,
                     (unsigned long long)given[i]);
}

static void test_by_hand(void **state)
{
    (void)state;
    const uint64_t no_limit = UINT64_MAX;
    expect("equal", (struct share[]){{0, no_limit, 1, 9}, {0, no_limit, 1, 9}}, 2, 100, 0, (uint64_t[]){50, 50});
    expect("weights", (struct share[]){{0, no_limit, 100, 0}, {0, no_limit, 300, 0}}, 2, 1000, 0, (uint64_t[]){250, 750});
    expect("a reserve", (struct share[]){{600, no_limit, 1, 0}, {0, no_limit, 1, 0}, {0, no_limit, 3, 0}}, 3, 1000, 0,
           (uint64_t[]){600, 100, 300});
    expect("a limit", (struct share[]){{0, 100, 1, 0}, {0, no_limit, 1, 0}, {0, no_limit, 2, 0}}, 3, 1000, 0,
           (uint64_t[]){100, 300, 600});
    expect("both", (struct share[]){{500, 800, 1, 0}, {0, 100, 5, 0}, {0, no_limit, 2, 0}}, 3, 1000, 0,
           (uint64_t[]){500, 100, 400});
    expect("one unit over", (struct share[]){{0, no_limit, 7, 0}, {0, no_limit, 7, 0}, {0, no_limit, 7, 0}}, 3, 100, 0,
           (uint64_t[]){34, 33, 33});
    expect("more than is wanted", (struct share[]){{5, 10, 1, 0}, {0, 20, 9, 0}}, 2, 100, 70, (uint64_t[]){10, 20});
    expect("exactly what is wanted", (struct share[]){{5, 10, 1, 0}, {0, 20, 9, 0}}, 2, 30, 0, (uint64_t[]){10, 20});
    expect("no weights", (struct share[]){{5, 10, 0, 0}, {7, 20, 0, 0}}, 2, 100, 88, (uint64_t[]){5, 7});
    expect("too little", (struct share[]){{300, 400, 1, 0}, {100, 900, 9, 0}, {0, 5, 1, 0}}, 3, 200, 0, (uint64_t[]){150, 50, 0});
    expect("exactly the reserves", (struct share[]){{300, 400, 1, 0}, {100, 900, 9, 0}}, 2, 400, 0, (uint64_t[]){300, 100});
    expect("nothing", (struct share[]){{300, 400, 1, 0}, {0, 900, 9, 0}}, 2, 0, 0, (uint64_t[]){0, 0});
    expect("a low above its high", (struct share[]){{300, 40, 1, 0}, {0, 900, 1, 0}}, 2, 500, 0, (uint64_t[]){40, 460});
    expect("large", (struct share[]){{0, no_limit, UINT32_MAX, 0}, {no_limit, no_limit, 1, 0}}, 2, no_limit, 0,
           (uint64_t[]){0, no_limit});
    expect("large and scarce", (struct share[]){{no_limit - 1, no_limit, 1, 0}, {1, no_limit, 1, 0}}, 2, no_limit - 1, 0,
           (uint64_t[]){no_limit - 2, 1});
    assert_true(share_fill(NULL, 0, 5) == 5);
}

static uint64_t next_random(uint64_t *x) // xorshift64 (Marsaglia 2003)
{
    *x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
    return *x;
}

static size_t random_shares(struct share shares[static N_MAX], uint64_t *x)
{
    const size_t n = 1 + next_random(x) % N_MAX;
    const unsigned bits = (unsigned)(6 + next_random(x) % 58); // of large values and of small ones; the lows' sum is below 2^64
    const bool limited = next_random(x) % 4 == 0;              // all of them, so that something may be left over
    for (size_t i = 0; i < n; i++) {
        const uint64_t a = next_random(x) >> bits, b = next_random(x) >> bits;
        shares[i] = (struct share){.low = a < b ? a : b, .high = a < b ? b : a};
        if (next_random(x) % 2)
            shares[i].low = 0;
        if (!limited && next_random(x) % 2)
            shares[i].high = UINT64_MAX;
        shares[i].weight = (uint32_t)(next_random(x) >> (32 + next_random(x) % 31));
    }
    return n;
}

static uint64_t absolute(u128 a, u128 b)
{
    const u128 d = a > b ? a - b : b - a;
    return d > UINT64_MAX ? UINT64_MAX : (uint64_t)d;
}

// Each pair of shares, compared in g * weight of the other, so that nothing is divided. A rounding of less than 1 in each leaves
// them apart by less than the sum of the weights.
static void check_pair(const struct share *a, const struct share *b)
{
    const u128 ga = (u128)a->given * b->weight, gb = (u128)b->given * a->weight;
    const uint64_t rounding = (uint64_t)a->weight + b->weight;
    if (ga < gb && absolute(ga, gb) > rounding)
        assert_true(a->given == a->high || b->given == b->low); // only a bound keeps a below the level, or b above it
}

static void check_fill(const struct share *shares, size_t n, uint64_t total, uint64_t left)
{
    u128 sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += shares[i].given;
        assert_true(shares[i].given >= shares[i].low && shares[i].given <= shares[i].high);
        assert_true(shares[i].weight || shares[i].given == shares[i].low);
        assert_true(!left || !shares[i].weight || shares[i].given == shares[i].high);
        for (size_t j = 0; j < n; j++)
            if (shares[i].weight && shares[j].weight)
                check_pair(&shares[i], &shares[j]);
    }
    assert_true(sum + left == total);
}

static void check_scarce(const struct share *shares, size_t n, uint64_t total, u128 lows, uint64_t left)
{
    u128 sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += shares[i].given;
        assert_true(shares[i].given <= shares[i].low);
        // |given - low * total / lows| < 1
        assert_true(absolute((u128)shares[i].given * lows, (u128)shares[i].low * total) < lows);
    }
    assert_true(sum == total && left == 0);
}

static void test_properties(void **state)
{
    (void)state;
    uint64_t x = 88172645463325252ull;
    unsigned scarce = 0, filled = 0, rest = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct share shares[N_MAX];
        const size_t n = random_shares(shares, &x);
        u128 lows = 0;
        for (size_t i = 0; i < n; i++)
            lows += shares[i].low;
        const uint64_t total = next_random(&x) >> (next_random(&x) % 64);
        const uint64_t left = share_fill(shares, n, total);
        if (lows > total)
            check_scarce(shares, n, total, lows, left);
        else
            check_fill(shares, n, total, left);
        scarce += lows > total, rest += left > 0, filled += lows <= total && !left;
    }
    assert_true(scarce > ROUNDS / 20 && filled > ROUNDS / 20 && rest > ROUNDS / 50); // each case was there
}

// What a scheduler asks: one more unit to divide takes nothing from anybody, to the rounding.
static void test_monotone(void **state)
{
    (void)state;
    uint64_t x = 2463534242ull;
    for (unsigned round = 0; round < ROUNDS / 10; round++) {
        struct share before[N_MAX], after[N_MAX];
        const size_t n = random_shares(before, &x);
        memcpy(after, before, sizeof(after));
        const uint64_t total = next_random(&x) >> (1 + next_random(&x) % 63);
        share_fill(before, n, total);
        share_fill(after, n, total + 1);
        for (size_t i = 0; i < n; i++)
            assert_true(after[i].given + 1 >= before[i].given);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_properties),
        cmocka_unit_test(test_monotone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
