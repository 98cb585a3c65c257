// IEEE 754 arithmetic exactly as RISC-V wants it: results, exception flags, all five rounding modes, canonical NaNs.
// (Unprivileged ISA, chapters 20 "F" and 21 "D".) Pure functions; flags are or-ed into *flags (RV64_NX ... RV64_NV).
//
// rm is a resolved rounding mode (RV64_RNE..RV64_RMM, never DYN). Singles come and go unboxed; the caller checks and makes NaN
// boxes. Conversions to integers saturate and raise NV as in table 29; results of 32 bits are sign-extended by the caller.
#pragma once

#include <stdint.h>

#define FPU_BINARY(op)                                                                                                             \
    uint32_t fpu_##op##_s(uint32_t a, uint32_t b, unsigned rm, uint8_t *flags);                                                    \
    uint64_t fpu_##op##_d(uint64_t a, uint64_t b, unsigned rm, uint8_t *flags);
FPU_BINARY(add)
FPU_BINARY(sub)
FPU_BINARY(mul)
FPU_BINARY(div)
#undef FPU_BINARY

uint32_t fpu_sqrt_s(uint32_t a, unsigned rm, uint8_t *flags);
uint64_t fpu_sqrt_d(uint64_t a, unsigned rm, uint8_t *flags);
// a * b + c, rounded once. The other three fused forms are had by flipping the signs of a or c beforehand.
uint32_t fpu_fma_s(uint32_t a, uint32_t b, uint32_t c, unsigned rm, uint8_t *flags);
uint64_t fpu_fma_d(uint64_t a, uint64_t b, uint64_t c, unsigned rm, uint8_t *flags);

uint32_t fpu_min_s(uint32_t a, uint32_t b, uint8_t *flags); // minimumNumber: -0 < +0, one NaN loses, two make the canonical one
uint64_t fpu_min_d(uint64_t a, uint64_t b, uint8_t *flags);
uint32_t fpu_max_s(uint32_t a, uint32_t b, uint8_t *flags);
uint64_t fpu_max_d(uint64_t a, uint64_t b, uint8_t *flags);

int fpu_eq_s(uint32_t a, uint32_t b, uint8_t *flags); // quiet
int fpu_eq_d(uint64_t a, uint64_t b, uint8_t *flags);
int fpu_lt_s(uint32_t a, uint32_t b, uint8_t *flags); // signalling, as le
int fpu_lt_d(uint64_t a, uint64_t b, uint8_t *flags);
int fpu_le_s(uint32_t a, uint32_t b, uint8_t *flags);
int fpu_le_d(uint64_t a, uint64_t b, uint8_t *flags);
unsigned fpu_class_s(uint32_t a); // the 10-bit mask of fclass
unsigned fpu_class_d(uint64_t a);

int32_t fpu_s_to_i32(uint32_t a, unsigned rm, uint8_t *flags);
uint32_t fpu_s_to_u32(uint32_t a, unsigned rm, uint8_t *flags);
int64_t fpu_s_to_i64(uint32_t a, unsigned rm, uint8_t *flags);
uint64_t fpu_s_to_u64(uint32_t a, unsigned rm, uint8_t *flags);
int32_t fpu_d_to_i32(uint64_t a, unsigned rm, uint8_t *flags);
uint32_t fpu_d_to_u32(uint64_t a, unsigned rm, uint8_t *flags);
int64_t fpu_d_to_i64(uint64_t a, unsigned rm, uint8_t *flags);
uint64_t fpu_d_to_u64(uint64_t a, unsigned rm, uint8_t *flags);

uint32_t fpu_i32_to_s(int32_t a, unsigned rm, uint8_t *flags);
uint32_t fpu_u32_to_s(uint32_t a, unsigned rm, uint8_t *flags);
uint32_t fpu_i64_to_s(int64_t a, unsigned rm, uint8_t *flags);
uint32_t fpu_u64_to_s(uint64_t a, unsigned rm, uint8_t *flags);
uint64_t fpu_i32_to_d(int32_t a); // exact
uint64_t fpu_u32_to_d(uint32_t a);
uint64_t fpu_i64_to_d(int64_t a, unsigned rm, uint8_t *flags);
uint64_t fpu_u64_to_d(uint64_t a, unsigned rm, uint8_t *flags);
uint32_t fpu_d_to_s(uint64_t a, unsigned rm, uint8_t *flags);
uint64_t fpu_s_to_d(uint32_t a, uint8_t *flags);
