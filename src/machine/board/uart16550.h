// A 16550A serial port (National Semiconductor PC16550D data sheet): 16-byte FIFOs, all its interrupts, loopback.
//
// Registers are bytes, one after the other. The line is infinitely fast: what is written is sent at once, and four character times
// have passed whenever the receiver holds less than its trigger level, so that the time-out interrupt needs no timer.
// All functions from any thread; the lock is uart16550.lock.
#pragma once

#include "base/error.h"
#include "base/state.h"
#include "machine/board/bus.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UART_CLOCK_HZ 3686400u
#define UART_FIFO_BYTES 16u

struct uart16550;

struct uart16550_config {
    void *arg;
    void (*irq)(void *arg, bool level); // called with the port's lock held
    void *sink;                         // for the two below, called with no lock held
    void (*output)(void *sink, const uint8_t *buf, size_t len_bytes);
    void (*room)(void *sink); // uart16550_input() may be tried again; may be NULL
};

struct uart16550 *uart16550_create(const struct uart16550_config *config, struct tv_error *err);
void uart16550_destroy(struct uart16550 *uart);
void uart16550_reset(struct uart16550 *uart);
int uart16550_state(struct uart16550 *uart, struct state *s);

// Gives bytes to the guest; returns how many there was room for. When it took less than all, `room` will be called once.
size_t uart16550_input(struct uart16550 *uart, const uint8_t *buf, size_t len_bytes);
// A break condition on the line, behind what is already in the receiver (Linux takes it as the magic SysRq key). -EAGAIN: no room.
int uart16550_break(struct uart16550 *uart);

extern const struct bus_ops uart16550_bus_ops;
