// Where there is no translator: hosts other than x86-64, and sanitizers, which want to see each access.
#include "machine/engine/rv64/translator.h"

int rv64_code_create(struct rv64_code **out, size_t bytes, struct perf *perf, struct tv_error *err)
{
    (void)bytes, (void)perf, (void)err;
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

bool rv64_run_translated(struct rv64_vcpu *v)
{
    return rv64_interpret(v, 0);
}
