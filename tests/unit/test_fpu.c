// The FPU against the host's: SSE in four rounding modes with its flags, the wider x87 and quad formats to decide the ties of the
// fifth. Random operands of every kind, each with and without NX set beforehand, since that opens the fast paths.
#include "machine/engine/rv64/fpu.h"
#include "machine/engine/rv64/rv64.h"

#include <fenv.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ROUNDS 100000

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t rnd(void) // xorshift64*
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return seed * 0x2545f4914f6cdd1d;
}

// --- operands: of every class, near each other, with few bits (so that ties happen)

static uint64_t operand(unsigned frac_bits, unsigned exp_bits)
{
    uint64_t frac_mask = ((uint64_t)1 << frac_bits) - 1, exp_mask = ((uint64_t)1 << exp_bits) - 1;
    uint64_t frac = rnd() & frac_mask, exp = rnd() & exp_mask, bias = exp_mask / 2;

    switch (rnd() % 8) {
    case 0:
        frac = 0;
        break;
    case 1:
        frac = frac_mask - rnd() % 3;
        break;
    case 2:
        frac = rnd() % 4;
        break;
    case 3:
        frac = (uint64_t)1 << rnd() % frac_bits;
        break;
    case 4:
        frac = (frac << frac_bits / 2) & frac_mask;
        break;
    default:
        break;
    }
    switch (rnd() % 8) {
    case 0:
        exp = 0;
        break;
    case 1:
        exp = exp_mask - rnd() % 2;
        break;
    case 2:
    case 3:
        exp = bias + rnd() % 8 - 4;
        break;
    case 4:
        exp = bias + rnd() % 140 - 70;
        break;
    case 5:
        exp = rnd() % 60;
        break;
    default:
        break;
    }
    return (rnd() & 1) << (frac_bits + exp_bits) | (exp & exp_mask) << frac_bits | frac;
}

static float operand_s(void)
{
    uint32_t bits = (uint32_t)operand(23, 8);
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static double operand_d(void)
{
    uint64_t bits = operand(52, 11);
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_s(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return isnan(value) ? 0x7fc00000 : bits;
}

static uint64_t bits_d(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return isnan(value) ? 0x7ff8000000000000 : bits;
}

static uint32_t raw_s(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint64_t raw_d(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// --- the host

static const int host_mode[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD, FE_TONEAREST};

static uint8_t host_flags(void)
{
    int raised = fetestexcept(FE_ALL_EXCEPT);

    return (uint8_t)((raised & FE_INEXACT ? RV64_NX : 0) | (raised & FE_UNDERFLOW ? RV64_UF : 0) |
                     (raised & FE_OVERFLOW ? RV64_OF : 0) | (raised & FE_DIVBYZERO ? RV64_DZ : 0) |
                     (raised & FE_INVALID ? RV64_NV : 0));
}

enum operation { ADD, SUB, MUL, DIV, SQRT, FMA, NARROW, N_OPERATIONS };
static const char *const names[] = {"add", "sub", "mul", "div", "sqrt", "fma", "narrow"};

#define HOST(type, root, fused)                                                                                                    \
    switch (op) {                                                                                                                  \
    case ADD:                                                                                                                      \
        return x + y;                                                                                                              \
    case SUB:                                                                                                                      \
        return x - y;                                                                                                              \
    case MUL:                                                                                                                      \
        return x * y;                                                                                                              \
    case DIV:                                                                                                                      \
        return x / y;                                                                                                              \
    case SQRT:                                                                                                                     \
        return root(x);                                                                                                            \
    default:                                                                                                                       \
        return fused(x, y, z);                                                                                                     \
    }

__attribute__((noinline)) static float host_s(enum operation op, float a, float b, float c)
{
    volatile float x = a, y = b, z = c;
    HOST(float, sqrtf, fmaf)
}

__attribute__((noinline)) static double host_d(enum operation op, double a, double b, double c)
{
    volatile double x = a, y = b, z = c;
    HOST(double, sqrt, fma)
}

// The operation in 64 bits (113 for the fused one): if that is not exact, the true result is no tie of the narrower format.
__attribute__((noinline)) static bool wide_exact(enum operation op, double a, double b, double c, __float128 *value)
{
    volatile long double x = a, y = b, result = 0;

    fesetround(FE_TOWARDZERO);
    feclearexcept(FE_ALL_EXCEPT);
    if (op == FMA) {
        volatile __float128 product = (__float128)a * b;
        *value = product + c;
    } else {
        result = op == ADD ? x + y : op == SUB ? x - y : op == MUL ? x * y : op == DIV ? x / y : op == SQRT ? sqrtl(x) : x;
        *value = result;
    }
    return !fetestexcept(FE_ALL_EXCEPT);
}

// Round to nearest, ties away from zero, out of the two neighbours and the nearest-even result. Both nearest modes raise the same
// flags: they differ only in ties, and there neither overflows nor is tiny where the other is not.
static double ties_away(double nearest, double down, double up, bool exact, __float128 value)
{
    if (!exact || down == up || isnan(nearest) || isinf(down) || isinf(up))
        return nearest;
    if (value != ((__float128)down + up) / 2)
        return nearest;
    return fabs(down) > fabs(up) ? down : up;
}

static double host_in_mode(bool single, enum operation op, int mode, const double x[static 3], uint8_t *flags)
{
    double result;

    fesetround(mode);
    feclearexcept(FE_ALL_EXCEPT);
    if (op == NARROW) {
        volatile double wide = x[0];
        volatile float narrow = (float)wide;
        result = narrow;
    } else {
        result = single ? host_s(op, (float)x[0], (float)x[1], (float)x[2]) : host_d(op, x[0], x[1], x[2]);
    }
    *flags = host_flags();
    fesetround(FE_TONEAREST);
    return result;
}

// single: the operands are singles in doubles, signalling NaNs excepted (they are tested by themselves).
static double expected(bool single, enum operation op, unsigned rm, const double x[static 3], uint8_t *flags)
{
    double result = host_in_mode(single, op, host_mode[rm], x, flags), down, up;
    uint8_t ignored;
    __float128 value;
    bool exact;

    if (rm != RV64_RMM)
        return result;
    down = host_in_mode(single, op, FE_DOWNWARD, x, &ignored);
    up = host_in_mode(single, op, FE_UPWARD, x, &ignored);
    exact = wide_exact(op, x[0], x[1], x[2], &value);
    fesetround(FE_TONEAREST);
    return ties_away(result, down, up, exact, value);
}

static uint64_t ours(bool single, enum operation op, unsigned rm, const double x[static 3], uint8_t *flags)
{
    uint32_t a = raw_s((float)x[0]), b = raw_s((float)x[1]), c = raw_s((float)x[2]);
    uint64_t da = raw_d(x[0]), db = raw_d(x[1]), dc = raw_d(x[2]);

    switch (op) {
    case ADD:
        return single ? fpu_add_s(a, b, rm, flags) : fpu_add_d(da, db, rm, flags);
    case SUB:
        return single ? fpu_sub_s(a, b, rm, flags) : fpu_sub_d(da, db, rm, flags);
    case MUL:
        return single ? fpu_mul_s(a, b, rm, flags) : fpu_mul_d(da, db, rm, flags);
    case DIV:
        return single ? fpu_div_s(a, b, rm, flags) : fpu_div_d(da, db, rm, flags);
    case SQRT:
        return single ? fpu_sqrt_s(a, rm, flags) : fpu_sqrt_d(da, rm, flags);
    case FMA:
        return single ? fpu_fma_s(a, b, c, rm, flags) : fpu_fma_d(da, db, dc, rm, flags);
    default:
        return fpu_d_to_s(da, rm, flags);
    }
}

static bool is_signalling_d(double value)
{
    return isnan(value) && !(raw_d(value) & 0x0008000000000000);
}

static void operands(bool single, double x[static 3])
{
    for (unsigned i = 0; i < 3; i++)
        do {
            x[i] = single ? (double)operand_s() : operand_d();
        } while (is_signalling_d(x[i]));
    if (rnd() % 4 == 0) // cancellation
        x[2] = single ? -(double)((float)x[0] * (float)x[1]) : -(x[0] * x[1]);
    if (isnan(x[2]))
        x[2] = 0;
}

static void check(bool single, enum operation op, unsigned rm, const double x[static 3])
{
    uint8_t want_flags;
    double value = expected(single, op, rm, x, &want_flags);
    uint64_t want = single || op == NARROW ? bits_s((float)value) : bits_d(value);

    for (unsigned before = 0; before <= RV64_NX; before++) {
        uint8_t flags = (uint8_t)before;
        uint64_t got = ours(single, op, rm, x, &flags);
        if (got != want || flags != (want_flags | before))
            fail_msg("%s_%c rm %u flags before %u: %a %a %a gives %" PRIx64 " flags %02x, not %" PRIx64 " flags %02x", names[op],
                     single ? 's' : 'd', rm, before, x[0], x[1], x[2], got, flags, want, want_flags | before);
    }
}

static void test_arithmetic(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        bool single = rnd() & 1;
        double x[3];
        operands(single, x);
        for (unsigned rm = 0; rm <= RV64_RMM; rm++)
            for (enum operation op = 0; op < N_OPERATIONS; op++)
                if (op != NARROW || !single)
                    check(single, op, rm, x);
    }
}

static void test_narrowing_near_single(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) { // a few units beside a single, or beside the middle of two
        double x[3] = {operand_s()};
        uint64_t bits = raw_d(x[0]) + (rnd() % 5 - 2) + (rnd() & 1 ? (uint64_t)1 << 28 : 0);
        memcpy(&x[0], &bits, sizeof bits);
        if (is_signalling_d(x[0]))
            continue;
        for (unsigned rm = 0; rm <= RV64_RMM; rm++)
            check(false, NARROW, rm, x);
    }
}

// --- conversions

static void check_to_integer(long double x, unsigned rm, long double min, long double max, uint64_t low, uint64_t high,
                             uint64_t got, uint8_t flags, const char *what)
{
    long double whole;
    uint64_t want;
    uint8_t want_flags = 0;

    fesetround(host_mode[rm]);
    whole = rm == RV64_RMM ? roundl(x) : rintl(x);
    fesetround(FE_TONEAREST);
    if (isnan(x) || whole > max || whole < min) {
        want = isnan(x) || whole > max ? high : low;
        want_flags = RV64_NV;
    } else {
        want = whole < 0 ? (uint64_t)(int64_t)whole : (uint64_t)whole;
        want_flags = whole != x ? RV64_NX : 0;
    }
    if (got != want || flags != want_flags)
        fail_msg("%s rm %u: %La gives %" PRIx64 " flags %02x, not %" PRIx64 " flags %02x", what, rm, x, got, flags, want,
                 want_flags);
}

#define TO_INTEGER(function, bits, min, max)                                                                                       \
    flags = 0;                                                                                                                     \
    got = (uint64_t)function(bits, rm, &flags);                                                                                    \
    check_to_integer(x, rm, (long double)(min), (long double)(max), (uint64_t)(min), (uint64_t)(max), got, flags, #function)

static void test_to_integer(void **state)
{
    uint8_t flags;
    uint64_t got;

    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        float s = operand_s();
        double d = operand_d();
        if (rnd() & 1) // halves and quarters
            d = (double)(int64_t)(rnd() >> rnd() % 63) / 4;
        for (unsigned rm = 0; rm <= RV64_RMM; rm++) {
            long double x = s;
            TO_INTEGER(fpu_s_to_i32, raw_s(s), INT32_MIN, INT32_MAX);
            TO_INTEGER(fpu_s_to_u32, raw_s(s), 0, UINT32_MAX);
            TO_INTEGER(fpu_s_to_i64, raw_s(s), INT64_MIN, INT64_MAX);
            TO_INTEGER(fpu_s_to_u64, raw_s(s), 0, UINT64_MAX);
            x = d;
            TO_INTEGER(fpu_d_to_i32, raw_d(d), INT32_MIN, INT32_MAX);
            TO_INTEGER(fpu_d_to_u32, raw_d(d), 0, UINT32_MAX);
            TO_INTEGER(fpu_d_to_i64, raw_d(d), INT64_MIN, INT64_MAX);
            TO_INTEGER(fpu_d_to_u64, raw_d(d), 0, UINT64_MAX);
        }
    }
}

// A 64-bit integer is exact in x87's format, and so is the middle of two neighbours.
static double integer_in_mode(long double exact, bool single, int mode, uint8_t *flags)
{
    volatile long double x = exact;
    volatile double result;
    volatile float narrow;

    fesetround(mode);
    feclearexcept(FE_ALL_EXCEPT);
    if (single) // through a volatile, lest both be computed and the flags mixed
        result = narrow = (float)x;
    else
        result = (double)x;
    *flags = host_flags();
    fesetround(FE_TONEAREST);
    return result;
}

static void check_from_integer(long double exact, bool single, unsigned rm, uint64_t got, uint8_t flags)
{
    uint8_t want_flags, ignored;
    double value = integer_in_mode(exact, single, host_mode[rm], &want_flags);

    if (rm == RV64_RMM)
        value = ties_away(value, integer_in_mode(exact, single, FE_DOWNWARD, &ignored),
                          integer_in_mode(exact, single, FE_UPWARD, &ignored), true, exact);
    if (got != (single ? bits_s((float)value) : bits_d(value)) || flags != want_flags)
        fail_msg("%Lf rm %u gives %" PRIx64 " flags %02x, not %a flags %02x", exact, rm, got, flags, value, want_flags);
}

#define FROM_INTEGER(function, value, single)                                                                                      \
    flags = 0;                                                                                                                     \
    got = function(value, rm, &flags);                                                                                             \
    check_from_integer(value, single, rm, got, flags)

static void test_from_integer(void **state)
{
    uint8_t flags;
    uint64_t got;

    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t a = rnd() >> rnd() % 64 << rnd() % 64;
        for (unsigned rm = 0; rm <= RV64_RMM; rm++) {
            FROM_INTEGER(fpu_i64_to_s, (int64_t)a, true);
            FROM_INTEGER(fpu_u64_to_s, a, true);
            FROM_INTEGER(fpu_i64_to_d, (int64_t)a, false);
            FROM_INTEGER(fpu_u64_to_d, a, false);
            FROM_INTEGER(fpu_i32_to_s, (int32_t)a, true);
            FROM_INTEGER(fpu_u32_to_s, (uint32_t)a, true);
        }
        check_from_integer((int32_t)a, false, 0, fpu_i32_to_d((int32_t)a), 0);
        check_from_integer((uint32_t)a, false, 0, fpu_u32_to_d((uint32_t)a), 0);
    }
}

static void test_widening(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t a = (uint32_t)operand(23, 8);
        uint8_t flags = 0;
        uint64_t got = fpu_s_to_d(a, &flags);
        float s;
        memcpy(&s, &a, sizeof s);
        assert_int_equal(got, bits_d((double)s));
        assert_int_equal(flags, isnan(s) && !(a & 0x00400000) ? RV64_NV : 0);
    }
}

// --- comparisons and the rest, by the words of the specification

static void test_compare(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        double a = operand_d(), b = rnd() % 4 ? operand_d() : rnd() & 1 ? a : -a;
        float c = operand_s(), d = rnd() % 4 ? operand_s() : rnd() & 1 ? c : -c;
        bool nan_d = isnan(a) || isnan(b), nan_s = isnan(c) || isnan(d);
        bool signalling_d = is_signalling_d(a) || is_signalling_d(b);
        bool signalling_s = (isnan(c) && !(raw_s(c) & 0x400000)) || (isnan(d) && !(raw_s(d) & 0x400000));
        uint8_t f = 0;

        assert_int_equal(fpu_eq_d(raw_d(a), raw_d(b), &f), a == b);
        assert_int_equal(f, signalling_d ? RV64_NV : 0);
        f = 0;
        assert_int_equal(fpu_eq_s(raw_s(c), raw_s(d), &f), c == d);
        assert_int_equal(f, signalling_s ? RV64_NV : 0);
        f = 0;
        assert_int_equal(fpu_lt_d(raw_d(a), raw_d(b), &f), a < b);
        assert_int_equal(f, nan_d ? RV64_NV : 0);
        assert_int_equal(fpu_le_d(raw_d(a), raw_d(b), &f), a <= b);
        f = 0;
        assert_int_equal(fpu_le_s(raw_s(c), raw_s(d), &f), c <= d);
        assert_int_equal(f, nan_s ? RV64_NV : 0);
        assert_int_equal(fpu_lt_s(raw_s(c), raw_s(d), &f), c < d);
    }
}

static uint64_t extreme_d(double a, double b, bool maximum)
{
    if (isnan(a))
        return bits_d(b);
    if (isnan(b))
        return bits_d(a);
    if (a == b) // zeros of two signs too
        return (signbit(a) != 0) == maximum ? bits_d(b) : bits_d(a);
    return (a < b) == maximum ? bits_d(b) : bits_d(a);
}

static void test_min_max(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        double a = operand_d(), b = rnd() % 4 ? operand_d() : -a;
        float c = operand_s(), d = rnd() % 4 ? operand_s() : -c;
        bool signalling_s = (isnan(c) && !(raw_s(c) & 0x400000)) || (isnan(d) && !(raw_s(d) & 0x400000));
        uint8_t f = 0, none = 0;

        assert_int_equal(fpu_min_d(raw_d(a), raw_d(b), &f), extreme_d(a, b, false));
        assert_int_equal(fpu_max_d(raw_d(a), raw_d(b), &f), extreme_d(a, b, true));
        assert_int_equal(f, is_signalling_d(a) || is_signalling_d(b) ? RV64_NV : 0);
        f = 0;
        assert_int_equal(fpu_s_to_d(fpu_min_s(raw_s(c), raw_s(d), &f), &none), extreme_d((double)c, (double)d, false));
        assert_int_equal(fpu_s_to_d(fpu_max_s(raw_s(c), raw_s(d), &f), &none), extreme_d((double)c, (double)d, true));
        assert_int_equal(none, 0);
        assert_int_equal(f, signalling_s ? RV64_NV : 0);
    }
}

static void test_class(void **state)
{
    static const struct {
        uint32_t s;
        uint64_t d;
        unsigned bit;
    } rows[] = {
        {0xff800000, 0xfff0000000000000, 0}, {0xbf800000, 0xbff0000000000000, 1}, {0x80000001, 0x8000000000000001, 2},
        {0x80000000, 0x8000000000000000, 3}, {0x00000000, 0x0000000000000000, 4}, {0x007fffff, 0x000fffffffffffff, 5},
        {0x00800000, 0x0010000000000000, 6}, {0x7f800000, 0x7ff0000000000000, 7}, {0x7f800001, 0x7ff0000000000001, 8},
        {0xffc00000, 0xfff8000000000000, 9},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(fpu_class_s(rows[i].s), 1u << rows[i].bit);
        assert_int_equal(fpu_class_d(rows[i].d), 1u << rows[i].bit);
    }
}

// A signalling NaN raises NV wherever it stands; infinity times zero does even beside a quiet NaN (unprivileged ISA 20.3, 20.6).
static void test_nans(void **state)
{
    const uint64_t snan = 0x7ff0000000000001, qnan = 0xfff8000000000123, one = 0x3ff0000000000000, inf = 0x7ff0000000000000;
    const uint64_t canonical = 0x7ff8000000000000;
    uint8_t f;

    (void)state;
#define GIVES_NAN(call, want)                                                                                                      \
    f = 0;                                                                                                                         \
    assert_int_equal(call, canonical);                                                                                             \
    assert_int_equal(f, want)
    GIVES_NAN(fpu_add_d(snan, one, 0, &f), RV64_NV);
    GIVES_NAN(fpu_sub_d(one, snan, 0, &f), RV64_NV);
    GIVES_NAN(fpu_mul_d(qnan, snan, 0, &f), RV64_NV);
    GIVES_NAN(fpu_div_d(qnan, one, 0, &f), 0);
    GIVES_NAN(fpu_sqrt_d(snan, 0, &f), RV64_NV);
    GIVES_NAN(fpu_sqrt_d(qnan, 0, &f), 0);
    GIVES_NAN(fpu_fma_d(one, one, snan, 0, &f), RV64_NV);
    GIVES_NAN(fpu_fma_d(one, qnan, one, 0, &f), 0);
    GIVES_NAN(fpu_fma_d(inf, 0, qnan, 0, &f), RV64_NV);
    GIVES_NAN(fpu_fma_d(0, inf, one, 0, &f), RV64_NV);
#undef GIVES_NAN
    f = 0;
    assert_int_equal(fpu_d_to_s(snan, 0, &f), 0x7fc00000);
    assert_int_equal(f, RV64_NV);
    f = 0;
    assert_int_equal(fpu_min_s(0x7f800001, 0x3f800000, &f), 0x3f800000);
    assert_int_equal(f, RV64_NV);
    assert_int_equal(fpu_max_s(0x7f800001, 0xffc00001, &f), 0x7fc00000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arithmetic), cmocka_unit_test(test_narrowing_near_single),
        cmocka_unit_test(test_to_integer), cmocka_unit_test(test_from_integer),
        cmocka_unit_test(test_widening),   cmocka_unit_test(test_compare),
        cmocka_unit_test(test_min_max),    cmocka_unit_test(test_class),
        cmocka_unit_test(test_nans),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
