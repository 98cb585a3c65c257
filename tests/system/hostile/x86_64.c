// The hostile guest on an x86-64 machine: entered by PVH in flat 32-bit mode (xen/include/public/arch-x86/hvm/start_info.h).
#include "guest.h"

__asm__(".section .note.Xen, \"a\", @note\n"
        ".long 4, 4, 18\n" // XEN_ELFNOTE_PHYS32_ENTRY
        ".asciz \"Xen\"\n"
        ".long start\n"
        ".text\n"
        ".globl start\n"
        "start: mov $stack + 65536, %esp\n"
        "push %ebx\n"
        "call entered\n"
        ".comm stack, 65536, 16\n");

enum {
    DEBUG_EXIT = 0xf4,
    COM1 = 0x3f8,
    FW_CFG = 0x510,
    SLEEP = 0x600,
    PCI_ADDRESS = 0xcf8,
    PCI_DATA = 0xcfc,
    TEST = 0xe0,
    TEST_LINES = 0x2000
};

static void out(uint16_t port, unsigned size, uint32_t value)
{
    if (size == 1)
        __asm__ volatile("outb %b0, %1" : : "a"(value), "Nd"(port));
    else if (size == 2)
        __asm__ volatile("outw %w0, %1" : : "a"(value), "Nd"(port));
    else
        __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static uint32_t in(uint16_t port, unsigned size)
{
    uint32_t value = 0;
    if (size == 1)
        __asm__ volatile("inb %1, %b0" : "+a"(value) : "Nd"(port));
    else if (size == 2)
        __asm__ volatile("inw %1, %w0" : "+a"(value) : "Nd"(port));
    else
        __asm__ volatile("inl %1, %0" : "+a"(value) : "Nd"(port));
    return value;
}

// Eight bytes are two accesses in this mode, as with any 32-bit kernel.
uint64_t mmio_read(uint64_t addr, unsigned size)
{
    uintptr_t at = (uintptr_t)addr;
    switch (size) {
    case 1:
        return *(volatile uint8_t *)at;
    case 2:
        return *(volatile uint16_t *)at;
    case 4:
        return *(volatile uint32_t *)at;
    default:
        return *(volatile uint64_t *)at;
    }
}

void mmio_write(uint64_t addr, unsigned size, uint64_t value)
{
    uintptr_t at = (uintptr_t)addr;
    switch (size) {
    case 1:
        *(volatile uint8_t *)at = (uint8_t)value;
        break;
    case 2:
        *(volatile uint16_t *)at = (uint16_t)value;
        break;
    case 4:
        *(volatile uint32_t *)at = (uint32_t)value;
        break;
    default:
        *(volatile uint64_t *)at = value;
    }
}

// Ports that end the machine are its own affair, and of no use here: 0x64, 0xf4, 0x600 to 0x602, 0xcf9.
static bool ends(uint16_t port, unsigned size)
{
    static const uint16_t ending[] = {0x64, 0xf4, 0xf5, 0xf6, 0xf7, 0x600, 0x601, 0x602, 0xcf9};
    for (unsigned i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
        if (ending[i] >= port && ending[i] < port + size && !(port == PCI_ADDRESS && size == 4))
            return true;
    return false;
}

void odd_access(void)
{
    static const uint16_t ports[] = {COM1 + 1, FW_CFG, PCI_ADDRESS, PCI_DATA, TEST, TEST_LINES, 0x20, 0x3f8 + 3};
    uint64_t where = draw();
    unsigned size = 1u << where % 8 % 3;
    uint16_t port = where >> 8 & 7 ? ports[where >> 16 & 7] + (where >> 24 & 3) : (uint16_t)(where >> 32);
    uint32_t value = (uint32_t)draw();
    if (port <= 0xa1 && (port & 0x7e) == 0x20) // the PICs are the kernel's
        port = TEST;
    if (where >> 48 & 1)
        in(port, size);
    else if (port == PCI_ADDRESS && size == 4) // of a function that has no power to end the machine
        out(port, size, 1u << 31 | (value & 0x3fff));
    else if (!ends(port, size))
        out(port, size, port >= PCI_DATA && port < PCI_DATA + 4 ? value & 0xf8f8f8f8 : value);
}

uint64_t odd_address(void)
{
    uint64_t where = draw();
    if (where & 1)
        return 0xff000000u + (uint32_t)(where >> 32) % 0x2000; // the test page, and behind it
    return 0xc0000000u + (uint32_t)(where >> 32) % 0x20000000u;
}

void console_open(void)
{
    out(COM1 + 3, 1, 3);
    out(COM1 + 1, 1, 0);
    out(COM1 + 4, 1, 3);
}

void console_put(char c)
{
    while (!(in(COM1 + 5, 1) & 0x20))
        ;
    out(COM1, 1, (uint8_t)c);
}

_Noreturn void power_off(uint32_t status)
{
    for (;;)
        if (status)
            out(DEBUG_EXIT, 4, status);
        else
            out(SLEEP, 1, 0x20 | 5 << 2);
}

void entered(const uint32_t *start_info);
void entered(const uint32_t *start_info)
{
    const char *words = (const char *)start_info[6];
    unsigned n = 0;
    while (words[n])
        n++;
    guest_main(words, n);
}
