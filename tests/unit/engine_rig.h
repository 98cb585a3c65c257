// The software engine with a little RAM and four vcpus, for tests. Functions end the test when something is wrong.
#pragma once

#include "machine/engine/engine.h"

#define RAM_BASE 0x80000000ull
#define RAM_BYTES (8ull << 20)
#define ENTRY 0x80200000ull
#define IMSIC_BASE 0x28000000ull
#define VCPUS 4

struct machine {
    struct guest_memory mem;
    struct engine *engine;
    uint8_t *ram;
    enum engine_exit exits[VCPUS];
};

struct runner {
    struct machine *m;
    unsigned vcpu;
};

void machine_init(struct machine *m);
// With what `more` says beyond memory, vcpus and host.
void machine_init_with(struct machine *m, const struct engine_config *more);
void machine_fini(struct machine *m);
void *run_vcpu(void *arg); // a struct runner: until the machine ends
enum engine_exit run_all(struct machine *m);
void put_program(struct machine *m, const uint32_t *words, size_t len_bytes);
// A flat binary, until it ends, which must be well.
void run_guest(struct machine *m, const char *path);
