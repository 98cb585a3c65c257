// Where everything is in an x86-64 machine. Sizes in bytes.
#pragma once

#define PC_LOW_RAM_END 0xc0000000ull // RAM below 4 GiB ends here at the latest; what is more begins at PC_HIGH_RAM_BASE
#define PC_HIGH_RAM_BASE 0x100000000ull
#define PC_PCI32_BASE 0xc0000000ull // 32-bit BARs
#define PC_PCI32_SIZE 0x20000000ull
#define PC_ECAM_BASE 0xe0000000ull // PCIe configuration space of bus 0
#define PC_ECAM_SIZE 0x100000ull
#define PC_IOAPIC_BASE 0xfec00000ull
#define PC_LAPIC_BASE 0xfee00000ull
#define PC_TEST_PAGE 0xff000000ull    // test_ports.c
#define PC_PCI64_ALIGN 0x400000000ull // 64-bit BARs: 16 GiB from the first multiple of this above RAM
#define PC_PCI64_SIZE 0x400000000ull

// In the first MiB: what a PC's firmware leaves there is RAM that is not the kernel's, from PC_BASE_RAM_END on.
#define PC_BOOT_DATA 0x90000ull // what a kernel is told by the protocol that it is started with; below is room for one in real mode
#define PC_BOOT_DATA_SIZE 0x8000ull
#define PC_BASE_RAM_END 0x9f000ull
#define PC_TABLES_BASE 0xe0000ull // ACPI
#define PC_TABLES_SIZE 0xf000ull
#define PC_VMGENID_ADDR 0xef000ull // which start, or which load of a saved machine, this is
#define PC_VMGENID_BYTES 16
#define PC_RESET_ENTRY 0xffff0ull // where a PC's firmware is entered; 16 bytes
#define PC_KERNEL_BASE 0x100000ull

// I/O ports.
#define PC_PORT_TEST 0xe0 // test_ports.c
#define PC_PORT_TEST_PAGE_OUT 0xe4
#define PC_PORT_TEST_LINES 0x2000
#define PC_PORT_DEBUG_EXIT 0xf4 // as QEMU's isa-debug-exit: a write of v ends the machine with the status v << 1 | 1
#define PC_PORT_KEYBOARD 0x64   // 0xfe: reset, and nothing else
#define PC_PORT_COM1 0x3f8
#define PC_PORT_FW_CFG 0x510      // fw_cfg.c
#define PC_PORT_PCI_ADDRESS 0xcf8 // pci_ports.c
#define PC_PORT_RESET 0xcf9       // bit 2: reset
#define PC_PORT_PCI_DATA 0xcfc
#define PC_PORT_ACPI_SLEEP_CONTROL 0x600
#define PC_PORT_ACPI_SLEEP_STATUS 0x601
#define PC_PORT_ACPI_RESET 0x602

// Lines of the I/O APIC.
#define PC_LINES 24
#define PC_IRQ_COM1 4
#define PC_IRQ_POWER 20
#define PC_IRQ_VMGENID 21
