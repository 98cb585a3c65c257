// The board: see board.h.
#include "machine/board/board.h"

#include "machine/board/aplic.h"
#include "machine/board/board_parts.h"
#include "machine/board/rtc_goldfish.h"

#include <errno.h>
#include <stdlib.h>

struct board {
    struct board_config config;
    struct bus *bus;
    struct aplic *aplic;
    struct uart16550 *uart;
    struct rtc *rtc;
    struct pcie *pcie;
};

static void uart_irq(void *arg, bool level)
{
    board_set_irq(arg, MAP_IRQ_UART, level);
}

static void rtc_irq(void *arg, bool level)
{
    board_set_irq(arg, MAP_IRQ_RTC, level);
}

static int create_devices(struct board *b, struct tv_error *err)
{
    const struct board_config *c = &b->config;
    const struct aplic_config aplic = {.n_sources = MAP_APLIC_SOURCES,
                                       .n_harts = c->n_vcpus,
                                       .imsic_base = MAP_IMSIC_BASE,
                                       .imsic_stride = MAP_IMSIC_STRIDE,
                                       .arg = c->arg,
                                       .raise_msi = c->raise_msi};
    const struct uart16550_config uart = {
        .arg = b, .irq = uart_irq, .sink = c->arg, .output = c->console_output, .room = c->console_room};
    const struct rtc_config rtc = {.loop = c->loop, .arg = b, .irq = rtc_irq};
    const struct pcie_config pcie = {.bus = b->bus, .arg = c->arg, .raise_msi = c->raise_msi};
    if (!(b->aplic = aplic_create(&aplic, err)) || !(b->uart = uart16550_create(&uart, err)) || !(b->rtc = rtc_create(&rtc, err)) ||
        !(b->pcie = pcie_create(&pcie, err)))
        return -ENOMEM;
    return 0;
}

static int map_devices(struct board *b, struct tv_error *err)
{
    int rc = bus_add(b->bus, MAP_APLIC_BASE, MAP_APLIC_SIZE, &aplic_bus_ops, b->aplic, err);
    if (rc == 0)
        rc = bus_add(b->bus, MAP_UART_BASE, MAP_UART_SIZE, &uart16550_bus_ops, b->uart, err);
    if (rc == 0)
        rc = bus_add(b->bus, MAP_RTC_BASE, MAP_RTC_SIZE, &rtc_bus_ops, b->rtc, err);
    if (rc == 0)
        rc = bus_add(b->bus, MAP_ECAM_BASE, MAP_ECAM_SIZE, &pcie_ecam_bus_ops, b->pcie, err);
    return rc;
}

struct board *board_create(const struct board_config *config, struct tv_error *err)
{
    struct board *b = calloc(1, sizeof(*b));
    if (!b || !(b->bus = bus_create())) {
        free(b);
        tv_error_set(err, -ENOMEM, "no memory for the board");
        return NULL;
    }
    b->config = *config;
    if (create_devices(b, err) != 0 || map_devices(b, err) != 0) {
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
    rtc_destroy(b->rtc);
    uart16550_destroy(b->uart);
    aplic_destroy(b->aplic);
    bus_destroy(b->bus);
    free(b);
}

void board_reset(struct board *b)
{
    pcie_reset(b->pcie);
    rtc_reset(b->rtc);
    uart16550_reset(b->uart);
    aplic_reset(b->aplic);
}

void board_freeze(struct board *b)
{
    rtc_freeze(b->rtc);
    pcie_freeze(b->pcie);
}

int board_thaw(struct board *b, struct tv_error *err)
{
    rtc_thaw(b->rtc);
    return pcie_thaw(b->pcie, err);
}

int board_state(struct board *b, struct state *s)
{
    state_section_begin(s, "board", 1);
    aplic_state(b->aplic, s); // first: the others drive its lines when they are loaded
    uart16550_state(b->uart, s);
    rtc_state(b->rtc, s);
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

void board_set_irq(struct board *b, unsigned source, bool level)
{
    aplic_set_line(b->aplic, source, level);
}

const struct board_config *board_config(const struct board *b)
{
    return &b->config;
}
