// What a network would do with a frame, told step by step, without doing it: for `trivet net trace`. Control thread.
//
// A type tells it from the same tables that its worker reads, and by the same functions where they are pure. A test compares what
// is told with what then happens.
#pragma once

#include "router/counters.h"
#include "router/vn.h"

#include <jansson.h>

struct trace {
    json_t *steps;       // texts
    json_t *ports;       // where it leaves by
    const char *outcome; // "sent", "flooded", "answered", "taken", "waits" or "dropped"
    enum drop cause;     // of "dropped"
};

void trace_step(struct trace *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void trace_drop(struct trace *t, enum drop cause, const char *format, ...) __attribute__((format(printf, 3, 4)));
void trace_end(struct trace *t, const char *outcome, const char *format, ...) __attribute__((format(printf, 3, 4)));

// {"outcome", "cause", "ports", "steps"}; the caller's. frame: as it comes in by the port.
json_t *trace_run(struct vn *vn, struct vn_port *in, const uint8_t *frame, size_t len_bytes);
