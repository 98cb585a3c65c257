// What a network would do with a frame: see trace.h.
#include "router/trace.h"

#include <stdarg.h>
#include <stdio.h>

#define STEP_MAX 256

static void add(struct trace *t, const char *format, va_list args)
{
    char text[STEP_MAX];
    vsnprintf(text, sizeof(text), format, args);
    json_array_append_new(t->steps, json_string(text));
}

void trace_step(struct trace *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add(t, format, args);
    va_end(args);
}

void trace_drop(struct trace *t, enum drop cause, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add(t, format, args);
    va_end(args);
    t->outcome = "dropped";
    t->cause = cause;
}

void trace_end(struct trace *t, const char *outcome, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add(t, format, args);
    va_end(args);
    t->outcome = outcome;
}

json_t *trace_run(struct vn *vn, struct vn_port *in, const uint8_t *frame, size_t len_bytes)
{
    struct trace t = {.steps = json_array(), .ports = json_array(), .outcome = "taken"};
    trace_step(&t, "a frame of %zu bytes comes by port '%s' of network '%s', which is of the type %s", len_bytes, in->name,
               vn->name, vn->type->name);
    vn->type->trace(vn, in, frame, len_bytes, &t);
    json_t *json = json_pack("{s:s, s:o, s:o}", "outcome", t.outcome, "ports", t.ports, "steps", t.steps);
    if (t.cause != DROP_NONE)
        json_object_set_new(json, "cause", json_string(drop_names[t.cause]));
    return json;
}
