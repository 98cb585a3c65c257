// IEEE 754 comparisons, minimum and maximum, classes and conversions as RISC-V wants them (fpu.h). Pure functions, any thread.
#include "machine/engine/rv64/fpu.h"

#include "machine/engine/rv64/fpu_number.h"

// --- comparisons

static bool is_nan(const struct fpu_format *format, uint64_t a)
{
    return (a & (format->sign - 1)) > format->infinity;
}

static bool is_signalling(const struct fpu_format *format, uint64_t a)
{
    return is_nan(format, a) && !(a & format->quiet);
}

// A key that orders all numbers, -0 just below +0.
static int64_t order(const struct fpu_format *format, uint64_t a)
{
    int64_t magnitude = (int64_t)(a & (format->sign - 1));

    return a & format->sign ? -magnitude - 1 : magnitude;
}

static bool both_zero(const struct fpu_format *format, uint64_t a, uint64_t b)
{
    return ((a | b) & (format->sign - 1)) == 0;
}

static int equal(const struct fpu_format *format, uint64_t a, uint64_t b, uint8_t *flags)
{
    if (is_nan(format, a) || is_nan(format, b)) {
        if (is_signalling(format, a) || is_signalling(format, b))
            *flags |= RV64_NV;
        return 0;
    }
    return a == b || both_zero(format, a, b);
}

static int less(const struct fpu_format *format, uint64_t a, uint64_t b, bool or_equal, uint8_t *flags)
{
    if (is_nan(format, a) || is_nan(format, b)) {
        *flags |= RV64_NV;
        return 0;
    }
    if (a == b || both_zero(format, a, b))
        return or_equal;
    return order(format, a) < order(format, b);
}

static uint64_t extreme(const struct fpu_format *format, uint64_t a, uint64_t b, bool maximum, uint8_t *flags)
{
    if (is_signalling(format, a) || is_signalling(format, b))
        *flags |= RV64_NV;
    if (is_nan(format, a))
        return is_nan(format, b) ? format->canonical : b;
    if (is_nan(format, b))
        return a;
    return (order(format, a) < order(format, b)) == maximum ? b : a;
}

int fpu_eq_s(uint32_t a, uint32_t b, uint8_t *flags)
{
    return equal(&fpu_single, a, b, flags);
}

int fpu_eq_d(uint64_t a, uint64_t b, uint8_t *flags)
{
    return equal(&fpu_double, a, b, flags);
}

int fpu_lt_s(uint32_t a, uint32_t b, uint8_t *flags)
{
    return less(&fpu_single, a, b, false, flags);
}

int fpu_lt_d(uint64_t a, uint64_t b, uint8_t *flags)
{
    return less(&fpu_double, a, b, false, flags);
}

int fpu_le_s(uint32_t a, uint32_t b, uint8_t *flags)
{
    return less(&fpu_single, a, b, true, flags);
}

int fpu_le_d(uint64_t a, uint64_t b, uint8_t *flags)
{
    return less(&fpu_double, a, b, true, flags);
}

uint32_t fpu_min_s(uint32_t a, uint32_t b, uint8_t *flags)
{
    return (uint32_t)extreme(&fpu_single, a, b, false, flags);
}

uint64_t fpu_min_d(uint64_t a, uint64_t b, uint8_t *flags)
{
    return extreme(&fpu_double, a, b, false, flags);
}

uint32_t fpu_max_s(uint32_t a, uint32_t b, uint8_t *flags)
{
    return (uint32_t)extreme(&fpu_single, a, b, true, flags);
}

uint64_t fpu_max_d(uint64_t a, uint64_t b, uint8_t *flags)
{
    return extreme(&fpu_double, a, b, true, flags);
}

// Bits as in the table of FCLASS, unprivileged ISA 20.9: -inf, -normal, -subnormal, -0, +0, ... +inf, signalling, quiet.
static unsigned class_of(const struct fpu_format *format, uint64_t a)
{
    uint64_t magnitude = a & (format->sign - 1);
    unsigned rank; // 0 zero, 1 subnormal, 2 normal, 3 infinite

    if (is_nan(format, a))
        return a & format->quiet ? 1u << 9 : 1u << 8;
    if (magnitude >> format->frac_bits)
        rank = magnitude == format->infinity ? 3 : 2;
    else
        rank = magnitude != 0;
    return a & format->sign ? 1u << (3 - rank) : 1u << (4 + rank);
}

unsigned fpu_class_s(uint32_t a)
{
    return class_of(&fpu_single, a);
}

unsigned fpu_class_d(uint64_t a)
{
    return class_of(&fpu_double, a);
}

// --- to integers

// The magnitude of a finite number below 2^64, rounded to an integer. *carries: it became 2^64. *inexact: something was cut.
static uint64_t integer_magnitude(const struct fpu_number *n, unsigned rm, bool *carries, bool *inexact)
{
    // With 64 bits before and 64 behind the point.
    unsigned __int128 fixed = n->exp < -1 ? fpu_shift_jam(n->frac, -1 - n->exp) : (unsigned __int128)n->frac << (n->exp + 1);
    uint64_t whole = (uint64_t)(fixed >> 64), rest = (uint64_t)fixed;
    uint64_t tail = whole << 63 | fpu_shift_jam(rest, 1); // the last bit that stays, and all that goes
    bool up = (tail + fpu_rounding_increment(tail, 63, n->negative, rm)) >> 63 != (whole & 1);

    *inexact = rest != 0;
    *carries = up && whole == UINT64_MAX;
    return whole + up;
}

// Saturates at [min, max] as in table 29 of the unprivileged ISA; a NaN counts as +infinity. min_magnitude is -min.
static uint64_t to_integer(const struct fpu_format *format, uint64_t bits, uint64_t min_magnitude, uint64_t max, unsigned rm,
                           uint8_t *flags)
{
    struct fpu_number n = fpu_unpack(format, bits);
    bool negative = n.negative && !fpu_is_nan(&n), carries = false, inexact = false;
    uint64_t magnitude = 0, limit = negative ? min_magnitude : max;

    if (n.kind == FPU_ZERO)
        return 0;
    if (n.kind == FPU_FINITE && n.exp < 64)
        magnitude = integer_magnitude(&n, rm, &carries, &inexact);
    if (n.kind != FPU_FINITE || n.exp >= 64 || carries || magnitude > limit) {
        *flags |= RV64_NV;
        magnitude = limit;
    } else if (inexact) {
        *flags |= RV64_NX;
    }
    return negative ? -magnitude : magnitude;
}

int32_t fpu_s_to_i32(uint32_t a, unsigned rm, uint8_t *flags)
{
    return (int32_t)to_integer(&fpu_single, a, (uint64_t)1 << 31, INT32_MAX, rm, flags);
}

uint32_t fpu_s_to_u32(uint32_t a, unsigned rm, uint8_t *flags)
{
    return (uint32_t)to_integer(&fpu_single, a, 0, UINT32_MAX, rm, flags);
}

int64_t fpu_s_to_i64(uint32_t a, unsigned rm, uint8_t *flags)
{
    return (int64_t)to_integer(&fpu_single, a, (uint64_t)1 << 63, INT64_MAX, rm, flags);
}

uint64_t fpu_s_to_u64(uint32_t a, unsigned rm, uint8_t *flags)
{
    return to_integer(&fpu_single, a, 0, UINT64_MAX, rm, flags);
}

// C casts are these two with truncation: worth a path on the host. A double cut to an integer converts back exactly, so the
// comparison finds out whether anything was lost.
int32_t fpu_d_to_i32(uint64_t a, unsigned rm, uint8_t *flags)
{
    double value = fpu_to_double(a);

    if (rm == RV64_RTZ && value > -0x1p31 && value < 0x1p31) {
        int32_t whole = (int32_t)value;
        if ((double)whole != value)
            *flags |= RV64_NX;
        return whole;
    }
    return (int32_t)to_integer(&fpu_double, a, (uint64_t)1 << 31, INT32_MAX, rm, flags);
}

int64_t fpu_d_to_i64(uint64_t a, unsigned rm, uint8_t *flags)
{
    double value = fpu_to_double(a);

    if (rm == RV64_RTZ && value > -0x1p63 && value < 0x1p63) {
        int64_t whole = (int64_t)value;
        if ((double)whole != value)
            *flags |= RV64_NX;
        return whole;
    }
    return (int64_t)to_integer(&fpu_double, a, (uint64_t)1 << 63, INT64_MAX, rm, flags);
}

uint32_t fpu_d_to_u32(uint64_t a, unsigned rm, uint8_t *flags)
{
    return (uint32_t)to_integer(&fpu_double, a, 0, UINT32_MAX, rm, flags);
}

uint64_t fpu_d_to_u64(uint64_t a, unsigned rm, uint8_t *flags)
{
    return to_integer(&fpu_double, a, 0, UINT64_MAX, rm, flags);
}

// --- from integers

static uint64_t from_integer(const struct fpu_format *format, bool negative, uint64_t magnitude, unsigned rm, uint8_t *flags)
{
    struct fpu_number n = {.kind = FPU_FINITE, .negative = negative};
    int shift;

    if (magnitude == 0)
        return 0;
    shift = __builtin_clzll(magnitude);
    n.frac = magnitude << shift;
    n.exp = 63 - shift;
    return fpu_round(format, &n, rm, flags);
}

uint32_t fpu_i64_to_s(int64_t a, unsigned rm, uint8_t *flags)
{
    return (uint32_t)from_integer(&fpu_single, a < 0, a < 0 ? -(uint64_t)a : (uint64_t)a, rm, flags);
}

uint32_t fpu_u64_to_s(uint64_t a, unsigned rm, uint8_t *flags)
{
    return (uint32_t)from_integer(&fpu_single, false, a, rm, flags);
}

uint32_t fpu_i32_to_s(int32_t a, unsigned rm, uint8_t *flags)
{
    return fpu_i64_to_s(a, rm, flags);
}

uint32_t fpu_u32_to_s(uint32_t a, unsigned rm, uint8_t *flags)
{
    return fpu_u64_to_s(a, rm, flags);
}

uint64_t fpu_i32_to_d(int32_t a)
{
    return fpu_from_double((double)a);
}

uint64_t fpu_u32_to_d(uint32_t a)
{
    return fpu_from_double((double)a);
}

uint64_t fpu_i64_to_d(int64_t a, unsigned rm, uint8_t *flags)
{
    if (a >= -((int64_t)1 << 53) && a <= (int64_t)1 << 53) // exact
        return fpu_from_double((double)a);
    return from_integer(&fpu_double, a < 0, a < 0 ? -(uint64_t)a : (uint64_t)a, rm, flags);
}

uint64_t fpu_u64_to_d(uint64_t a, unsigned rm, uint8_t *flags)
{
    if (a <= (uint64_t)1 << 53)
        return fpu_from_double((double)a);
    return from_integer(&fpu_double, false, a, rm, flags);
}

// --- between the formats

static uint64_t convert(const struct fpu_format *to, const struct fpu_format *from, uint64_t bits, unsigned rm, uint8_t *flags)
{
    struct fpu_number n = fpu_unpack(from, bits);
    uint64_t sign = n.negative ? to->sign : 0;

    switch (n.kind) {
    case FPU_SIGNALLING_NAN:
        *flags |= RV64_NV;
        return to->canonical;
    case FPU_QUIET_NAN:
        return to->canonical;
    case FPU_INFINITE:
        return sign | to->infinity;
    case FPU_ZERO:
        return sign;
    default:
        return fpu_round(to, &n, rm, flags);
    }
}

uint32_t fpu_d_to_s(uint64_t a, unsigned rm, uint8_t *flags)
{
    if (fpu_may_use_host(rm, flags)) {
        uint32_t narrow = fpu_from_float((float)fpu_to_double(a));
        if (fpu_is_plain_single(narrow))
            return narrow;
    }
    return (uint32_t)convert(&fpu_single, &fpu_double, a, rm, flags);
}

uint64_t fpu_s_to_d(uint32_t a, uint8_t *flags)
{
    if (fpu_is_plain_single(a)) // every single is a double
        return fpu_from_double((double)fpu_to_float(a));
    return convert(&fpu_double, &fpu_single, a, RV64_RNE, flags);
}
