// What an engine is to the machine: something that runs vcpus over a guest memory. Two engines stand behind it: rv64 (software) and
// kvm.
//
// Threads: create, destroy, reset, state and dirty log on the machine's thread with no vcpu running; run on the vcpu's own thread;
// kick, raise_msi and the counters from any thread.
#pragma once

#include "base/error.h"
#include "base/state.h"
#include "vhost/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENGINE_VCPUS_MAX 64

enum engine_arch { ENGINE_RISCV64, ENGINE_X86_64 }; // what the guest is

// Why engine_run() came back.
enum engine_exit {
    ENGINE_EXIT_KICK,        // somebody called kick: look around, then run again
    ENGINE_EXIT_SHUTDOWN,    // the guest shut the machine down
    ENGINE_EXIT_REBOOT,      // the guest asks for a reset of the whole machine,
    ENGINE_EXIT_WARM_REBOOT, // the same in other words (SBI SRST type "warm reboot")
    ENGINE_EXIT_FAILURE, // the guest reported failure (SBI SRST reason "system failure") or cannot go on; see engine_ops.failure
    ENGINE_EXIT_STATUS,  // the guest ended the machine with a status (board_exit_status())
};

// What the machine offers to an engine. Called on vcpu threads, several at once.
struct engine_host {
    void *arg;
    // An access outside RAM. size is 1, 2, 4 or 8, gpa is aligned to it. -ENXIO: nothing there, the guest gets an access fault.
    int (*mmio_read)(void *arg, uint64_t gpa, unsigned size, uint64_t *value);
    int (*mmio_write)(void *arg, uint64_t gpa, unsigned size, uint64_t value);
    // The same for the I/O ports of x86-64; size is 1, 2 or 4, port need not be aligned. A write that ends the machine returns 1
    // and says how in *exit: run() comes back with that.
    int (*port_read)(void *arg, uint16_t port, unsigned size, uint64_t *value);
    int (*port_write)(void *arg, uint16_t port, unsigned size, uint64_t value, enum engine_exit *exit);
    // The firmware console (SBI DBCN). read returns how many bytes there were, 0 if none.
    void (*console_write)(void *arg, const uint8_t *buf, size_t len_bytes);
    size_t (*console_read)(void *arg, uint8_t *buf, size_t len_bytes);
};

struct perf; // perf.h

// What is translated (rv64): what runs often, first so that it takes little room, and what runs very often once more, so that it is
// fast. The others are for tests: everything, at once.
enum engine_translate { ENGINE_TRANSLATE_BY_USE, ENGINE_TRANSLATE_SMALL, ENGINE_TRANSLATE_FULL };

struct engine_config {
    const struct guest_memory *mem; // borrowed; its regions do not change while a vcpu runs
    unsigned n_vcpus;
    uint64_t imsic_base; // guest-physical; one 4 KiB page a vcpu, in the order of hart ids (rv64)
    struct engine_host host;
    int kvm_fd;      // /dev/kvm, borrowed; -1: there is none (kvm)
    const char *cpu; // what of the host's processor the guest sees: a level, or "host"; NULL: the same (kvm)
    bool interpret;  // no translator (rv64)
    enum engine_translate translate;
    size_t code_bytes;           // room for translated code; 0: by the size of memory
    struct perf *perf;           // borrowed: is told of translated code; NULL: nobody asks
    uint64_t audit_instructions; // so many are carried out twice and compared, then the machine ends (rv64); 0: no audit
};

// Why a vcpu left translated code.
enum engine_left {
    ENGINE_LEFT_WFI,       // the guest waits for an interrupt
    ENGINE_LEFT_INTERRUPT, // something may be pending for it
    ENGINE_LEFT_FENCE,     // another vcpu fences
    ENGINE_LEFT_KICK,      // the machine asks
    ENGINE_LEFT_STOPPED,   // the hart was stopped or suspended
    ENGINE_LEFT_FULL,      // there is no room for more code
    ENGINE_LEFT_FLOAT,     // floating point that the interpreter carries out: off, or not rounded to nearest
    ENGINE_LEFT_CAUSES,
};

#define ENGINE_TRAP_CAUSES 16

// Of one vcpu, since its creation. Nothing is counted where translated code runs without help.
struct engine_counters {
    uint64_t instructions, mmio_exits, hypercalls, traps, interrupts, wfi;
    uint64_t exits;                           // from the guest, those that the kernel dealt with by itself as well (kvm)
    uint64_t tlb_misses;                      // accesses whose page was in no translation cache
    uint64_t page_walks;                      // those of them that read page tables
    uint64_t blocks_decoded, insns_decoded;   // for translated code or for the interpreter
    uint64_t links;                           // direct jumps that were made to lead from block to block
    uint64_t jump_misses;                     // jumps whose target was not in the jump table
    uint64_t steps;                           // single instructions that the interpreter carried out for translated code
    uint64_t code_fences, memory_fences;      // asked for by the guest on this vcpu or on another
    uint64_t left[ENGINE_LEFT_CAUSES];        // translated code, by enum engine_left
    uint64_t trap_causes[ENGINE_TRAP_CAUSES]; // traps by their cause, as engine_ops.trap_names has them
};

struct engine_code {                 // translated code, of all vcpus together
    uint64_t room_bytes, used_bytes; // 0: nothing is translated
    uint64_t thrown_away;            // how often all of it was, since there was no room for more
};

// How vcpu 0 starts.
struct engine_start {
    uint64_t entry; // physical
    uint64_t arg;   // the address of what the guest is told: rv64 a1; x86-64 ebx and esi
    uint32_t magic; // x86-64: eax
};

struct engine; // the implementation embeds it as its first member

struct engine_ops {
    const char *name; // "rv64", "kvm"
    enum engine_arch arch;
    struct engine *(*create)(const struct engine_config *config, struct tv_error *err);
    void (*destroy)(struct engine *e);
    // All vcpus as after power-on; vcpu 0 will start as is said (rv64: in S mode, a0 is 0; x86-64: in flat 32-bit mode without
    // paging), the others wait to be started (SBI HSM; INIT and SIPI).
    void (*reset)(struct engine *e, const struct engine_start *start);
    enum engine_exit (*run)(struct engine *e, unsigned vcpu);
    // run() returns soon with ENGINE_EXIT_KICK, or the next run() at once; never lost.
    void (*kick)(struct engine *e, unsigned vcpu);
    // A message-signalled interrupt: a 32-bit write to `addr`. -ENXIO if nobody listens there. Devices call it with their own lock
    // held, so that a vector never fires after it was masked: it must not call back into the board, nor wait for a thread or take a
    // lock that one may hold while it is in mmio_read or mmio_write.
    int (*raise_msi)(struct engine *e, uint64_t addr, uint32_t data);
    // A wire of the engine's own interrupt controller (x86-64: a GSI of its I/O APIC). NULL: it has none. As raise_msi.
    void (*set_irq)(struct engine *e, unsigned line, bool level);
    // The kernel does these by itself, from the next access on: a write of two bytes at gpa is one to the eventfd, and the device
    // does not see it; what is written to the eventfd raises a message. Any thread, as raise_msi; fd is borrowed until it is turned
    // off, with the same arguments. NULL: there is no such thing. On failure everything goes the way it went.
    int (*bind_doorbell)(struct engine *e, uint64_t gpa, int fd, bool on);
    int (*bind_msi)(struct engine *e, int fd, bool on, uint64_t addr, uint32_t data);
    // Guest time runs only between clock_start and clock_stop, so that a paused or saved machine does not see it leap.
    void (*clock_start)(struct engine *e);
    void (*clock_stop)(struct engine *e);
    int (*state)(struct engine *e, struct state *s); // every bit of every vcpu, of the clock and of the vcpus' interrupt files
    // Adds the /cpus node (harts, isa strings, timebase, interrupt controllers with phandles cpu_phandle_base + vcpu) to a tree
    // that libfdt can write (fdt_add_subnode() and fdt_setprop(), not the sequential calls); -ENOSPC when it does not fit.
    // NULL: the guest is told in another way.
    int (*describe)(const struct engine *e, void *fdt, uint32_t cpu_phandle_base);
    void (*counters)(const struct engine *e, unsigned vcpu, struct engine_counters *out);
    void (*code)(const struct engine *e, struct engine_code *out);
    const char *const *trap_names; // of ENGINE_TRAP_CAUSES causes; NULL: there is none of that number
    // What the vcpu was doing when it failed: one line, for the report. Borrowed.
    const char *(*failure)(const struct engine *e);
    // What else there is to say at the end, lines; NULL: nothing. With no vcpu running. Borrowed. May be a NULL function.
    const char *(*report)(struct engine *e);
    // General registers and pc, for the debugger and for tests: x0..x31; rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8..r15, the rest
    // 0. -EBUSY while the vcpu runs.
    int (*get_registers)(const struct engine *e, unsigned vcpu, uint64_t x[static 32], uint64_t *pc);
    // Pages written since the last call, one bit a 4 KiB page of region `region` of the memory; the log starts at the first call.
    int (*dirty_log)(struct engine *e, unsigned region, uint64_t *bitmap, size_t n_words);
};

struct engine {
    const struct engine_ops *ops;
};

extern const struct engine_ops engine_rv64;
extern const struct engine_ops engine_kvm;

// Looks an engine up by its name ("rv64", "auto"); NULL with a message that lists what there is.
const struct engine_ops *engine_find(const char *name, struct tv_error *err);
