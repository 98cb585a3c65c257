// Makes images: random blocks of instructions by the engine's instruction table, behind the runtime. See image.h.
#pragma once

#include "image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct generate_options {
    uint64_t seed;
    unsigned n_blocks, n_runs;
    unsigned verbose_first, verbose_last;
    bool on_oracle;
};

// The part of an image from IMAGE_PROGRAM on; the caller frees it. NULL when there is no memory.
uint8_t *generate_program(const struct generate_options *options, size_t *len_bytes);

// Rows of the instruction table, the full ones first. What the oracle lacks is never generated.
unsigned generate_rows(void);
const char *generate_row_name(unsigned row);
bool generate_row_excluded(unsigned row);
unsigned long generate_row_count(unsigned row); // instructions generated since the start of the process

void generate_disassemble(const uint8_t *program, unsigned block, FILE *out);
