// What is illegal, and what a trap leaves behind.
#include "guest.h"
    guest_begin
main:
    expect_traps
    traps 1, 2, .word 0xffffffff
    check 2, s11, 0xffffffff
    traps 3, 2, .half 0x0000
    check 4, s11, 0
    traps 5, 2, .half 0x9c41
    check 6, s11, 0x9c41
    traps 7, 2, csrr a0, mstatus
    check 8, s11, 0x30002573
    traps 9, 2, csrw time, a0
    traps 10, 2, csrr a0, 0x7c0
    traps 11, 2, mret
    traps 12, 3, ebreak
    check_equal 13, s11, s9
    // Floating point while it is off.
    li t0, SSTATUS_FS
    csrc sstatus, t0
    traps 14, 2, fadd.s fa0, fa0, fa0
    traps 15, 2, fld fa0, 0(sp)
    traps 16, 2, csrr a0, fcsr
    csrs sstatus, t0
    fine 17, fadd.s fa0, fa0, fa0
    // A reserved rounding mode, in the instruction and in frm.
    traps 18, 2, .word 0x00a55553
    fsrmi 5
    traps 19, 2, fadd.s fa0, fa0, fa0
    fine 20, fadd.s fa0, fa0, fa0, rne
    fsrmi 0
    // FS becomes dirty by a write, and SD shows it.
    li t0, SSTATUS_FS
    csrc sstatus, t0
    li t0, 1 << 13
    csrs sstatus, t0
    fsd fa0, -8(sp)
    csrr a0, sstatus
    srli a1, a0, 63
    check 21, a1, 0
    fmv.d.x fa0, zero
    csrr a0, sstatus
    srli a1, a0, 63
    check 22, a1, 1
    // Atomics must be aligned, loads and stores need not be.
    la a0, words
    addi a1, a0, 2
    traps 23, 4, lr.w a2, (a1)
    check_equal 24, s11, a1
    traps 25, 6, sc.w a2, a2, (a1)
    traps 26, 6, amoadd.w a2, a2, (a1)
    fine 27, lw a2, 0(a1)
    check 28, a2, 0x66554433 - 0
    // Nothing is at this address.
    li a1, 0x1000
    traps 30, 5, lw a2, 0(a1)
    check 31, s11, 0x1000
    traps 32, 7, sw a2, 0(a1)
    traps 33, 7, amoadd.w a2, a2, (a1)
    traps 34, 5, lr.w a2, (a1)
    li gp, 35
    la s8, 1f
    jr a1
1:  check 36, s10, 1
    check 37, s11, 0x1000
    // U mode: what it must not do, and its ecall.
    csrwi scounteren, 0
    csrwi senvcfg, 0
    la a1, words
    to_user
    traps 40, 2, csrr a0, sstatus
    to_user
    traps 41, 2, sret
    to_user
    traps 42, 2, wfi
    to_user
    traps 43, 2, sfence.vma
    to_user
    traps 44, 2, rdtime a0
    to_user
    traps 45, 2, cbo.zero 0(a1)
    to_user
    traps 46, 2, cbo.inval 0(a1)
    to_user
    traps 47, 8, ecall
    check 48, s11, 0
    andi s6, s6, SSTATUS_SPP
    check 48, s6, 0
    traps 48, 3, ebreak
    andi s6, s6, SSTATUS_SPP
    check 48, s6, SSTATUS_SPP
    csrwi scounteren, 2
    li t0, 0xf0
    csrw senvcfg, t0
    to_user
    fine 49, rdtime a0
    fine 50, cbo.inval 0(a1)
    fine 51, cbo.clean 0(a1)
    fine 52, cbo.flush 0(a1)
    addi a1, a1, 8
    fine 53, cbo.zero 0(a1)
    traps 54, 2, rdinstret a0
    la a1, words
    ld a2, 0(a1)
    check 55, a2, 0
    ld a2, 56(a1)
    check 56, a2, 0
    ld a2, 64(a1)
    check 57, a2, -1
    // sret: SPP and SPIE.
    li t0, SSTATUS_SPP | SSTATUS_SPIE
    csrs sstatus, t0
    la t0, 1f
    csrw sepc, t0
    sret
1:  csrr a0, sstatus
    andi a1, a0, 0x122
    check 60, a1, SSTATUS_SPIE | SSTATUS_SIE
    // WARL fields.
    csrwi sie, 0
    li a0, -1
    csrw sie, a0
    csrr a1, sie
    check 61, a1, 0x222
    csrwi sie, 0
    csrw stvec, a0
    csrr a1, stvec
    check 62, a1, -3
    expect_traps
    csrw sepc, a0
    csrr a1, sepc
    check 63, a1, -2
    csrw satp, a0
    csrr a1, satp
    check 64, a1, 0
    csrw sstatus, a0
    csrr a1, sstatus
    check 65, a1, 0x80000002000c6122
    csrw senvcfg, zero
    li a0, 0x20
    csrw senvcfg, a0
    csrr a1, senvcfg
    check 66, a1, 0
    j guest_pass
    .data
    .align 6
words:
    .byte 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88
    .space 56
    .dword -1
