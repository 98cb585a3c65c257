// What the boards and the files that they are made of share; private to this folder.
#pragma once

#include "machine/board/board.h"

// What a board has of its own. `create` makes its parts, sets uart and pcie, and puts all on the bus that is there already; after a
// failure `destroy` is called as well.
struct board_kind {
    int (*create)(struct board *b, struct tv_error *err);
    void (*destroy)(struct board *b);
    void (*reset)(struct board *b);
    void (*freeze)(struct board *b);
    void (*thaw)(struct board *b);
    void (*state)(struct board *b, struct state *s); // the serial port as well
    void (*set_irq)(struct board *b, unsigned line, bool level);
};

extern const struct board_kind board_virt, board_pc;
uint64_t pc_pci64_base(const struct guest_memory *mem); // where 64-bit BARs go on an x86-64 board

struct board {
    struct board_config config;
    const struct board_kind *kind;
    struct bus *bus;
    struct uart16550 *uart;
    struct pcie *pcie;
    int exit_status; // what the guest ended the machine with, if it did
    void *parts;     // the kind's
};
