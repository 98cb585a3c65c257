// For small guests of the software engine, without any system: flat S-mode programs that begin at GUEST_BASE with a0 = hart id.
// They end by the SBI's system reset: guest_pass as a shutdown, guest_fail as a system failure with gp = the number of the check.
#define GUEST_BASE 0x80200000
#define IMSIC_BASE 0x28000000

#define SBI_HSM 0x48534d
#define SBI_IPI 0x735049
#define SBI_RFENCE 0x52464e43
#define SBI_SRST 0x53525354

#define SSTATUS_SIE (1 << 1)
#define SSTATUS_SPIE (1 << 5)
#define SSTATUS_SPP (1 << 8)
#define SSTATUS_FS (3 << 13)
#define SSTATUS_SUM (1 << 18)
#define SSTATUS_MXR (1 << 19)

#define PTE_V 0x01
#define PTE_R 0x02
#define PTE_W 0x04
#define PTE_X 0x08
#define PTE_U 0x10
#define PTE_G 0x20
#define PTE_A 0x40
#define PTE_D 0x80

.macro guest_begin
    .section .text.start, "ax"
    .globl _start
_start:
    la t0, unexpected_trap
    csrw stvec, t0
    la sp, stack_end
    j main
    .align 2
unexpected_trap:
    csrr a3, scause
    csrr a4, sepc
    csrr a5, stval
    ori gp, gp, 1 << 10
    j guest_fail
guest_fail:
    li a1, 1
    j guest_end
guest_pass:
    li a1, 0
guest_end:
    li a7, SBI_SRST
    li a6, 0
    li a0, 0
    ecall
    j guest_end
    // Traps that a check expects come here: the cause goes to s10, the value to s11, sepc to s9, sstatus to s6, and the program goes on
    // at s8 in S mode, with interrupts off.
    .align 2
expected_trap:
    csrr s10, scause
    csrr s11, stval
    csrr s9, sepc
    csrr s6, sstatus
    csrw sepc, s8
    li t6, SSTATUS_SPIE
    csrc sstatus, t6
    li t6, SSTATUS_SPP
    csrs sstatus, t6
    sret
    .bss
    .align 12
stack:
    .space 16384
stack_end:
    .text
    .endm

    // Check number \n: \reg must be \value.
    .macro check n, reg, value
    li gp, \n
    li t6, \value
    bne \reg, t6, guest_fail
    .endm

    .macro check_equal n, a, b
    li gp, \n
    bne \a, \b, guest_fail
    .endm

    .macro expect_traps
    la t0, expected_trap
    csrw stvec, t0
    .endm

    // \instruction must trap with \cause; stval is left in s11 and sepc in s9.
    .macro traps n, cause, instruction:vararg
    li gp, \n
    li s10, -1
    la s8, 7772f
7771:
    \instruction
    j guest_fail
7772:
    li t6, \cause
    bne s10, t6, guest_fail
    la t6, 7771b
    bne s9, t6, guest_fail
    .endm

    // \instruction must not trap.
    .macro fine n, instruction:vararg
    li gp, \n
    la s8, guest_fail
    \instruction
    .endm

    // Goes on at the next instruction in U mode.
    .macro to_user
    la t0, 7773f
    csrw sepc, t0
    li t0, SSTATUS_SPP
    csrc sstatus, t0
    sret
7773:
    .endm

    // The same in S mode: by an ecall, which must be expected.
    .macro to_supervisor
    la s8, 7774f
    ecall
7774:
    .endm
