# The smallest guest: says hello by SBI's console and does what is typed: f ends with a failure, s shuts down, r reboots cold,
// w warm, p writes to pvpanic that it has panicked.
# SBI 2.0: chapter 12 (DBCN, extension 0x4442434E), chapter 10 (SRST, extension 0x53525354).
.equ DBCN, 0x4442434E
.equ SRST, 0x53525354
.equ PVPANIC, 0x300f8000             // its configuration space: slot 31 of bus 0
.equ PVPANIC_BAR, 0x40000000

    .data
hello:
    .ascii  "tiny guest\n"

key:
    .byte   0

    .text
    .globl _start
_start:
    la      a1, key             # a first read: from now on what is typed comes by SBI, not by the serial port
    li      a0, 1
    li      a2, 0
    li      a7, DBCN
    li      a6, 1
    ecall
    la      a1, hello
    li      a0, 11              # its length
    li      a2, 0
    li      a7, DBCN
    li      a6, 0               # console write
    ecall
ask:
    la      a1, key
    li      a0, 1
    li      a2, 0
    li      a7, DBCN
    li      a6, 1               # console read
    ecall
    beqz    a1, ask
    lbu     t0, key
    li      a0, 0               # shutdown
    li      a1, 0               # no reason
    li      t1, 's'
    beq     t0, t1, reset
    li      a0, 1               # cold reboot
    li      t1, 'r'
    beq     t0, t1, reset
    li      a0, 2               # warm reboot
    li      t1, 'w'
    beq     t0, t1, reset
    li      t1, 'p'
    beq     t0, t1, panic
    li      a0, 0
    li      a1, 1               # system failure
    li      t1, 'f'
    bne     t0, t1, ask
reset:
    li      a7, SRST
    li      a6, 0
    ecall
    j       ask
panic:
    li      t0, PVPANIC
    li      t1, PVPANIC_BAR
    li      t2, 2
    sw      t1, 0x10(t0)        # BAR 0
    sh      t2, 4(t0)           # command: memory space
    li      t2, 1               # PANICKED
    sb      t2, 0(t1)
    j       ask
