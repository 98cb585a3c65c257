// What the two halves of the FPU share: an unpacked IEEE 754 number and the one place where results are rounded and packed.
// Private to fpu.c, fpu_convert.c and fpu_number.c.
#pragma once

#include "machine/engine/rv64/fpu.h"
#include "machine/engine/rv64/rv64.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct fpu_format {
    int frac_bits;      // stored bits of the significand
    int emin, emax;     // exponents of the normal numbers
    uint64_t sign;      // the sign bit
    uint64_t infinity;  // exponent all ones, fraction zero
    uint64_t quiet;     // the bit that makes a NaN a quiet one
    uint64_t canonical; // the NaN that every operation returns (unprivileged ISA 20.3)
};

extern const struct fpu_format fpu_single, fpu_double;

enum fpu_kind { FPU_ZERO, FPU_FINITE, FPU_INFINITE, FPU_QUIET_NAN, FPU_SIGNALLING_NAN };

// A finite number is frac * 2^(exp - 63), and bit 63 of frac is set: subnormals come normalized.
struct fpu_number {
    enum fpu_kind kind;
    bool negative;
    int exp;
    uint64_t frac;
};

struct fpu_number fpu_unpack(const struct fpu_format *format, uint64_t bits);

// Rounds the finite number to the format. The lowest bit of frac also stands for everything nonzero below it ("sticky"); both
// formats leave at least ten bits under their own, so that this is exact. Raises NX, OF and UF; tininess is detected after
// rounding, as section 20.4 wants it.
uint64_t fpu_round(const struct fpu_format *format, const struct fpu_number *number, unsigned rm, uint8_t *flags);

// What is to be added to `frac` so that cutting off its `drop` lowest bits then rounds it by rm. drop is 1..63.
static inline uint64_t fpu_rounding_increment(uint64_t frac, int drop, bool negative, unsigned rm)
{
    uint64_t mask = ((uint64_t)1 << drop) - 1, half = (uint64_t)1 << (drop - 1);

    switch (rm) {
    case RV64_RNE:
        return half - 1 + (frac >> drop & 1);
    case RV64_RMM:
        return half;
    case RV64_RDN:
        return negative ? mask : 0;
    case RV64_RUP:
        return negative ? 0 : mask;
    default:
        return 0;
    }
}

// Shifts right and keeps in the lowest bit whether anything was lost.
static inline uint64_t fpu_shift_jam(uint64_t frac, int n)
{
    if (n == 0)
        return frac;
    return n > 63 ? frac != 0 : frac >> n | (frac << (64 - n) != 0);
}

static inline bool fpu_is_nan(const struct fpu_number *number)
{
    return number->kind >= FPU_QUIET_NAN;
}

static inline float fpu_to_float(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline double fpu_to_double(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t fpu_from_float(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline uint64_t fpu_from_double(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// The fast paths let the host compute. It always runs in round-to-nearest with exceptions masked, so its result is the right one;
// only the flags are not looked at. Therefore a fast path is taken when NX is set already (it is sticky, and after the first
// inexact operation of a program it stays), and its result counts only if no other flag can have come up: it must be finite and
// above the smallest normal number. (A NaN or an infinity among the operands shows in the result, or makes a zero of it.)
static inline bool fpu_may_use_host(unsigned rm, const uint8_t *flags)
{
    return rm == RV64_RNE && *flags & RV64_NX;
}

static inline bool fpu_is_plain_single(uint32_t bits)
{
    return (bits & 0x7fffffff) - 0x00800001 < 0x7f800000 - 0x00800001;
}

static inline bool fpu_is_plain_double(uint64_t bits)
{
    return (bits & 0x7fffffffffffffff) - 0x0010000000000001 < 0x7ff0000000000000 - 0x0010000000000001;
}
