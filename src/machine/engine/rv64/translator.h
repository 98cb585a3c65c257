// The translator as the rest of the engine sees it. Hosts that have none use the interpreter alone.
#pragma once

#include "machine/engine/rv64/rv64.h"

struct rv64_code;

// *out: NULL where there is no translator, so that the interpreter runs everything. n_jumps: of each context's jump table (mmu.h).
// perf: borrowed, or NULL.
int rv64_code_create(struct rv64_code **out, size_t bytes, unsigned n_jumps, struct perf *perf, struct tv_error *err);
void rv64_code_destroy(struct rv64_code *c);
void rv64_code_measure(struct rv64_code *c, struct engine_code *out); // any thread
// fence.i on this hart.
void rv64_code_fence(struct rv64_vcpu *v);
// Throws all code away if there was no room for more. Not between begin and end: waits for the other vcpus to be there.
void rv64_code_make_room(struct rv64_vcpu *v);
void rv64_code_begin(struct rv64_code *c);
void rv64_code_end(struct rv64_code *c);
// Like rv64_interpret(), by translated code.
bool rv64_run_translated(struct rv64_vcpu *v);

// --- An audit: each piece of translated code is compared with the interpreter.

// Makes the code one that can be audited; before any of it runs. `instructions`: how many are compared until the machine ends.
int rv64_audit_create(struct rv64_audit **out, struct rv64_code *c, uint64_t instructions, struct tv_error *err);
void rv64_audit_destroy(struct rv64_audit *a);
// How it went, lines; borrowed. `instructions`: how many there were.
const char *rv64_audit_report(struct rv64_audit *a, uint64_t instructions);
