// What the hostile guest has of its machine; the files x86_64.c and rv64.c of it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Where things are: src/machine/board/*/map.h. 64-bit BARs go into the window for 32-bit ones as well.
#ifdef __riscv
#define RAM_BASE 0x80000000ull
#define ECAM_BASE 0x30000000ull
#define BARS_BASE 0x40000000ull
#define MSI_ADDR 0x28000000ull // interrupts are off: it stays pending
#else
#define RAM_BASE 0ull
#define ECAM_BASE 0xe0000000ull
#define BARS_BASE 0xc0000000ull
#define MSI_ADDR 0xfee00000ull
#endif
#define SANDBOX (RAM_BASE + (16u << 20)) // memory that devices may be told of; code and stack are below
#define SANDBOX_BYTES (16u << 20)

uint64_t mmio_read(uint64_t addr, unsigned size);
void mmio_write(uint64_t addr, unsigned size, uint64_t value);
// An access to something that only this machine has: ports, interrupt controllers.
void odd_access(void);
// An address that is worth an access beside those of the devices in slots.
uint64_t odd_address(void);
// The serial port as after power-on, and a byte to it.
void console_open(void);
void console_put(char c);
_Noreturn void power_off(uint32_t status); // but 0: by the debug exit, where there is one

uint64_t draw(void);            // the next random number
uint32_t below(uint32_t bound); // one below it
void guest_main(const char *words, unsigned n_bytes);
