// Timer, software and message-signalled interrupts; wfi; vectored and direct entry; the CSRs of the AIA.
#include "guest.h"
#define CSR_STIMECMP 0x14d
#define CSR_SISELECT 0x150
#define CSR_SIREG 0x151
#define CSR_STOPEI 0x15c
#define CSR_STOPI 0xdb0
    .macro sireg_write select, value
    li t0, \select
    csrw CSR_SISELECT, t0
    li t0, \value
    csrw CSR_SIREG, t0
    .endm
    guest_begin
main:
    expect_traps
    li t0, SSTATUS_SIE
    csrc sstatus, t0
    // The timer pends when its time comes, and wfi waits for it, with interrupts off.
    csrr a0, sip
    check 1, a0, 0
    li t0, 1 << 5
    csrw sie, t0
    rdtime s0
    li t0, 20000 // 2 ms
    add s0, s0, t0
    csrw CSR_STIMECMP, s0
    wfi
    rdtime a0
    sltu a1, a0, s0
    check 2, a1, 0
    csrr a0, sip
    check 3, a0, 1 << 5
    csrr a0, CSR_STOPI
    check 4, a0, (5 << 16) | 1
    // It is taken when they are on, between instructions, and without wfi as well.
    li s10, 0
    la s8, 1f
    csrsi sstatus, SSTATUS_SIE
0:  j 0b
1:  check 5, s10, (1 << 63) | 5
    andi s6, s6, SSTATUS_SPIE | SSTATUS_SIE
    check 5, s6, SSTATUS_SPIE
    csrci sstatus, SSTATUS_SIE
    rdtime s0
    li t0, 20000
    add s0, s0, t0
    csrw CSR_STIMECMP, s0
    csrr a0, sip
    check 6, a0, 0
    la s8, 1f
    csrsi sstatus, SSTATUS_SIE
0:  j 0b
1:  check 7, s10, (1 << 63) | 5
    csrci sstatus, SSTATUS_SIE
    li t0, -1
    csrw CSR_STIMECMP, t0
    // Software, vectored.
    li t0, 1 << 1
    csrw sie, t0
    la t0, vectors + 1
    csrw stvec, t0
    csrsi sip, 2
    la s8, 1f
    csrsi sstatus, SSTATUS_SIE
    j guest_fail
1:  check 10, s7, 1
    csrci sip, 2
    csrci sstatus, SSTATUS_SIE
    // Exceptions are not vectored.
    li s7, -1
    traps 11, 2, .word 0xffffffff
    check 12, s7, 0
    expect_traps
    // The interrupt file.
    li t0, 1 << 9
    csrw sie, t0
    sireg_write 0x70, 1
    sireg_write 0x72, 0
    sireg_write 0xc0, 0x106
    csrr a0, CSR_SIREG
    check 20, a0, 0x106
    li s0, IMSIC_BASE
    li t0, 8
    sw t0, 0(s0)
    li t0, 2
    sw t0, 0(s0)
    li t0, 3
    sw t0, 0(s0)
    li t0, 300
    sw t0, 0(s0)
    lw a0, 0(s0)
    check 21, a0, 0
    csrr a0, CSR_STOPEI
    check 22, a0, 0x20002
    csrr a0, sip
    check 23, a0, 1 << 9
    csrr a0, CSR_STOPI
    check 24, a0, (9 << 16) | 1
    la s8, 1f
    csrsi sstatus, SSTATUS_SIE
    j guest_fail
1:  check 25, s10, (1 << 63) | 9
    csrci sstatus, SSTATUS_SIE
    csrrw a0, CSR_STOPEI, zero
    check 26, a0, 0x20002
    csrrw a0, CSR_STOPEI, zero
    check 27, a0, 0x80008
    csrr a0, CSR_STOPEI
    check 28, a0, 0
    li t0, 0x80
    csrw CSR_SISELECT, t0
    csrr a0, CSR_SIREG
    check 29, a0, 8
    // A threshold shuts out what is not below it; delivery can be off.
    sireg_write 0x80, 4
    sireg_write 0x72, 2
    csrr a0, CSR_STOPEI
    check 30, a0, 0
    sireg_write 0x72, 3
    csrr a0, CSR_STOPEI
    check 31, a0, 0x20002
    sireg_write 0x70, 0
    csrr a0, sip
    check 32, a0, 0
    li t0, 0x81
    csrw CSR_SISELECT, t0
    traps 33, 2, csrr a0, CSR_SIREG
    li t0, 0x100
    csrw CSR_SISELECT, t0
    traps 34, 2, csrr a0, CSR_SIREG
    traps 35, 2, csrw CSR_STOPI, a0
    j guest_pass

    .align 6
vectors:
    j vector0
    .align 2
    j vector1
    .align 2
vector0:
    li s7, 0
    j expected_trap
vector1:
    li s7, 1
    j expected_trap
