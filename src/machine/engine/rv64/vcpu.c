// The software engine as the machine sees it (engine_ops): creation, running, kicks, the guest's clock; and waiting vcpus.
//
// Threads: as engine.h says. A vcpu's thread is the only one that touches its registers and caches; others reach it by atomics, by
// its lock and by rv64_attention().
#include "base/clock.h"
#include "machine/engine/rv64/mmu.h"
#include "machine/engine/rv64/translator.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WAIT_MAX_NS (3600 * NS_PER_S)

static struct rv64_engine *engine_of(struct engine *e)
{
    return (struct rv64_engine *)e; // its first member
}

static const struct rv64_engine *engine_of_const(const struct engine *e)
{
    return (const struct rv64_engine *)e;
}

// --- The guest's clock

static void clock_start(struct engine *engine)
{
    struct rv64_engine *e = engine_of(engine);
    if (atomic_load(&e->time_running))
        return;
    e->time_offset_ns = e->time_stopped_ns - clock_now_ns();
    atomic_store_explicit(&e->time_running, true, memory_order_release);
    for (unsigned i = 0; i < e->config.n_vcpus; i++)
        rv64_attention(e->vcpus[i], RV64_ATTN_INTERRUPT); // how long they sleep was reckoned with a clock that stood
}

static void clock_stop(struct engine *engine)
{
    struct rv64_engine *e = engine_of(engine);
    if (!atomic_load(&e->time_running))
        return;
    e->time_stopped_ns = rv64_time_ns(e);
    atomic_store_explicit(&e->time_running, false, memory_order_release);
}

// --- Waiting and attention

void rv64_attention(struct rv64_vcpu *v, uint32_t bits)
{
    atomic_fetch_or_explicit(&v->attention, bits, memory_order_release);
    pthread_mutex_lock(&v->lock);
    pthread_cond_signal(&v->wake);
    pthread_mutex_unlock(&v->lock);
}

void rv64_end(struct rv64_engine *e, enum engine_exit exit, const char *reason)
{
    int none = -1;
    static pthread_mutex_t failure_lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&failure_lock);
    if (atomic_compare_exchange_strong(&e->outcome, &none, (int)exit))
        snprintf(e->failure, sizeof(e->failure), "%s", reason ? reason : "");
    pthread_mutex_unlock(&failure_lock);
    for (unsigned i = 0; i < e->config.n_vcpus; i++)
        rv64_attention(e->vcpus[i], RV64_ATTN_STOP);
}

// When stimecmp comes, on CLOCK_MONOTONIC.
static struct timespec timer_deadline(const struct rv64_vcpu *v)
{
    uint64_t wait_ns = WAIT_MAX_NS;
    if (v->sie & 1ull << RV64_IRQ_TIMER && atomic_load(&v->engine->time_running)) {
        uint64_t now_ns = rv64_time_ns(v->engine);
        if (v->stimecmp <= now_ns / RV64_NS_PER_TICK)
            wait_ns = 0;
        else if (v->stimecmp - now_ns / RV64_NS_PER_TICK < WAIT_MAX_NS / RV64_NS_PER_TICK)
            wait_ns = v->stimecmp * RV64_NS_PER_TICK - now_ns;
    }
    uint64_t until_ns = clock_now_ns() + wait_ns;
    return (struct timespec){.tv_sec = (time_t)(until_ns / NS_PER_S), .tv_nsec = (long)(until_ns % NS_PER_S)};
}

bool rv64_wait(struct rv64_vcpu *v)
{
    bool woken;
    pthread_mutex_lock(&v->lock);
    while (!(woken = (rv64_pending(v) & v->sie) != 0) && !atomic_load_explicit(&v->attention, memory_order_acquire)) {
        struct timespec until = timer_deadline(v);
        pthread_cond_timedwait(&v->wake, &v->lock, &until);
    }
    pthread_mutex_unlock(&v->lock);
    return woken;
}

// --- Running

static void start_hart(struct rv64_vcpu *v)
{
    memset(v->x, 0, sizeof(v->x));
    v->pc = v->start_addr & ~1ull;
    v->x[10] = v->id;
    v->x[11] = v->start_opaque;
    v->priv = RV64_S;
    v->satp = 0;
    v->sstatus &= ~RV64_SSTATUS_SIE;
    v->reserved_addr = ~0ull;
    rv64_mmu_flush(v);
    rv64_mmu_context(v);
    atomic_store(&v->hart_state, RV64_HART_STARTED);
}

static void wait_suspended(struct rv64_vcpu *v)
{
    if (!rv64_wait(v))
        return;
    if (v->suspend_retentive)
        atomic_store(&v->hart_state, RV64_HART_STARTED);
    else
        start_hart(v);
}

static bool run_interpreted(struct rv64_vcpu *v)
{
    rv64_guest_enter(v);
    bool waits = rv64_interpret(v, v->interpret_blocks);
    rv64_guest_leave(v);
    v->interpret_blocks = 0;
    return waits;
}

static bool run_code(struct rv64_vcpu *v)
{
    rv64_code_make_room(v);
    if (v->interpret_blocks)
        return run_interpreted(v);
    rv64_timer_begin(v);
    rv64_timer_update(v);
    rv64_code_begin(v->engine->code); // before it is in the guest, since others wait for who is
    rv64_guest_enter(v);
    bool waits = rv64_run_translated(v);
    rv64_guest_leave(v);
    rv64_code_end(v->engine->code);
    return waits;
}

static void run_started(struct rv64_vcpu *v)
{
    bool waits = v->engine->code ? run_code(v) : run_interpreted(v);
    if (waits) {
        rv64_count(&v->counters.wfi, 1);
        rv64_wait(v);
    }
}

// One step by the hart's state; attention was served.
static void step(struct rv64_vcpu *v)
{
    switch (atomic_load(&v->hart_state)) {
    case RV64_HART_STARTED:
        run_started(v);
        break;
    case RV64_HART_START_PENDING:
    case RV64_HART_RESUME_PENDING:
        start_hart(v);
        break;
    case RV64_HART_SUSPENDED:
    case RV64_HART_SUSPEND_PENDING:
        wait_suspended(v);
        break;
    default: // stopped: only attention helps
        pthread_mutex_lock(&v->lock);
        while (!atomic_load_explicit(&v->attention, memory_order_acquire))
            pthread_cond_wait(&v->wake, &v->lock);
        pthread_mutex_unlock(&v->lock);
        break;
    }
}

static enum engine_exit run(struct engine *engine, unsigned vcpu)
{
    struct rv64_engine *e = engine_of(engine);
    struct rv64_vcpu *v = e->vcpus[vcpu];
    atomic_store(&v->running, true);
    enum engine_exit exit = ENGINE_EXIT_KICK;
    for (;;) {
        // FENCE is served on the way into the guest.
        uint32_t bits = atomic_exchange_explicit(&v->attention, 0, memory_order_acquire);
        int outcome = atomic_load(&e->outcome);
        if (outcome >= 0) {
            exit = (enum engine_exit)outcome;
            break;
        }
        if (bits & RV64_ATTN_KICK)
            break;
        if (atomic_load(&v->hart_state) == RV64_HART_STARTED)
            rv64_interrupt_take(v);
        step(v);
    }
    atomic_store(&v->running, false);
    return exit;
}

static void kick(struct engine *e, unsigned vcpu)
{
    rv64_attention(engine_of(e)->vcpus[vcpu], RV64_ATTN_KICK);
}

static int raise_msi(struct engine *engine, uint64_t addr, uint32_t data)
{
    struct rv64_engine *e = engine_of(engine);
    uint64_t offset = addr - e->config.imsic_base;
    if (offset >= e->config.n_vcpus * RV64_PAGE_BYTES || offset % RV64_PAGE_BYTES != 0)
        return -ENXIO;
    rv64_imsic_raise(e->vcpus[offset / RV64_PAGE_BYTES], data);
    return 0;
}

// --- Life

// Translated code runs with the stack pointer at the vcpu, so there is a stack below it, and a page that nobody may touch.
#define STACK_BYTES (256u * 1024)
#define VCPU_BYTES ((sizeof(struct rv64_vcpu) + RV64_PAGE_BYTES - 1) & RV64_PAGE_MASK)

static struct rv64_vcpu *vcpu_allocate(void)
{
    uint8_t *stack =
        mmap(NULL, STACK_BYTES + VCPU_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED)
        return NULL;
    mprotect(stack, RV64_PAGE_BYTES, PROT_NONE);
    return (struct rv64_vcpu *)(void *)(stack + STACK_BYTES);
}

static void vcpu_free(struct rv64_vcpu *v)
{
    munmap((uint8_t *)v - STACK_BYTES, STACK_BYTES + VCPU_BYTES);
}

static void vcpu_destroy(struct rv64_vcpu *v)
{
    if (!v)
        return;
    rv64_timer_fini(v);
    rv64_sbi_fini(v);
    rv64_blocks_destroy(v->blocks);
    rv64_mmu_destroy(v->mmu);
    rv64_audit_destroy(v->audit);
    pthread_cond_destroy(&v->fences.done);
    pthread_cond_destroy(&v->wake);
    pthread_mutex_destroy(&v->lock);
    vcpu_free(v);
}

static void vcpu_reset(struct rv64_vcpu *v)
{
    memset(v->x, 0, sizeof(v->x));
    memset(v->f, 0, sizeof(v->f));
    v->pc = 0;
    v->fflags = v->frm = 0;
    v->priv = RV64_S;
    v->reserved_addr = ~0ull;
    v->sstatus = RV64_SSTATUS_UXL_64 | RV64_SSTATUS_FS; // floating point is on, as firmware leaves it
    v->stvec = v->sscratch = v->sepc = v->scause = v->stval = v->satp = v->sie = v->senvcfg = v->siselect = 0;
    v->scounteren = 7; // cycle, time, instret: as firmware leaves it
    v->stimecmp = ~0ull;
    atomic_store(&v->sip, 0);
    atomic_fetch_and(&v->attention, (uint32_t)RV64_ATTN_KICK); // which is never lost
    rv64_imsic_reset(v);
    rv64_sbi_reset(v);
    rv64_mmu_flush(v);
    rv64_blocks_flush(v->blocks);
    rv64_mmu_context(v);
}

static void translator_init(struct rv64_vcpu *v)
{
    static const uint8_t flags[6] = {RV64_NV, 0, RV64_DZ, RV64_OF, RV64_UF, RV64_NX}; // by bit of MXCSR
    for (unsigned mxcsr = 0; mxcsr < 64; mxcsr++)
        for (unsigned bit = 0; bit < 6; bit++)
            if (mxcsr >> bit & 1)
                v->fflags_of_mxcsr[mxcsr] |= flags[bit];
    for (unsigned n = 0; n <= RV64_COUNTS_MAX; n++)
        v->counts[n][0] = n;
    v->box[0] = 0xffffffff00000000ull;
    atomic_store(&v->timer_until_ns, UINT64_MAX);
    v->mxcsr_clear = 0x1f80; // round to nearest, all exceptions masked
}

// A small machine is to cost little beyond its guest's memory; a large one runs larger programs (gcc's code alone takes 25 MB), and
// is to stay below 40 MB. What the vcpus' tables take is no room for code.
#define LARGE_FROM (256u << 20) // bytes of memory above which a machine is large
static const struct {
    size_t code_min, code_max, vcpu_tables, arena; // bytes; arena: of decoded blocks, beside translated code
    unsigned jumps;
} sizes[2] = {
    {.code_min = 1280u << 10, .code_max = 24u << 20, .vcpu_tables = 384u << 10, .arena = 64u << 10, .jumps = RV64_JUMPS_MIN},
    {.code_min = 8u << 20, .code_max = 24u << 20, .vcpu_tables = 1u << 20, .arena = 256u << 10, .jumps = 4 * RV64_JUMPS_MIN},
};
#define MEMORY_PER_CODE 96 // up to LARGE_FROM; beyond it
#define MORE_MEMORY_PER_CODE 32

static uint64_t ram_bytes(const struct engine_config *config)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < config->mem->n_regions; i++)
        bytes += config->mem->regions[i].size_bytes;
    return bytes;
}

static bool is_large(const struct engine_config *config)
{
    return ram_bytes(config) > LARGE_FROM;
}

static size_t code_bytes(const struct engine_config *config)
{
    if (config->code_bytes)
        return config->code_bytes;
    bool large = is_large(config);
    uint64_t ram = ram_bytes(config), bytes = ram / MEMORY_PER_CODE, tables = config->n_vcpus * sizes[large].vcpu_tables;
    bytes += large ? (ram - LARGE_FROM) / MORE_MEMORY_PER_CODE : 0;
    bytes = bytes < sizes[large].code_max ? bytes : sizes[large].code_max;
    bytes = bytes > tables ? bytes - tables : 0;
    return bytes > sizes[large].code_min ? bytes : sizes[large].code_min;
}

static struct rv64_vcpu *vcpu_create(struct rv64_engine *e, unsigned id)
{
    struct rv64_vcpu *v = vcpu_allocate();
    if (!v)
        return NULL;
    translator_init(v);
    v->engine = e;
    v->id = id;
    pthread_mutex_init(&v->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&v->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&v->fences.done, NULL);
    v->mmu = rv64_mmu_create(e->n_jumps);
    v->blocks = rv64_blocks_create(e->config.n_vcpus, e->code ? sizes[is_large(&e->config)].arena : 0);
    if (!v->mmu || !v->blocks || rv64_sbi_init(v) != 0) {
        vcpu_destroy(v);
        return NULL;
    }
    vcpu_reset(v);
    return v;
}

static void destroy(struct engine *engine)
{
    struct rv64_engine *e = engine_of(engine);
    if (!e)
        return;
    for (unsigned i = 0; i < e->config.n_vcpus; i++)
        vcpu_destroy(e->vcpus[i]);
    for (unsigned i = 0; i < GUEST_REGIONS_MAX; i++)
        free((void *)e->dirty[i]);
    rv64_code_destroy(e->code);
    free(e);
}

// The vcpus are there already.
static int start_audit(struct rv64_engine *e, struct tv_error *err)
{
    const struct engine_config *config = &e->config;
    int rc = 0;
    if (config->audit_instructions && config->n_vcpus != 1)
        rc = tv_error_set(err, -EINVAL, "an audit needs a machine that does nothing meanwhile: give it one vcpu, not %u",
                          config->n_vcpus);
    else if (config->audit_instructions)
        rc = rv64_audit_create(&e->vcpus[0]->audit, e->code, config->audit_instructions, err);
    return rc ? tv_error_prefix(err, "rv64") : 0;
}

static struct engine *create(const struct engine_config *config, struct tv_error *err)
{
    if (config->n_vcpus == 0 || config->n_vcpus > ENGINE_VCPUS_MAX) {
        tv_error_set(err, -EINVAL, "rv64: %u vcpus: 1 to %d are possible", config->n_vcpus, ENGINE_VCPUS_MAX);
        return NULL;
    }
    struct rv64_engine *e = calloc(1, sizeof(*e));
    if (!e) {
        tv_error_set(err, -ENOMEM, "rv64: no memory for the engine");
        return NULL;
    }
    e->engine.ops = &engine_rv64;
    e->config = *config;
    e->n_jumps = sizes[is_large(config)].jumps;
    e->outcome = -1;
    if (!config->interpret &&
        (rv64_code_create(&e->code, code_bytes(config), e->n_jumps, config->perf, err) != 0 || rv64_timers_init(err) != 0)) {
        rv64_code_destroy(e->code);
        free(e);
        return NULL;
    }
    for (unsigned i = 0; i < config->n_vcpus; i++) {
        e->vcpus[i] = vcpu_create(e, i);
        if (!e->vcpus[i]) {
            tv_error_set(err, -ENOMEM, "rv64: no memory for vcpu %u", i);
            destroy(&e->engine);
            return NULL;
        }
    }
    if (start_audit(e, err) != 0) {
        destroy(&e->engine);
        return NULL;
    }
    return &e->engine;
}

static void reset(struct engine *engine, const struct engine_start *start)
{
    struct rv64_engine *e = engine_of(engine);
    atomic_store(&e->outcome, -1);
    e->failure[0] = 0;
    for (unsigned i = 0; i < e->config.n_vcpus; i++)
        vcpu_reset(e->vcpus[i]);
    struct rv64_vcpu *boot = e->vcpus[0];
    boot->start_addr = start->entry;
    boot->start_opaque = start->arg;
    atomic_store(&boot->hart_state, RV64_HART_START_PENDING);
}

// --- What can be asked

_Static_assert(sizeof(struct engine_counters) % sizeof(uint64_t) == 0, "counters are 64-bit words");

static void counters(const struct engine *e, unsigned vcpu, struct engine_counters *out)
{
    const struct rv64_vcpu *v = engine_of_const(e)->vcpus[vcpu];
    const uint64_t *from = (const uint64_t *)&v->counters;
    uint64_t *to = (uint64_t *)out;
    for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    out->instructions = __atomic_load_n(&v->instret, __ATOMIC_RELAXED);
}

static void code(const struct engine *e, struct engine_code *out)
{
    *out = (struct engine_code){0};
    if (engine_of_const(e)->code)
        rv64_code_measure(engine_of_const(e)->code, out);
}

static const char *const trap_names[ENGINE_TRAP_CAUSES] = {
    [RV64_CAUSE_FETCH_ACCESS] = "fetch_access", [RV64_CAUSE_ILLEGAL] = "illegal_instruction",
    [RV64_CAUSE_BREAKPOINT] = "breakpoint",     [RV64_CAUSE_LOAD_MISALIGNED] = "load_misaligned",
    [RV64_CAUSE_LOAD_ACCESS] = "load_access",   [RV64_CAUSE_STORE_MISALIGNED] = "store_misaligned",
    [RV64_CAUSE_STORE_ACCESS] = "store_access", [RV64_CAUSE_ECALL_U] = "system_call",
    [RV64_CAUSE_FETCH_PAGE] = "fetch_page",     [RV64_CAUSE_LOAD_PAGE] = "load_page",
    [RV64_CAUSE_STORE_PAGE] = "store_page",
};

static const char *failure(const struct engine *e)
{
    return engine_of_const(e)->failure;
}

static const char *report(struct engine *engine)
{
    const struct rv64_vcpu *v = engine_of(engine)->vcpus[0];
    return v->audit ? rv64_audit_report(v->audit, v->instret) : NULL;
}

static int get_registers(const struct engine *e, unsigned vcpu, uint64_t x[static 32], uint64_t *pc)
{
    const struct rv64_vcpu *v = engine_of_const(e)->vcpus[vcpu];
    if (atomic_load(&v->running))
        return -EBUSY;
    memcpy(x, v->x, 32 * sizeof(x[0]));
    *pc = v->pc;
    return 0;
}

static int dirty_log(struct engine *engine, unsigned region, uint64_t *bitmap, size_t n_words)
{
    struct rv64_engine *e = engine_of(engine);
    if (region >= e->config.mem->n_regions)
        return -EINVAL;
    size_t words = (size_t)(e->config.mem->regions[region].size_bytes / RV64_PAGE_BYTES + 63) / 64;
    if (n_words < words)
        return -EINVAL;
    if (!e->dirty[region])
        e->dirty[region] = calloc(words, sizeof(uint64_t));
    if (!e->dirty[region])
        return -ENOMEM;
    for (size_t i = 0; i < words; i++)
        bitmap[i] = atomic_exchange_explicit(&e->dirty[region][i], 0, memory_order_relaxed);
    for (unsigned i = 0; i < e->config.n_vcpus; i++)
        rv64_mmu_flush_writes(e->vcpus[i]); // so that the next write to each page is seen
    return 0;
}

static int state(struct engine *engine, struct state *s)
{
    struct rv64_engine *e = engine_of(engine);
    uint64_t now_ns = rv64_time_ns(e);
    uint32_t n_vcpus = e->config.n_vcpus;
    state_section_begin(s, "rv64", 1);
    state_u32(s, "n_vcpus", &n_vcpus);
    if (n_vcpus != e->config.n_vcpus)
        state_fail(s, "rv64: the state is of %u vcpus, the machine has %u", n_vcpus, e->config.n_vcpus);
    state_u64(s, "time_ns", &now_ns);
    if (state_is_loading(s) && !state_failed(s)) {
        e->time_stopped_ns = now_ns;
        e->time_offset_ns = now_ns - clock_now_ns();
    }
    for (unsigned i = 0; i < e->config.n_vcpus; i++)
        rv64_vcpu_state(e->vcpus[i], s);
    state_section_end(s);
    return state_failed(s) ? -EINVAL : 0;
}

const struct engine_ops engine_rv64 = {
    .name = "rv64",
    .create = create,
    .destroy = destroy,
    .reset = reset,
    .run = run,
    .kick = kick,
    .raise_msi = raise_msi,
    .clock_start = clock_start,
    .clock_stop = clock_stop,
    .state = state,
    .describe = rv64_describe,
    .counters = counters,
    .code = code,
    .trap_names = trap_names,
    .failure = failure,
    .report = report,
    .get_registers = get_registers,
    .dirty_log = dirty_log,
};
