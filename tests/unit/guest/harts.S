// Four harts: starting, counting together by each kind of atomic, fencing each other at the same time, and a message to a hart that
// waits.
#include "guest.h"
#define HARTS 4
#define ROUNDS 20000
#define FENCES 300
    guest_begin
main:
    expect_traps
    li s0, 1
1:  mv a0, s0
    la a1, second
    slli a2, s0, 3
    li a7, SBI_HSM
    li a6, 0
    ecall
    check 1, a0, 0
    addi s0, s0, 1
    li t0, HARTS
    bne s0, t0, 1b
    li a0, 0
    li a1, 0
    j all

second:
    slli t0, a0, 3
    bne t0, a1, 0f
    csrr t0, satp
    bnez t0, 0f
    la t0, expected_trap
    csrw stvec, t0
    la sp, stack_end
    slli t0, a0, 10
    sub sp, sp, t0
    j all
0:  li gp, 2
    j guest_fail

all:
    mv s0, a0
    la s1, counters
    li s2, ROUNDS
1:  li t0, 1
    amoadd.d zero, t0, 0(s1)
    addi s3, s1, 64
2:  lr.w t0, (s3)
    addi t0, t0, 1
    sc.w t1, t0, (s3)
    bnez t1, 2b
    // Under a spin lock, not atomic itself.
    addi s4, s1, 128
3:  li t0, 1
    amoswap.w.aq t0, t0, (s4)
    beqz t0, 4f
    .word 0x0100000f
    j 3b
4:  ld t0, 64(s4)
    addi t0, t0, 1
    sd t0, 64(s4)
    amoswap.w.rl zero, zero, (s4)
    addi s3, s1, 256
    amomaxu.d zero, s2, (s3)
    addi s2, s2, -1
    bnez s2, 1b

    // All fence all at once.
    li s2, FENCES
5:  li a0, -1
    li a1, -1
    li a2, 0
    li a3, 0
    andi a6, s2, 1
    li a7, SBI_RFENCE
    li a0, (1 << HARTS) - 1
    li a1, 0
    ecall
    bnez a0, 6f
    addi s2, s2, -1
    bnez s2, 5b

    addi s3, s1, 320
    li t0, 1
    amoadd.d zero, t0, (s3)
    bnez s0, sleeper
7:  ld t0, 0(s3)
    li t1, HARTS
    bne t0, t1, 7b
    ld a0, 0(s1)
    check 10, a0, HARTS * ROUNDS
    lw a0, 64(s1)
    check 11, a0, HARTS * ROUNDS
    ld a0, 192(s1)
    check 12, a0, HARTS * ROUNDS
    ld a0, 256(s1)
    check 13, a0, ROUNDS
    // Wake the others by messages to their interrupt files; each answers.
    li s2, 1
8:  li t0, IMSIC_BASE
    slli t1, s2, 12
    add t0, t0, t1
    li t1, 7
    sw t1, 0(t0)
    addi s2, s2, 1
    li t0, HARTS
    bne s2, t0, 8b
9:  ld t0, 0(s3)
    li t1, 2 * HARTS - 1
    bne t0, t1, 9b
    j guest_pass
6:  li gp, 3
    j guest_fail

sleeper:
    li t0, 0xc0
    csrw 0x150, t0
    li t0, 1 << 7
    csrw 0x151, t0
    li t0, 0x70
    csrw 0x150, t0
    csrwi 0x151, 1
    li t0, 1 << 9
    csrw sie, t0
10: wfi
    csrr t0, sip
    beqz t0, 10b
    li t0, 1
    amoadd.d zero, t0, (s3)
    li a7, SBI_HSM
    li a6, 1
    ecall
    j guest_fail
    .data
    .align 6
counters:
    .space 512
