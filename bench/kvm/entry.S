// The smallest kernel: entered by PVH (xen/include/public/arch-x86/hvm/start_info.h), it writes a byte to COM1 and halts. From the
// start of the process to that byte is what a machine costs before its kernel runs.
    .code32
    .section .note.Xen, "a", @note
    .long 4, 4, 18 // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long start

    .text
    .globl start
start:
    mov $0x3f8, %dx
    mov $'E', %al
    out %al, %dx
1:  hlt
    jmp 1b

    .section .note.GNU-stack, "", @progbits
