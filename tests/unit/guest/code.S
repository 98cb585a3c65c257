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
    // Blocks whose instructions take as much host code as any, hot and out of line: singles that are boxes and then are not.
    li t0, SSTATUS_FS
    csrs sstatus, t0
    li s0, 2
2:  li t1, 0x40000000 // 2.0
    .irp r, 5, 6, 7, 8, 9, 18, 19, 20
    fmv.w.x f\r, t1
    .endr
    bnez s1, 3f
    .irp r, 5, 6, 7, 8, 9, 18, 19, 20
    fmv.d.x f\r, t1
    .endr
3:  li s1, 0
    .rept 24
    fmadd.s f21, f5, f6, f7
    clmul a1, a2, a3
    fmsub.s f22, f8, f9, f18
    csrrs a4, sstatus, zero
    fmax.s f23, f19, f20
    csrrsi a4, sstatus, 2
    csrrci a4, sstatus, 2
    .endr
    fmv.x.w a0, f21
    addi s0, s0, -1
    bnez s0, 2b
    li t1, 0x7fc00000
    check_equal 4, a0, t1
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
