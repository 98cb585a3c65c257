// A guest that does in a millisecond what an unmodified x86-64 kernel relies on, from real mode to a timer interrupt in long mode, and
// checks what it sees. Each step's number is in PROBE_RESULT before it begins. See probe.h.
//
// References are to the Intel SDM, volume 3 (chapter.section) unless said otherwise. It is copied to PROBE_CODE in a memory of its own,
// so addresses are AT(label) where they must be absolute.
#include "machine/engine/kvm/probe_guest.h"

#define AT(label) ((label) - kvm_probe_guest + PROBE_CODE)

#define RESULT_VECTOR (PROBE_RESULT + 4)
#define IDT           0x4000
#define STACK_TOP     0x6000
#define TSS_STACK_TOP 0x7000
#define USER_STACK    0x8000
#define TSS           0x8000
#define PML4          0x9000 // -> PDPT -> PD; PD[0] -> PT_LOW: all RAM by its own address, PD[1] -> PT, PD[2]: 2 MiB from 0 on
#define PDPT          0xa000
#define PD            0xb000
#define PT_LOW        0xc000
#define PT            0xd000
#define OTHER_PML4    0xe000 // the same, with another PT
#define OTHER_PDPT    0xf000
#define OTHER_PD      0x10000
#define OTHER_PT      0x11000
#define PAGE_A        0x12000
#define PAGE_B        0x13000
#define TABLES_END    0x14000
#define VIRTUAL       0x200000 // what PT maps
#define VIRTUAL_HUGE  0x400000

#define CODE64      0x08
#define DATA        0x10
#define CODE32      0x18
#define USER_DATA   0x23
#define USER_CODE   0x2b
#define TSS_SELECT  0x30

#define PRESENT  1
#define WRITE    2
#define USER     4
#define HUGE     0x80
#define ACCESSED 0x20
#define DIRTY    0x40

#define MSR_APIC_BASE      0x1b
#define MSR_EFER           0xc0000080
#define MSR_STAR           0xc0000081
#define MSR_LSTAR          0xc0000082
#define MSR_SFMASK         0xc0000084
#define MSR_FS_BASE        0xc0000100
#define MSR_GS_BASE        0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_X2APIC(reg)    (0x800 + ((reg) >> 4))

#define VECTOR_BREAKPOINT 3
#define VECTOR_PROTECTION 13
#define VECTOR_PAGE_FAULT 14
#define VECTOR_SELF       0x40
#define VECTOR_TIMER      0x41
#define VECTOR_USER       0x80
#define VECTOR_NONE       0x1ff

#define STEP(number) movl $number, PROBE_RESULT

    // The next exception or interrupt is to be this one; the handler goes on at `where`, or where it came from (0).
.macro expect vector, where
    movl $\vector, %r12d
    movl $\where, %r13d
.endm

.macro check_taken
    cmpl $VECTOR_NONE, %r12d
    jne failed
.endm

.macro set_msr msr, high, low
    movl $\msr, %ecx
    movl $\high, %edx
    movl $\low, %eax
    wrmsr
.endm

    .section .rodata
    .balign 16
    .globl kvm_probe_guest, kvm_probe_guest_bytes
    .hidden kvm_probe_guest, kvm_probe_guest_bytes
kvm_probe_guest:
    .code16
    movl $PROBE_CPUID_LEAF, %eax // its own, not the host's
    cpuid
    cmpl $PROBE_CPUID_EBX, %ebx
    jne 1f
    movl $PROBE_STEP_REAL, %cs:PROBE_RESULT
    xorw %ax, %ax
    movw %ax, %ss
    movw $STACK_TOP, %sp
    movw $(PAGE_A >> 4), %ax // segments of real mode: base is selector * 16
    movw %ax, %ds
    movb $0x5a, 3
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw $(PAGE_A & 0xf000), %bx
    movl $(PAGE_A + 3), %eax
    cmpb $0x5a, (%eax)
    jne 1f
    callw 2f
1:  movb $1, %al
    outb %al, $PROBE_PORT
2:  popw %ax
    movl $PROBE_STEP_PROTECTED, PROBE_RESULT
    lgdtl AT(gdt_pointer)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $CODE32, $AT(protected)

    .code32
protected:
    movw $DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $STACK_TOP, %esp
    cld
    movl $PML4, %edi // all tables empty
    movl $((TABLES_END - PML4) / 4), %ecx
    xorl %eax, %eax
    rep stosl
    movl $(PDPT + PRESENT + WRITE + USER), PML4
    movl $(PD + PRESENT + WRITE + USER), PDPT
    movl $(PT_LOW + PRESENT + WRITE + USER), PD
    movl $(PT + PRESENT + WRITE + USER), PD + 8
    movl $(HUGE + PRESENT + WRITE), PD + 16
    movl $(OTHER_PDPT + PRESENT + WRITE + USER), OTHER_PML4
    movl $(OTHER_PD + PRESENT + WRITE + USER), OTHER_PDPT
    movl $(PT_LOW + PRESENT + WRITE + USER), OTHER_PD
    movl $(OTHER_PT + PRESENT + WRITE + USER), OTHER_PD + 8
    movl $PT_LOW, %edi
    movl $(PRESENT + WRITE + USER), %eax
1:  movl %eax, (%edi)
    addl $8, %edi
    addl $0x1000, %eax
    cmpl $PROBE_RAM_BYTES, %eax
    jb 1b

    STEP(PROBE_STEP_LONG) // 10.8.5
    movl %cr4, %eax
    orl $0x620, %eax // PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $PML4, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    rdmsr
    orl $0x901, %eax // SCE, LME, NXE
    wrmsr
    movl %cr0, %eax
    andl $~4, %eax        // EM
    orl $0x80010002, %eax // PG, WP, MP
    movl %eax, %cr0
    ljmpl $CODE64, $AT(long_mode)

    .code64
long_mode:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $STACK_TOP, %esp
    movl $VECTOR_NONE, %r12d
    movl $MSR_EFER, %ecx
    rdmsr
    testl $0x400, %eax // LMA
    jz failed

    // The IDT: all exceptions, and the vectors of ours. Each handler is 16 bytes after the one before it.
    leaq handlers(%rip), %rbx
    movl $IDT, %edi
    xorl %ecx, %ecx
1:  call set_gate
    incl %ecx
    cmpl $32, %ecx
    jne 1b
    movl $(IDT + VECTOR_SELF * 16), %edi
    call set_gate
    call set_gate
    movl $(IDT + VECTOR_USER * 16), %edi
    call set_gate
    orb $0x60, IDT + VECTOR_USER * 16 + 5 // DPL 3
    orb $0x60, IDT + VECTOR_BREAKPOINT * 16 + 5
    lidt idt_pointer(%rip)
    movl $TSS, %edi
    movl $26, %ecx
    xorl %eax, %eax
    rep stosl
    movl $TSS_STACK_TOP, TSS + 4 // RSP0
    movl $TSS_SELECT, %eax
    ltr %ax

    STEP(PROBE_STEP_PRIVILEGE)
    movl %cs, %eax
    cmpl $CODE64, %eax
    jne failed
    pushq $0
    movl %ss, %eax
    cmpl $DATA, %eax
    jne failed
    movl $DATA, %ecx
    larl %ecx, %eax
    jnz failed
    andl $0xfe00, %eax
    cmpl $0x9200, %eax
    jne failed
    popq %rax

    STEP(PROBE_STEP_FLAGS)
    sti
    pushfq
    popq %rax
    cli
    pushfq
    popq %rcx
    testl $0x200, %eax
    jz failed
    testl $0x200, %ecx
    jnz failed
    pushq $0x3202 // IF and IOPL 3
    popfq
    pushfq
    popq %rax
    pushq $2
    popfq
    pushfq
    popq %rcx
    andl $0x3200, %eax
    cmpl $0x3200, %eax
    jne failed
    testl $0x3200, %ecx
    jnz failed

    STEP(PROBE_STEP_TABLES)
    subq $16, %rsp
    sidt (%rsp)
    cmpq $IDT, 2(%rsp)
    jne failed
    sgdt (%rsp)
    cmpq $AT(gdt), 2(%rsp)
    jne failed
    addq $16, %rsp
    str %eax
    cmpl $TSS_SELECT, %eax
    jne failed
    movq %cr3, %rax
    cmpq $PML4, %rax
    jne failed

    STEP(PROBE_STEP_EXCEPTION)
    expect VECTOR_BREAKPOINT, 0
    movq %rsp, %rbx
    int3
    check_taken
    cmpq %rsp, %rbx
    jne failed
    expect 6, AT(1f) // #UD
    ud2
    jmp failed
1:  check_taken

    STEP(PROBE_STEP_MSR)
    movl $0x11111111, PAGE_A
    movl $0x22222222, PAGE_B
    set_msr MSR_FS_BASE, 0, PAGE_A
    set_msr MSR_GS_BASE, 0, PAGE_B
    set_msr MSR_KERNEL_GS_BASE, 0, PAGE_A
    cmpl $0x11111111, %fs:0
    jne failed
    cmpl $0x22222222, %gs:0
    jne failed
    swapgs
    cmpl $0x11111111, %gs:0
    jne failed
    movl $MSR_KERNEL_GS_BASE, %ecx
    rdmsr
    cmpl $PAGE_B, %eax
    jne failed
    swapgs
    expect VECTOR_PROTECTION, AT(1f)
    movl $MSR_EFER, %ecx // bits that are reserved
    rdmsr
    movl $0x80000000, %edx
    wrmsr
    jmp failed
1:  check_taken

    STEP(PROBE_STEP_FAULT) // 4.7; the handler puts r14 at r15 and goes back
    movl $(PAGE_A + PRESENT + WRITE + USER), %r14d
    movl $PT, %r15d
    expect VECTOR_PAGE_FAULT, 0
    cmpl $0x11111111, VIRTUAL
    jne failed
    check_taken
    movl $(PAGE_B + PRESENT + WRITE + USER), PT // and another page in its place
    invlpg VIRTUAL
    cmpl $0x22222222, VIRTUAL
    jne failed
    movl $0, PT
    invlpg VIRTUAL
    expect VECTOR_PAGE_FAULT, AT(1f)
    movl VIRTUAL, %eax
    jmp failed
1:  check_taken
    cmpl $0x11111111, VIRTUAL_HUGE + PAGE_A
    jne failed

    STEP(PROBE_STEP_PROTECT) // 4.6.1
    movq $(PAGE_A + PRESENT), PT + 8
    expect VECTOR_PAGE_FAULT, AT(1f)
    movl $0, VIRTUAL + 0x1000 // CR0.WP
    jmp failed
1:  check_taken
    cmpl $3, %r11d // the error code: present, write
    jne failed
    movl $0xc3, PAGE_B + 8 // ret
    movl $(PAGE_B + PRESENT), PT + 16
    movl $0x80000000, PT + 20 // XD
    expect VECTOR_PAGE_FAULT, AT(1f)
    movl $(VIRTUAL + 0x2008), %eax
    call *%rax
    jmp failed
1:  movl $STACK_TOP, %esp
    check_taken
    cmpl $0x11, %r11d // present, instruction fetch
    jne failed
    movl $0, PT + 20
    invlpg VIRTUAL + 0x2000
    call *%rax

    STEP(PROBE_STEP_DIRTY) // 4.8
    movq $(PAGE_B + PRESENT + WRITE), PT + 24
    movl VIRTUAL + 0x3000, %eax
    movl PT + 24, %eax
    andl $(ACCESSED + DIRTY), %eax
    cmpl $ACCESSED, %eax
    jne failed
    movl %eax, VIRTUAL + 0x3ff0
    testl $DIRTY, PT + 24
    jz failed

    STEP(PROBE_STEP_SPACES)
    movq $(PAGE_A + PRESENT + WRITE), PT + 32
    movq $(PAGE_B + PRESENT + WRITE), OTHER_PT + 32
    movl $PML4, %eax
    movl $OTHER_PML4, %edx
    movl $64, %ecx
1:  movq %rdx, %cr3
    cmpl $0x22222222, VIRTUAL + 0x4000
    jne failed
    movq %rax, %cr3
    cmpl $0x11111111, VIRTUAL + 0x4000
    jne failed
    decl %ecx
    jnz 1b

    STEP(PROBE_STEP_FPU)
    fninit
    movq $0x123456789abcdef, %rax
    movq %rax, %xmm3
    fxsave64 PAGE_A + 0x200
    cmpq %rax, PAGE_A + 0x200 + 160 + 3 * 16
    jne failed
    movl $1, %eax
    cpuid
    btl $26, %ecx // XSAVE
    jnc 1f
    movq %cr4, %rax
    btsq $18, %rax // OSXSAVE
    movq %rax, %cr4
    xorl %ecx, %ecx
    xorl %edx, %edx
    movl $3, %eax
    xsetbv
    xgetbv
    cmpl $3, %eax
    jne failed
1:

    STEP(PROBE_STEP_USER)
    set_msr MSR_STAR, 0x001b0008, 0
    set_msr MSR_LSTAR, 0, AT(system_call)
    set_msr MSR_SFMASK, 0, 0x200
    movl $AT(user), %eax
    jmp to_user
user:
    movl %cs, %eax
    cmpl $USER_CODE, %eax
    jne failed_user
    movl $0x1234, %eax
    syscall // clobbers rcx, r11
    cmpl $0x4321, %eax
    jne failed_user
    expect VECTOR_USER, 0
    int $VECTOR_USER
    check_taken
    expect VECTOR_USER, AT(1f)
    int $VECTOR_USER
    jmp failed_user
1:  check_taken

    STEP(PROBE_STEP_TSS)
    cmpq $(TSS_STACK_TOP - 40), %rbp // the handler's frame: 6.12.1
    jne failed

    STEP(PROBE_STEP_GUARD)
    expect VECTOR_PROTECTION, AT(1f)
    movl $AT(user_halts), %eax
    jmp to_user
user_halts:
    hlt
    jmp failed_user
1:  check_taken
    expect VECTOR_PAGE_FAULT, AT(1f)
    movl $AT(user_peeks), %eax
    jmp to_user
user_peeks:
    movl VIRTUAL + 0x4000, %eax // no USER
    jmp failed_user
1:  check_taken
    cmpl $5, %r11d // present, user
    jne failed

    STEP(PROBE_STEP_APIC) // 10.12: x2APIC
    movl $MSR_APIC_BASE, %ecx
    rdmsr
    orl $0xc00, %eax
    wrmsr
    set_msr MSR_X2APIC(0xf0), 0, 0x1ff // spurious vector, enabled
    expect VECTOR_SELF, 0
    set_msr MSR_X2APIC(0x3f0), 0, VECTOR_SELF
    sti
    nop
    cli
    check_taken

    STEP(PROBE_STEP_TIMER) // 10.5.4
    set_msr MSR_X2APIC(0x3e0), 0, 0xb // divide by 1
    set_msr MSR_X2APIC(0x320), 0, VECTOR_TIMER
    expect VECTOR_TIMER, 0
    set_msr MSR_X2APIC(0x380), 0, 100000
    sti
    hlt
    cli
    check_taken
    xorl %eax, %eax
    outb %al, $PROBE_PORT

failed_user: // to ring 0, where that is not expected
    ud2
failed:
    movb $1, %al
    outb %al, $PROBE_PORT
    jmp failed

to_user: // at rax
    pushq $USER_DATA
    pushq $USER_STACK
    pushq $2
    pushq $USER_CODE
    pushq %rax
    iretq

system_call:
    swapgs
    cmpl $0x11111111, %gs:0
    jne failed
    swapgs
    cmpl $0x1234, %eax
    jne failed
    movl $0x4321, %eax
    sysretq

set_gate: // at rdi, to the handler at rbx; both go on to the next
    leaq kvm_probe_guest(%rip), %rdx
    leaq PROBE_CODE(%rbx), %rax
    subq %rdx, %rax
    movw %ax, (%rdi)
    movw $CODE64, 2(%rdi)
    movl $0x8e00, 4(%rdi) // interrupt gate
    shrl $16, %eax
    movw %ax, 6(%rdi)
    movq $0, 8(%rdi)
    addq $16, %rdi
    addq $16, %rbx
    ret

    .balign 16
handlers:
    .set vector, 0
    .rept 32
    .balign 16
    // No error code but for 8, 10 to 14, 17, 21, 29 and 30 (6.13; AMD APM 2, 8.2).
    .if (0x60227d00 >> vector) & 1 == 0
    pushq $0
    .endif
    pushq $vector
    jmp handle
    .set vector, vector + 1
    .endr
    .irp vector, VECTOR_SELF, VECTOR_TIMER, VECTOR_USER
    .balign 16
    pushq $0
    pushq $\vector
    jmp handle
    .endr

handle: // rsp: vector, error code, rip, cs, rflags, rsp, ss
    cmpl %r12d, (%rsp)
    jne unexpected
    movl $VECTOR_NONE, %r12d
    movl 8(%rsp), %r11d
    leaq 16(%rsp), %rbp
    cmpl $32, (%rsp)
    jb 1f
    cmpl $VECTOR_USER, (%rsp)
    je 1f
    movq %rax, (%rsp)
    pushq %rcx
    pushq %rdx
    set_msr MSR_X2APIC(0xb0), 0, 0 // end of interrupt
    popq %rdx
    popq %rcx
    movq (%rsp), %rax
    jmp 3f
1:  testl %r13d, %r13d
    jnz 2f
    cmpl $VECTOR_PAGE_FAULT, (%rsp)
    jne 3f
    movq %r14, (%r15)
    jmp 3f
2:  testb $3, 24(%rsp)
    jnz 4f
    movq %r13, 16(%rsp)
3:  addq $16, %rsp
    iretq
4:  movl $STACK_TOP, %esp // from user: goes on in ring 0
    jmp *%r13

unexpected:
    movl (%rsp), %eax
    movl %eax, RESULT_VECTOR
    movb $1, %al
    outb %al, $PROBE_PORT
    jmp unexpected

    .balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff // CODE64
    .quad 0x00cf93000000ffff // DATA
    .quad 0x00cf9b000000ffff // CODE32
    .quad 0x00cff3000000ffff // USER_DATA
    .quad 0x00affb000000ffff // USER_CODE
    .quad 0x0000890000000067 + (TSS << 16)
    .quad 0
gdt_pointer:
    .word . - gdt - 1
    .long AT(gdt)
idt_pointer:
    .word 4095
    .quad IDT
guest_end:
    .balign 8
kvm_probe_guest_bytes:
    .long guest_end - kvm_probe_guest

    .section .note.GNU-stack, "", @progbits
