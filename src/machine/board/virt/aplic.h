// The APLIC of this board: one supervisor-level interrupt domain that forwards its wires as MSIs ("RISC-V Advanced Interrupt
// Architecture" 1.0, chapter 4). It has no children, no direct delivery and is little-endian.
//
// Any thread; the lock is aplic.lock. raise_msi is called with it held, so that no MSI goes out after its source was disabled.
#pragma once

#include "base/error.h"
#include "base/state.h"
#include "machine/board/bus.h"

#include <stdbool.h>
#include <stdint.h>

struct aplic;

struct aplic_config {
    unsigned n_sources; // 1..127
    unsigned n_harts;   // hart index i takes its MSIs at imsic_base + i * imsic_stride
    uint64_t imsic_base, imsic_stride;
    void *arg;
    int (*raise_msi)(void *arg, uint64_t addr, uint32_t data);
};

struct aplic *aplic_create(const struct aplic_config *config, struct tv_error *err);
void aplic_destroy(struct aplic *aplic);
void aplic_reset(struct aplic *aplic); // registers, not the level of the wires
int aplic_state(struct aplic *aplic, struct state *s);

void aplic_set_line(struct aplic *aplic, unsigned source, bool level);

extern const struct bus_ops aplic_bus_ops;
