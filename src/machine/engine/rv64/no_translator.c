// Where there is no translator: hosts other than x86-64, and sanitizers, which want to see each access.
#include "machine/engine/rv64/translator.h"

#include <errno.h>

int rv64_code_create(struct rv64_code **out, size_t bytes, unsigned n_jumps, struct perf *perf, struct tv_error *err)
{
    (void)bytes, (void)n_jumps, (void)perf, (void)err;
    *out = NULL;
    return 0;
}

void rv64_code_destroy(struct rv64_code *c)
{
    (void)c;
}

void rv64_code_measure(struct rv64_code *c, struct engine_code *out)
{
    (void)c, (void)out;
}

void rv64_code_fence(struct rv64_vcpu *v)
{
    (void)v;
}

void rv64_code_make_room(struct rv64_vcpu *v)
{
    (void)v;
}

void rv64_code_begin(struct rv64_code *c)
{
    (void)c;
}

void rv64_code_end(struct rv64_code *c)
{
    (void)c;
}

int rv64_audit_create(struct rv64_audit **out, struct rv64_code *c, uint64_t instructions, struct tv_error *err)
{
    (void)out, (void)c, (void)instructions;
    return tv_error_set(err, -EINVAL, "an audit compares the translator with the interpreter, and this build has no translator");
}

void rv64_audit_destroy(struct rv64_audit *a)
{
    (void)a;
}

const char *rv64_audit_report(struct rv64_audit *a, uint64_t instructions)
{
    (void)a, (void)instructions;
    return NULL;
}

bool rv64_run_translated(struct rv64_vcpu *v)
{
    return rv64_interpret(v, 0);
}
