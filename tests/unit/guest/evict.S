// Four harts run more code than there is room for, and change it: each copies functions into a page of its own and into one that all
// share, fences, and calls them, while long runs of blocks push everything out again. Floating point goes through all of it.
#include "guest.h"
#define HARTS 4
#define ROUNDS 40
#define BLOCKS 3000
    guest_begin
main:
    expect_traps
    li t0, SSTATUS_FS
    csrs sstatus, t0
    li s0, 1
1:  mv a0, s0
    la a1, second
    mv a2, s0
    li a7, SBI_HSM
    li a6, 0
    ecall
    check 1, a0, 0
    addi s0, s0, 1
    li t0, HARTS
    bne s0, t0, 1b
    li a1, 0
    j all
second:
    la t0, expected_trap
    csrw stvec, t0
    la sp, stack_end
    slli t0, a1, 10
    sub sp, sp, t0

all:
    mv s0, a1
    la s1, own
    slli t0, s0, 12
    add s1, s1, t0
    la s2, shared
    li s3, ROUNDS
    li s5, 0 // what this hart's calls of the shared function returned last
    // fa0..fa7 hold 1..8, times the hart's number + 1, all along.
    addi t1, s0, 1
    .macro fill r, n
    li t0, \n
    mul t0, t0, t1
    fcvt.d.l \r, t0
    .endm
    fill fa0, 1
    fill fa1, 2
    fill fa2, 3
    fill fa3, 4
    fill fa4, 5
    fill fa5, 6
    fill fa6, 7
    fill fa7, 8
round:
    // li a0, round * 4 + hart; ret: into this hart's page, at a place that moves.
    slli s4, s3, 2
    add s4, s4, s0
    slli t0, s4, 20
    li t1, 0x513
    or t0, t0, t1
    andi t2, s3, 31
    slli t2, t2, 5
    add t2, t2, s1
    sw t0, 0(t2)
    li t1, 0x8067
    sw t1, 4(t2)
    fence.i
    li a0, -1
    jalr t2
    check_equal 2, a0, s4
    // Hart 0 changes what all call. What it returns never goes back.
    bnez s0, 1f
    li t0, ROUNDS
    sub t0, t0, s3
    slli t0, t0, 20
    li t1, 0x513
    or t0, t0, t1
    sw t0, 0(s2)
    fence rw, rw
    li a0, (1 << HARTS) - 1
    li a1, 0
    li a7, SBI_RFENCE
    li a6, 0 // remote fence.i
    ecall
    check 3, a0, 0
    jalr s2
    li t0, ROUNDS
    sub t0, t0, s3
    check_equal 4, a0, t0
    j 2f
1:  fence.i
    jalr s2
    li gp, 5
    blt a0, s5, guest_fail
    mv s5, a0
    // Many blocks: a different half on each hart, so that they push each other's out.
2:  li a0, 0
    andi t0, s0, 1
    la s6, many
    la t1, many_too
    beqz t0, 3f
    mv s6, t1
3:  jalr s6
    check 6, a0, BLOCKS
    addi s3, s3, -1
    bnez s3, round

    // The registers of floating point are as they were.
    addi t1, s0, 1
    .macro is r, n
    li t0, \n
    mul t0, t0, t1
    fcvt.l.d t2, \r
    check_equal 1\n, t2, t0
    .endm
    is fa0, 1
    is fa1, 2
    is fa2, 3
    is fa3, 4
    is fa4, 5
    is fa5, 6
    is fa6, 7
    is fa7, 8

    la t0, done
    li t1, 1
    amoadd.w.aqrl t1, t1, (t0)
    bnez s0, wait
4:  lw t1, 0(t0)
    fence rw, rw
    li t2, HARTS
    bne t1, t2, 4b
    j guest_pass
wait:
    wfi
    j wait

many:
    .rept BLOCKS
    fadd.d ft0, fa0, fa1
    addi a0, a0, 2
    addi a0, a0, -2
    addi a0, a0, 2
    addi a0, a0, -1
    j .+2
    .endr
    ret
many_too:
    .rept BLOCKS
    fadd.d ft0, fa0, fa1
    addi a0, a0, 2
    addi a0, a0, -2
    addi a0, a0, 2
    addi a0, a0, -1
    j .+2
    .endr
    ret
    .data
    .align 12
own:
    .space HARTS * 4096
shared:
    .word 0x00000513 // li a0, 0
    .word 0x00008067 // ret
    .align 12
done:
    .word 0
