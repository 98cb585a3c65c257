// The board of a riscv64 machine: where QEMU's `virt` has its devices. See board.h and map.h.
#include "machine/board/board_parts.h"
#include "machine/board/virt/aplic.h"
#include "machine/board/virt/map.h"
#include "machine/board/virt/rtc_goldfish.h"

#include <errno.h>
#include <stdlib.h>

struct virt {
    struct aplic *aplic;
    struct rtc *rtc;
};

static void uart_irq(void *arg, bool level)
{
    board_set_irq(arg, MAP_IRQ_UART, level);
}

static void rtc_irq(void *arg, bool level)
{
    board_set_irq(arg, MAP_IRQ_RTC, level);
}

static int create_devices(struct board *b, struct virt *v, struct tv_error *err)
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
    const struct pcie_config pcie = {.bus = b->bus,
                                     .windows = {{MAP_PCI32_BASE, MAP_PCI32_SIZE}, {MAP_PCI64_BASE, MAP_PCI64_SIZE}},
                                     .arg = c->arg,
                                     .raise_msi = c->raise_msi,
                                     .bind_doorbell = c->bind_doorbell,
                                     .bind_msi = c->bind_msi};
    if (!(v->aplic = aplic_create(&aplic, err)) || !(b->uart = uart16550_create(&uart, err)) || !(v->rtc = rtc_create(&rtc, err)) ||
        !(b->pcie = pcie_create(&pcie, err)))
        return -ENOMEM;
    return 0;
}

static int virt_create(struct board *b, struct tv_error *err)
{
    struct virt *v = b->parts = calloc(1, sizeof(*v));
    if (!v)
        return tv_error_set(err, -ENOMEM, "no memory for the board");
    int rc = create_devices(b, v, err);
    if (rc == 0)
        rc = bus_add(b->bus, MAP_APLIC_BASE, MAP_APLIC_SIZE, &aplic_bus_ops, v->aplic, err);
    if (rc == 0)
        rc = bus_add(b->bus, MAP_UART_BASE, MAP_UART_SIZE, &uart16550_bus_ops, b->uart, err);
    if (rc == 0)
        rc = bus_add(b->bus, MAP_RTC_BASE, MAP_RTC_SIZE, &rtc_bus_ops, v->rtc, err);
    if (rc == 0)
        rc = bus_add(b->bus, MAP_ECAM_BASE, MAP_ECAM_SIZE, &pcie_ecam_bus_ops, b->pcie, err);
    return rc;
}

static void virt_destroy(struct board *b)
{
    struct virt *v = b->parts;
    if (!v)
        return;
    rtc_destroy(v->rtc);
    aplic_destroy(v->aplic);
    free(v);
}

static void virt_reset(struct board *b)
{
    struct virt *v = b->parts;
    rtc_reset(v->rtc);
    aplic_reset(v->aplic);
}

static void virt_freeze(struct board *b)
{
    rtc_freeze(((struct virt *)b->parts)->rtc);
}

static void virt_thaw(struct board *b)
{
    rtc_thaw(((struct virt *)b->parts)->rtc);
}

static void virt_state(struct board *b, struct state *s)
{
    struct virt *v = b->parts;
    aplic_state(v->aplic, s); // first: the others drive its lines when they are loaded
    uart16550_state(b->uart, s);
    rtc_state(v->rtc, s);
}

static void virt_set_irq(struct board *b, unsigned line, bool level)
{
    aplic_set_line(((struct virt *)b->parts)->aplic, line, level);
}

const struct board_kind board_virt = {.create = virt_create,
                                      .destroy = virt_destroy,
                                      .reset = virt_reset,
                                      .freeze = virt_freeze,
                                      .thaw = virt_thaw,
                                      .state = virt_state,
                                      .set_irq = virt_set_irq};
