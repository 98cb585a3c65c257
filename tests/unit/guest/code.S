// Code that changes: visible behind fence.i, again and again, on both sides of a page's end.
#include "guest.h"
    guest_begin
main:
    expect_traps
    li s0, 0
    li s1, 1000
    la s2, patch
    la s3, crossing + 4094
again:
    // li a0, s0 & 1023; ret
    andi s4, s0, 1023
    slli t0, s4, 20
    li t1, 0x513
    or t0, t0, t1
    sw t0, 0(s2)
    li t1, 0x8067
    sw t1, 4(s2)
    // The same across the page's end, in halves.
    sh t0, 0(s3)
    srli t2, t0, 16
    sh t2, 2(s3)
    li t1, 0x8082
    sh t1, 4(s3)
    fence.i
    li a0, -1
    jalr s2
    check_equal 1, a0, s4
    li a0, -1
    jalr s3
    check_equal 2, a0, s4
    addi s0, s0, 1
    bne s0, s1, again
    // Many blocks: more than are kept at once.
    li s0, 3
    li a0, 0
1:  call many
    addi s0, s0, -1
    bnez s0, 1b
    check 3, a0, 3 * 60000
    j guest_pass
many:
    .rept 60000
    addi a0, a0, 1
    j .+2
    .endr
    ret
    .data
    .align 12
patch:
    .space 4096
crossing:
    .space 8192
