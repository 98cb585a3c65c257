// What all boards have: see board.h.
#include "machine/board/board_parts.h"

#include <errno.h>
#include <stdlib.h>

struct board *board_create(const struct board_config *config, struct tv_error *err)
{
    struct board *b = calloc(1, sizeof(*b));
    if (!b || !(b->bus = bus_create())) {
        free(b);
        tv_error_set(err, -ENOMEM, "no memory for the board");
        return NULL;
    }
    b->config = *config;
    b->kind = config->arch == ENGINE_X86_64 ? &board_pc : &board_virt;
    if (b->kind->create(b, err) != 0) {
        board_destroy(b);
        return NULL;
    }
    return b;
}

void board_destroy(struct board *b)
{
    if (!b)
        return;
    pcie_destroy(b->pcie);
    uart16550_destroy(b->uart);
    b->kind->destroy(b);
    bus_destroy(b->bus);
    free(b);
}

void board_reset(struct board *b)
{
    pcie_reset(b->pcie);
    uart16550_reset(b->uart);
    b->kind->reset(b);
}

void board_freeze(struct board *b)
{
    b->kind->freeze(b);
    pcie_freeze(b->pcie);
}

int board_thaw(struct board *b, struct tv_error *err)
{
    b->kind->thaw(b);
    return pcie_thaw(b->pcie, err);
}

int board_state(struct board *b, struct state *s)
{
    state_section_begin(s, "board", 1);
    b->kind->state(b, s);
    pcie_state(b->pcie, s);
    state_section_end(s);
    return state_failed(s) ? -EINVAL : 0;
}

struct bus *board_bus(struct board *b)
{
    return b->bus;
}

struct pcie *board_pcie(struct board *b)
{
    return b->pcie;
}

struct uart16550 *board_uart(struct board *b)
{
    return b->uart;
}

int board_exit_status(const struct board *b)
{
    return __atomic_load_n(&b->exit_status, __ATOMIC_RELAXED);
}

void board_set_irq(struct board *b, unsigned line, bool level)
{
    b->kind->set_irq(b, line, level);
}
