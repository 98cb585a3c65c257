// Page tables: every check of the walk, in Sv39, Sv48 and Sv57; fences; faults of accesses that cross pages.
//
// The program runs in an identity-mapped gigabyte (a superpage of the third level from the bottom). A second gigabyte, at
// WINDOW, is where pages are put up: index 0 of `level1`, and `level0` below it.
#include "guest.h"
#define WINDOW 0x40000000
    guest_begin
    // \pte of page \index of the window becomes a leaf for `page_\name` with \flags; no fence.
    .macro set_page index, name, flags
    la t0, page_\name
    srli t0, t0, 2
    li t1, \flags
    or t0, t0, t1
    la t1, level0
    sd t0, (8 * \index)(t1)
    .endm
    .macro set_raw index, value
    li t0, \value
    la t1, level0
    sd t0, (8 * \index)(t1)
    .endm

main:
    expect_traps
    li s0, 8
next_mode:
    call build
    li s1, WINDOW
    // What a mode maps, and what lies outside it.
    li s2, 39
    addi t0, s0, -8
    li t1, 9
    mul t0, t0, t1
    add s2, s2, t0
    addi s2, s2, -1
    li t0, 1
    sll s2, t0, s2
    traps 1, 13, lw a0, 0(s2)
    check_equal 2, s11, s2
    neg s3, s2
    traps 3, 13, lw a0, 0(s3)

    // An ordinary page.
    set_page 0, a, PTE_V | PTE_R | PTE_W | PTE_A | PTE_D
    sfence.vma
    la t0, page_a
    li t1, 0x1234
    sd t1, 0(t0)
    fine 10, ld a0, 0(s1)
    check 11, a0, 0x1234
    fine 12, sd s1, 8(s1)
    la t0, page_a
    ld a0, 8(t0)
    check_equal 13, a0, s1
    li gp, 14
    la s8, 1f
    jr s1
1:  check 15, s10, 12
    check_equal 16, s11, s1

    // Each flag alone.
    set_page 0, a, PTE_R | PTE_W | PTE_A | PTE_D
    sfence.vma
    traps 20, 13, ld a0, 0(s1)
    traps 21, 15, sd a0, 0(s1)
    set_page 0, a, PTE_V | PTE_W | PTE_A | PTE_D
    sfence.vma
    traps 22, 13, ld a0, 0(s1)
    set_page 0, a, PTE_V | PTE_R | PTE_A | PTE_D
    sfence.vma
    fine 23, ld a0, 0(s1)
    traps 24, 15, sd a0, 0(s1)
    traps 25, 15, amoadd.d a0, a0, (s1)
    traps 26, 15, sc.d a0, a0, (s1)
    fine 27, lr.d a0, (s1)
    // Accessed and dirty are the program's own (Svade).
    set_page 0, a, PTE_V | PTE_R | PTE_W | PTE_D
    sfence.vma
    traps 28, 13, ld a0, 0(s1)
    set_page 0, a, PTE_V | PTE_R | PTE_W | PTE_A
    sfence.vma
    fine 29, ld a0, 0(s1)
    traps 30, 15, sd a0, 0(s1)
    // Execute-only pages are read with MXR alone.
    set_page 0, a, PTE_V | PTE_X | PTE_A
    sfence.vma
    traps 31, 13, ld a0, 0(s1)
    li t0, SSTATUS_MXR
    csrs sstatus, t0
    fine 32, ld a0, 0(s1)
    csrc sstatus, t0
    traps 33, 13, ld a0, 0(s1)
    // Pages of U mode: SUM, and never for instructions.
    set_page 0, a, PTE_V | PTE_R | PTE_W | PTE_X | PTE_U | PTE_A | PTE_D
    sfence.vma
    traps 34, 13, ld a0, 0(s1)
    li t0, SSTATUS_SUM
    csrs sstatus, t0
    fine 35, ld a0, 0(s1)
    fine 36, sd a0, 0(s1)
    li gp, 37
    la s8, 1f
    jr s1
1:  check 38, s10, 12
    li t0, SSTATUS_SUM
    csrc sstatus, t0
    traps 39, 15, sd a0, 0(s1)

    // Reserved bits; PBMT 1 and 2 are good, 3 is not.
    set_raw 1, 0
    set_page 0, a, (1 << 54) | PTE_V | PTE_R | PTE_A
    sfence.vma
    traps 40, 13, ld a0, 0(s1)
    set_page 0, a, (3 << 61) | PTE_V | PTE_R | PTE_A
    sfence.vma
    traps 41, 13, ld a0, 0(s1)
    set_page 0, a, (1 << 61) | PTE_V | PTE_R | PTE_A
    sfence.vma
    fine 42, ld a0, 0(s1)
    set_page 0, a, (2 << 61) | PTE_V | PTE_R | PTE_A
    sfence.vma
    fine 43, ld a0, 0(s1)
    // A table where only leaves may be, and flags of leaves in what points to a table.
    set_page 0, a, PTE_V
    sfence.vma
    traps 44, 13, ld a0, 0(s1)
    la t2, level1
    ld t3, 0(t2)
    ori t4, t3, PTE_A
    sd t4, 0(t2)
    sfence.vma
    set_page 0, a, PTE_V | PTE_R | PTE_A
    traps 45, 13, ld a0, 0(s1)
    sd t3, 0(t2)
    sfence.vma
    fine 46, ld a0, 0(s1)
    // Superpages: aligned and misaligned, and how a fence of one address forgets all of one.
    li t4, (0x80200000 >> 2) | PTE_V | PTE_R | PTE_A
    sd t4, 8(t2)
    sfence.vma
    li s4, WINDOW + 0x200000
    fine 47, lw a0, 0(s4)
    lui t0, 0x80200
    slli t0, t0, 32
    srli t0, t0, 32
    lw a1, 0(t0)
    check_equal 48, a0, a1
    li s5, WINDOW + 0x203000
    fine 49, lw a0, 0(s5)
    fine 49, lw a0, 0(s4)
    sd zero, 8(t2)
    sfence.vma s5
    traps 50, 13, lw a0, 0(s4)
    li t4, (0x80201000 >> 2) | PTE_V | PTE_R | PTE_A
    sd t4, 8(t2)
    sfence.vma
    traps 51, 13, lw a0, 0(s4)
    sd zero, 8(t2)
    // A table that lies nowhere: an access fault.
    li t4, (0x1000 >> 2) | PTE_V
    sd t4, 8(t2)
    sfence.vma
    traps 52, 5, lw a0, 0(s4)
    traps 53, 7, sw a0, 0(s4)
    sd zero, 8(t2)
    // Svnapot: 64 KiB from 16 entries alike; other sizes are reserved.
    la t0, page_napot
    srli t0, t0, 2
    li t1, (1 << 63) | (8 << 10) | PTE_V | PTE_R | PTE_A
    or t0, t0, t1
    la t1, level0
    sd t0, 8 * 16(t1)
    sd t0, 8 * 21(t1)
    sfence.vma
    li t3, WINDOW + 21 * 4096
    fine 54, lw a0, 0(t3)
    check 55, a0, 5
    li t1, 4 << 10
    xor t0, t0, t1
    la t1, level0
    sd t0, 8 * 21(t1)
    sfence.vma
    traps 56, 13, lw a0, 0(t3)

    // ASIDs: what one knows the other does not, and a fence of one leaves the other alone.
    set_page 0, a, PTE_V | PTE_R | PTE_W | PTE_A | PTE_D
    sfence.vma
    csrr t2, satp
    li t3, 5 << 44
    or t4, t2, t3
    sd s1, 0(s1)
    la t5, page_b
    sd zero, 0(t5)
    csrw satp, t4
    fine 60, ld a0, 0(s1)
    check_equal 61, a0, s1
    set_page 0, b, PTE_V | PTE_R | PTE_W | PTE_A | PTE_D
    li t1, 5
    sfence.vma zero, t1
    ld a0, 0(s1)
    check 62, a0, 0
    csrw satp, t2
    sfence.vma s1, zero
    ld a0, 0(s1)
    check 63, a0, 0

    // Accesses that cross from a good page into a bad one: the bad part's address, and nothing stored.
    set_page 0, a, PTE_V | PTE_R | PTE_W | PTE_A | PTE_D
    set_raw 1, 0
    sfence.vma
    li t2, WINDOW + 4092
    sw zero, 0(t2)
    li t3, -1
    traps 70, 15, sd t3, 0(t2)
    check 71, s11, WINDOW + 4096
    lw a0, 0(t2)
    check 72, a0, 0
    traps 73, 13, ld t3, 0(t2)
    check 74, s11, WINDOW + 4096
    set_page 1, b, PTE_V | PTE_R | PTE_W | PTE_A | PTE_D
    sfence.vma
    li t3, 0x1122334455667788
    fine 75, sd t3, 0(t2)
    fine 76, ld a0, 0(t2)
    check_equal 77, a0, t3
    la t0, page_b
    lw a0, 0(t0)
    check 78, a0, 0x11223344
    // An instruction that crosses likewise.
    la t0, page_a + 4094
    li t1, 0x0513          // the lower half of li a0, 42
    sh t1, 0(t0)
    la t0, page_b
    li t1, 0x02a0          // its upper half
    sh t1, 0(t0)
    li t1, 0x8082          // ret
    sh t1, 2(t0)
    fence.i
    set_page 0, a, PTE_V | PTE_X | PTE_A
    set_page 1, b, PTE_V | PTE_X | PTE_A
    sfence.vma
    li t2, WINDOW + 4094
    li a0, 0
    la s8, guest_fail
    jalr t2
    check 80, a0, 42
    set_raw 1, 0
    sfence.vma
    la s8, 1f
    jr t2
1:  check 81, s10, 12
    check 82, s11, WINDOW + 4096
    check_equal 83, s9, t2

    csrw satp, zero
    sfence.vma
    addi s0, s0, 1
    li t0, 11
    bne s0, t0, next_mode
    j guest_pass

// Tables for mode s0 (8, 9, 10), and switches it on.
build:
    la t0, level2
    la t1, level1
    srli t1, t1, 2
    ori t1, t1, PTE_V
    sd t1, 8 * (WINDOW >> 30)(t0)
    li t1, (0x80000000 >> 2) | PTE_V | PTE_R | PTE_W | PTE_X | PTE_A | PTE_D
    sd t1, 8 * 2(t0)
    la t0, level1
    la t1, level0
    srli t1, t1, 2
    ori t1, t1, PTE_V
    sd t1, 0(t0)
    la t0, level3
    la t1, level2
    srli t1, t1, 2
    ori t1, t1, PTE_V
    sd t1, 0(t0)
    la t0, level4
    la t1, level3
    srli t1, t1, 2
    ori t1, t1, PTE_V
    sd t1, 0(t0)
    la t0, level2
    li t1, 8
    beq s0, t1, 1f
    la t0, level3
    li t1, 9
    beq s0, t1, 1f
    la t0, level4
1:  srli t0, t0, 12
    slli t1, s0, 60
    or t0, t0, t1
    csrw satp, t0
    sfence.vma
    csrr t1, satp
    bne t0, t1, guest_fail
    ret

    .data
    .align 16
page_napot:
    .set page, 0
    .rept 16
    .word page
    .space 4092
    .set page, page + 1
    .endr
page_a:
    .space 4096
page_b:
    .space 4096
level0:
    .space 4096
level1:
    .space 4096
level2:
    .space 4096
level3:
    .space 4096
level4:
    .space 4096
