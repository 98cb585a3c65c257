# The way in and out of a block. Runs in S mode; the C part runs with translation off, so that of all this only the first page and
# the context's are mapped while a block runs.
#include "runtime.h"

        .option norvc
        .section .text.start, "ax"
        .globl  _start
_start:                                 # with the header of a Linux image, so that loaders take it
        j       begin
        .word   0
        .quad   0x200000                # offset in RAM
        .quad   0x600000                # size with all that is used behind the file
        .quad   0, 2, 0
        .ascii  "RISCV\0\0\0"
        .word   0x05435352, 0           # "RSC", 5
begin:
        la      sp, stack_top
        la      t0, __bss_start
        la      t1, __bss_end
1:      sd      zero, 0(t0)
        addi    t0, t0, 8
        bltu    t0, t1, 1b
        la      t0, block_trap
        csrw    stvec, t0
        csrw    sie, zero
        j       runtime_main

# void enter_block(struct context *c): returns at the first trap
        .globl  enter_block
enter_block:
        addi    sp, sp, -112
        sd      ra, 0(sp)
        sd      gp, 8(sp)
        sd      tp, 16(sp)
        sd      s0, 24(sp)
        sd      s1, 32(sp)
        sd      s2, 40(sp)
        sd      s3, 48(sp)
        sd      s4, 56(sp)
        sd      s5, 64(sp)
        sd      s6, 72(sp)
        sd      s7, 80(sp)
        sd      s8, 88(sp)
        sd      s9, 96(sp)
        sd      s10, 104(sp)
        sd      s11, CONTEXT_S11(a0)
        sd      sp, CONTEXT_SP(a0)
        mv      x31, a0
        csrw    sscratch, a0
        li      t0, 3 << 13             # floating point on, to load it
        csrs    sstatus, t0
        ld      t0, CONTEXT_FCSR(x31)
        csrw    fcsr, t0
        .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        fld     f\n, CONTEXT_F + 8 * \n(x31)
        .endr
        ld      t0, CONTEXT_PC(x31)
        csrw    sepc, t0
        ld      t0, CONTEXT_SCAUSE(x31) # the block may read what the last trap left
        csrw    scause, t0
        ld      t0, CONTEXT_STVAL(x31)
        csrw    stval, t0
        ld      t0, CONTEXT_SSTATUS(x31)
        csrw    sstatus, t0
        ld      t0, CONTEXT_ADDRESS(x31) # where the context is seen from inside
        ld      t1, CONTEXT_SATP(x31)
        mv      x31, t0
        csrw    satp, t1
        sfence.vma
        .irp    n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
        ld      x\n, 8 * \n(x31)
        .endr
        ld      x31, 8 * 31(x31)
        sret

        .balign 4
block_trap:
        csrrw   x31, sscratch, x31
        .irp    n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
        sd      x\n, 8 * \n(x31)
        .endr
        csrw    satp, zero
        csrr    t0, sscratch
        sd      t0, 8 * 31(x31)
        csrr    t0, sstatus
        sd      t0, CONTEXT_SSTATUS(x31)
        csrr    t0, sepc
        sd      t0, CONTEXT_PC(x31)
        csrr    t0, scause
        sd      t0, CONTEXT_SCAUSE(x31)
        csrr    t0, stval
        sd      t0, CONTEXT_STVAL(x31)
        csrr    t0, sie
        sd      t0, CONTEXT_SIE(x31)
        csrr    t0, sip
        sd      t0, CONTEXT_SIP(x31)
        li      t0, 3 << 13
        csrs    sstatus, t0
        csrr    t0, fcsr
        sd      t0, CONTEXT_FCSR(x31)
        .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        fsd     f\n, CONTEXT_F + 8 * \n(x31)
        .endr
        li      t0, 1 << 18 | 1 << 19   # SUM, MXR
        csrc    sstatus, t0
        ld      sp, CONTEXT_SP(x31)
        ld      s11, CONTEXT_S11(x31)
        ld      ra, 0(sp)
        ld      gp, 8(sp)
        ld      tp, 16(sp)
        ld      s0, 24(sp)
        ld      s1, 32(sp)
        ld      s2, 40(sp)
        ld      s3, 48(sp)
        ld      s4, 56(sp)
        ld      s5, 64(sp)
        ld      s6, 72(sp)
        ld      s7, 80(sp)
        ld      s8, 88(sp)
        ld      s9, 96(sp)
        ld      s10, 104(sp)
        addi    sp, sp, 112
        ret

# long sbi(long a0, long extension)
        .globl  sbi
sbi:
        mv      a7, a1
        ecall
        ret
