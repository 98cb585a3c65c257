// Base instructions whose corners a compiler never meets, compressed and full, and the bit-manipulation extensions.
#include "guest.h"
    guest_begin
main:
    // x0 stays zero whatever writes to it.
    li a0, 5
    add zero, a0, a0
    check 1, zero, 0
    // Division by zero and overflow.
    li a0, 7
    div a1, a0, zero
    check 2, a1, -1
    rem a1, a0, zero
    check 3, a1, 7
    divu a1, a0, zero
    check 4, a1, -1
    li a0, 1
    slli a0, a0, 63
    li a1, -1
    div a2, a0, a1
    check_equal 5, a2, a0
    rem a2, a0, a1
    check 6, a2, 0
    li a0, -0x80000000
    divw a2, a0, a1
    check 7, a2, -0x80000000
    remw a2, a0, a1
    check 8, a2, 0
    li a0, 0x180000000
    divuw a2, a0, a1
    check 9, a2, 0
    remuw a2, a0, a1
    check 10, a2, -0x80000000
    // The high halves.
    li a0, -1
    mulh a1, a0, a0
    check 11, a1, 0
    mulhu a1, a0, a0
    check 12, a1, -2
    mulhsu a1, a0, a0
    check 13, a1, -1
    // 32-bit forms take the low halves and extend the sign.
    li a0, 0x7fffffff
    addiw a1, a0, 1
    check 14, a1, -0x80000000
    li a0, 0xffffffff80000000
    srliw a1, a0, 31
    check 15, a1, 1
    sraiw a1, a0, 31
    check 16, a1, -1
    // jalr clears the lowest bit and may write the register that it reads.
    la a0, 1f
    addi a0, a0, 1
    jalr a0, 0(a0)
    j guest_fail
    .option push
    .option norvc
1:  la a1, 1b
    .option pop
    sltu a1, a0, a1
    check 17, a1, 1
    // Zba, Zbb, Zbc, Zbs.
    li a0, 0xffffffff80000001
    li a1, 16
    add.uw a2, a0, a1
    check 20, a2, 0x80000011
    sh3add a2, a1, a1
    check 21, a2, 144
    slli.uw a2, a0, 4
    check 22, a2, 0x800000010
    clz a2, zero
    check 23, a2, 64
    ctzw a2, zero
    check 24, a2, 32
    cpop a2, a0
    check 25, a2, 34
    li a0, 0x0123456789abcdef
    rev8 a2, a0
    check 26, a2, 0xefcdab8967452301
    rori a2, a0, 4
    check 27, a2, 0xf0123456789abcde
    rol a2, a0, zero
    check_equal 28, a2, a0
    li a1, 0x0010002000000300
    orc.b a2, a1
    check 29, a2, 0x00ff00ff0000ff00
    clmul a2, a0, a0
    check 30, a2, 0x4041444550515455
    clmulh a2, a0, a0
    check 31, a2, 0x0001040510111415
    bexti a2, a0, 3
    check 32, a2, 1
    binvi a2, zero, 63
    srli a2, a2, 63
    check 33, a2, 1
    // Zicond: czero.eqz a2, a0, a1; czero.nez a2, a0, a1
    li a1, 0
    .word 0x0eb55633
    check 34, a2, 0
    .word 0x0eb57633
    check_equal 35, a2, a0
    // Zicboz: the block around an address, whether its page is known already or not, and no more.
    la s0, blocks
    li s1, 20
1:  li a0, -1
    sd a0, 56(s0)
    sd a0, 64(s0)
    sd a0, 96(s0)
    sd a0, 120(s0)
    sd a0, 128(s0)
    addi a1, s0, 64 + 13
    cbo.zero (a1)
    ld a2, 56(s0)
    check 36, a2, -1
    ld a2, 64(s0)
    check 37, a2, 0
    ld a2, 96(s0)
    check 38, a2, 0
    ld a2, 120(s0)
    check 39, a2, 0
    ld a2, 128(s0)
    check 40, a2, -1
    sfence.vma
    cbo.zero (a1)
    addi s1, s1, -1
    bnez s1, 1b
    j guest_pass
    .data
    .align 6
blocks:
    .space 192
