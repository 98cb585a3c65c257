// The board's memory map and interrupt lines. They are where QEMU's `virt` board has them, so that small kernels with fixed
// addresses run here as well. Sizes in bytes.
#pragma once

#define MAP_RTC_BASE 0x00101000ull // Goldfish RTC
#define MAP_RTC_SIZE 0x1000ull
#define MAP_APLIC_BASE 0x0d000000ull // S level domain
#define MAP_APLIC_SIZE 0x8000ull
#define MAP_UART_BASE 0x10000000ull // 16550A, 3.6864 MHz
#define MAP_UART_SIZE 0x100ull
#define MAP_IMSIC_BASE 0x28000000ull // S files, one page a vcpu
#define MAP_IMSIC_STRIDE 0x1000ull
#define MAP_ECAM_BASE 0x30000000ull // PCIe configuration space, bus 0..255
#define MAP_ECAM_SIZE 0x10000000ull
#define MAP_PCI32_BASE 0x40000000ull // 32-bit BARs
#define MAP_PCI32_SIZE 0x40000000ull
#define MAP_RAM_BASE 0x80000000ull
#define MAP_PCI64_BASE 0x400000000000ull // 64-bit BARs; above any RAM, below the 47th bit
#define MAP_PCI64_SIZE 0x10000000000ull

// Wired interrupts of the APLIC (source numbers start at 1).
#define MAP_IRQ_UART 10
#define MAP_IRQ_RTC 11
#define MAP_IRQ_PCI_INTA 32 // four lines, INTA..INTD
#define MAP_APLIC_SOURCES 96

#define MAP_IMSIC_IDS 255
