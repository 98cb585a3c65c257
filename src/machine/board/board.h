// The board: the one public header of this folder.
//
// bus.h         the memory-mapped bus
// virt/map.h    where everything is in a riscv64 machine,
// pc/map.h      and in an x86-64 one
// doorbell.h    calls on the loop from other threads
// pcie.h        the PCIe host, into whose slots the devices of machine/device go
// uart16550.h   the serial port
//
// A board is everything of the machine but vcpus, their interrupt controllers and RAM: the bus, the serial port, the PCIe host,
// what only one architecture has, and the device tree or the ACPI tables that describe it all. Interrupts leave it as
// message-signalled ones, by board_config.raise_msi, and on x86-64 by wires too.
//
// Threads: created, destroyed, reset, frozen, thawed, saved and loaded on the machine's thread (the loop's), reset and the latter
// with no vcpu running. The bus is for vcpu threads. Each device has a mutex of its own; the order is virtio device -> PCIe
// function or UART or RTC -> APLIC -> what raise_msi takes; the bus's lock is taken under a PCIe function's, for as long as a BAR
// is put in its place.
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/state.h"
#include "machine/board/bus.h"
#include "machine/board/doorbell.h"
#include "machine/board/pc/map.h"
#include "machine/board/pcie.h"
#include "machine/board/uart16550.h"
#include "machine/board/virt/map.h"
#include "machine/engine/engine.h"
#include "vhost/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct board;

struct board_config {
    struct loop *loop;              // borrowed
    const struct guest_memory *mem; // borrowed
    unsigned n_vcpus;
    enum engine_arch arch;
    void *arg; // for all that follow
    // engine_ops.raise_msi: any thread, with a device's lock held.
    int (*raise_msi)(void *arg, uint64_t addr, uint32_t data);
    // engine_ops.bind_doorbell and bind_msi; NULL where the engine has none.
    int (*bind_doorbell)(void *arg, uint64_t gpa, int fd, bool on);
    int (*bind_msi)(void *arg, int fd, bool on, uint64_t addr, uint32_t data);
    // engine_ops.set_irq, as raise_msi (x86-64).
    void (*set_irq)(void *arg, unsigned line, bool level);
    // What the guest wrote to the serial port; on a vcpu's thread, no lock held. Must not block for long.
    void (*console_output)(void *arg, const uint8_t *buf, size_t len_bytes);
    // The serial port has room again after board_uart()'s input was cut short; on a vcpu's thread, no lock held. May be NULL.
    void (*console_room)(void *arg);
};

struct board *board_create(const struct board_config *config, struct tv_error *err);
void board_destroy(struct board *board); // and the devices in its slots
void board_reset(struct board *board);   // as after power-on, the devices in the slots as well

// Between freeze and thaw no device touches guest memory, raises an interrupt by itself, or starts a request. What came meanwhile
// is served after thaw. A board is born thawed.
void board_freeze(struct board *board);
int board_thaw(struct board *board, struct tv_error *err);
// The board must be frozen, and the same devices in the same slots when loading. Requests that other processes have in flight end
// here when saving, so save the RAM after it. The stream must carry the engine's state after the board's.
int board_state(struct board *board, struct state *s);

struct bus *board_bus(struct board *board); // the `arg` of bus_read() and bus_write()
struct pcie *board_pcie(struct board *board);
struct uart16550 *board_uart(struct board *board);
// Wired interrupt `line`: a source of the APLIC (1..MAP_APLIC_SOURCES), a GSI of the I/O APIC. Any thread.
void board_set_irq(struct board *board, unsigned line, bool level);
// I/O ports, as engine_host's port_read and port_write. x86-64.
int board_port_read(struct board *board, uint16_t port, unsigned size, uint64_t *value);
int board_port_write(struct board *board, uint16_t port, unsigned size, uint64_t value, enum engine_exit *exit);
int board_exit_status(const struct board *board); // after ENGINE_EXIT_STATUS

struct board_boot {
    const struct engine *engine;            // describes its vcpus
    const char *append;                     // the kernel's command line; may be NULL
    uint64_t initrd_addr, initrd_len_bytes; // len 0: none
};

// The flattened device tree of a riscv64 board: *fdt of *len_bytes, the caller's to free.
int board_device_tree(const struct board *board, const struct board_boot *boot, void **fdt, size_t *len_bytes,
                      struct tv_error *err);

// The ACPI tables of an x86-64 board, for PC_TABLES_BASE: how many bytes of `out`, or -ENOSPC. The first of them is the RSDP.
int board_acpi(const struct board *board, uint8_t *out, size_t room, struct tv_error *err);
// All that an x86-64 board's firmware leaves in memory: these tables, and code that resets the machine where a guest would enter
// the firmware (Linux does, when it finds no EFI on hardware-reduced ACPI).
int board_put_firmware(const struct board *board, struct tv_error *err);
// After a saved machine was loaded: the guest is told that there may be another that was loaded from the same (VMGENID). x86-64;
// nothing on another board.
void board_new_generation(struct board *board);
// Asks the guest to shut down, as its ACPI says. x86-64; false, and nothing done, on a board without a power button.
bool board_press_power_button(struct board *board);
