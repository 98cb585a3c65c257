# Firmware for the oracle: the smallest machine mode that lets an image run in S mode on bare hardware semantics. All exceptions go
# to S mode; of SBI there are console putchar (1) and shutdown (8). OpenSBI would emulate some of what is to be compared.
        .option norvc
        .globl  _start
_start:
        csrr    t0, mhartid
1:      bnez    t0, 1b
        la      t0, machine_trap
        csrw    mtvec, t0
        li      t0, -1
        csrw    pmpaddr0, t0
        li      t0, 0x1f                # all memory: naturally aligned power of two, read, write, execute
        csrw    pmpcfg0, t0
        li      t0, 0xb1ff              # every exception that does not come from M mode but for the call from S (9)
        csrw    medeleg, t0
        li      t0, 0x222
        csrw    mideleg, t0
        li      t0, 7
        csrw    mcounteren, t0
        csrw    satp, zero
        li      t0, 0x80200000
        csrw    mepc, t0
        li      t0, 0x800               # mstatus.MPP = S
        csrw    mstatus, t0
        li      a0, 0
        mret

        .balign 4
machine_trap:                           # only calls from S mode come here
        csrw    mscratch, t0
        li      t0, 1
        bne     a7, t0, shutdown
        li      t0, 0x10000000
        sb      a0, 0(t0)               # the 16550's transmit register: the model never blocks
        li      a0, 0
        csrr    t0, mepc
        addi    t0, t0, 4
        csrw    mepc, t0
        csrr    t0, mscratch
        mret
shutdown:
        li      t0, 0x100000            # SiFive's test device: pass
        li      t1, 0x5555
        sw      t1, 0(t0)
1:      j       1b
