// The hostile guest on a riscv64 machine: S mode, a1 has the device tree. An access to nowhere traps there, and is passed over.
#include "guest.h"

__asm__(".section .text.start, \"ax\"\n"
        ".globl _start\n"
        "_start: la sp, stack + 65536\n"
        "la t0, trap\n"
        "csrw stvec, t0\n"
        "mv a0, a1\n"
        "j entered\n"
        ".align 2\n"
        "trap: csrw sscratch, t0\n"
        "csrr t0, sepc\n"
        "addi t0, t0, 4\n" // accesses are instructions of four bytes, see below
        "csrw sepc, t0\n"
        "csrr t0, sscratch\n"
        "sret\n"
        ".comm stack, 65536, 16\n");

#define UART 0x10000000ull
#define APLIC 0x0d000000ull

#define ACCESS(instruction, ...) __asm__ volatile(".option push\n.option norvc\n" instruction "\n.option pop" __VA_ARGS__)

uint64_t mmio_read(uint64_t addr, unsigned size)
{
    uint64_t value = 0;
    switch (size) {
    case 1:
        ACCESS("lbu %0, 0(%1)", : "+r"(value) : "r"(addr) : "memory");
        break;
    case 2:
        ACCESS("lhu %0, 0(%1)", : "+r"(value) : "r"(addr) : "memory");
        break;
    case 4:
        ACCESS("lwu %0, 0(%1)", : "+r"(value) : "r"(addr) : "memory");
        break;
    default:
        ACCESS("ld %0, 0(%1)", : "+r"(value) : "r"(addr) : "memory");
    }
    return value;
}

void mmio_write(uint64_t addr, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        ACCESS("sb %0, 0(%1)", : : "r"(value), "r"(addr) : "memory");
        break;
    case 2:
        ACCESS("sh %0, 0(%1)", : : "r"(value), "r"(addr) : "memory");
        break;
    case 4:
        ACCESS("sw %0, 0(%1)", : : "r"(value), "r"(addr) : "memory");
        break;
    default:
        ACCESS("sd %0, 0(%1)", : : "r"(value), "r"(addr) : "memory");
    }
}

void odd_access(void)
{
    uint64_t where = draw();
    uint64_t addr = where & 1 ? APLIC + (where >> 8) % 0x8000 : UART + 1 + (where >> 8) % 7;
    unsigned size = where & 1 ? 4 : 1;
    addr &= ~(uint64_t)(size - 1);
    if (where & 2)
        mmio_read(addr, size);
    else
        mmio_write(addr, size, draw());
}

uint64_t odd_address(void)
{
    uint64_t addr = draw() % RAM_BASE;
    return addr - UART < 0x100 ? APLIC : addr;
}

void console_open(void)
{
    mmio_write(UART + 3, 1, 3);
    mmio_write(UART + 1, 1, 0);
    mmio_write(UART + 4, 1, 3);
}

void console_put(char c)
{
    while (!(mmio_read(UART + 5, 1) & 0x20))
        ;
    mmio_write(UART, 1, (uint8_t)c);
}

_Noreturn void power_off(uint32_t status) // SBI 2.0, chapter 10
{
    (void)status;
    for (;;) {
        register uint64_t a0 __asm__("a0") = 0;
        register uint64_t a1 __asm__("a1") = 0;
        register uint64_t a6 __asm__("a6") = 0;
        register uint64_t a7 __asm__("a7") = 0x53525354;
        __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
    }
}

void entered(const uint32_t *tree);
void entered(const uint32_t *tree)
{
    const uint8_t *size = (const uint8_t *)(tree + 1); // big-endian; the words are somewhere in it
    guest_main((const char *)tree, (uint32_t)size[0] << 24 | (uint32_t)size[1] << 16 | (uint32_t)size[2] << 8 | size[3]);
}
