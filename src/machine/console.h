// The machine's console: what the guest writes goes to every viewer and to the log, what viewers type goes to the guest.
//
// Output lands in a ring; each viewer and the log have a position in it. A viewer that falls behind by more than the ring loses the
// oldest part and is told so on its screen; it never holds the guest up. The log loses nothing: if it falls far behind, who writes
// to the console writes the log. A new viewer begins with the last CONSOLE_HISTORY_BYTES.
// Input waits in a queue until the guest takes it; while the queue is full, viewers are not read.
//
// console_write() and console_room() from any thread; all else on the loop's thread. The lock is console.lock.
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/state.h"

#include <stddef.h>
#include <stdint.h>

#define CONSOLE_HISTORY_BYTES (64u << 10)

struct console;

struct console_config {
    struct loop *loop; // borrowed
    int listen_fd;     // taken: a listening socket, for several viewers; or -1
    int fd;            // taken: the one viewer; or -1
    int log_fd;        // taken: appended to; or -1
    // Gives bytes to the guest; returns how many it took. When less than all, console_room() will be called.
    size_t (*input)(void *arg, const uint8_t *buf, size_t len_bytes);
    void *arg;
};

struct console *console_create(const struct console_config *config, struct tv_error *err);
// Writes out what is pending: the log in full, viewers for at most CONSOLE_DRAIN_MS.
#define CONSOLE_DRAIN_MS 2000
void console_destroy(struct console *c);

void console_write(struct console *c, const uint8_t *buf, size_t len_bytes);
// The guest has room for input again.
void console_room(struct console *c);
// Input that another than the serial port asks for (SBI DBCN); from any thread. Returns how many bytes there were.
size_t console_read(struct console *c, uint8_t *buf, size_t len_bytes);
// After a reset of the machine: forgets what was typed; the serial port gets the input again.
void console_reset_input(struct console *c);
// What was typed and not taken, and which way the guest takes it; no vcpu is running.
void console_state(struct console *c, struct state *s);
