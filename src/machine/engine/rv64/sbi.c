// The supervisor binary interface, version 2.0, served by the machine itself: what an ecall from S mode asks of the firmware.
//
// Runs on the calling vcpu's thread. Other harts are reached only by their atomics, by rv64_attention(), by rv64_fence_remote(),
// and their start under their lock. Each call is decoded and checked whole before anything happens; memory of the guest is reached
// by checked views.
#include "machine/engine/rv64/sbi.h"

#include <errno.h>
#include <inttypes.h>

#define SIP_SSIP (1u << 1)
#define ASID_MAX 0xffff     // ASIDLEN is 16
#define CONSOLE_MAX 0x10000 // bytes a call; more is written partially, as the specification allows

enum { // SBI 2.0: extension ids
    EXT_LEGACY_SET_TIMER = 0x00,
    EXT_LEGACY_PUTCHAR = 0x01,
    EXT_LEGACY_GETCHAR = 0x02,
    EXT_LEGACY_CLEAR_IPI = 0x03,
    EXT_LEGACY_SEND_IPI = 0x04,
    EXT_LEGACY_FENCE_I = 0x05,
    EXT_LEGACY_SFENCE_VMA = 0x06,
    EXT_LEGACY_SFENCE_VMA_ASID = 0x07,
    EXT_LEGACY_SHUTDOWN = 0x08,
    EXT_BASE = 0x10,
    EXT_TIME = 0x54494d45,
    EXT_IPI = 0x735049,
    EXT_RFENCE = 0x52464e43,
    EXT_HSM = 0x48534d,
    EXT_SRST = 0x53525354,
    EXT_PMU = 0x504d55,
    EXT_DBCN = 0x4442434e,
    EXT_SUSP = 0x53555350,
};

#define SPEC_VERSION (2u << 24) // major in bits 30..24, minor below
#define IMPL_ID 0x74726976      // "triv": not among the registered ones (SBI 2.0, section 4.8)
#define IMPL_VERSION 0x00000100

static struct sbi_result success(uint64_t value)
{
    return (struct sbi_result){.value = value};
}

static struct sbi_result failure(enum sbi_error error)
{
    return (struct sbi_result){.error = error};
}

// --- what arguments name

static struct rv64_vcpu *hart(const struct rv64_vcpu *v, uint64_t hartid)
{
    return hartid < v->engine->config.n_vcpus ? v->engine->vcpus[hartid] : NULL;
}

static uint64_t all_harts(const struct rv64_vcpu *v)
{
    return ~(uint64_t)0 >> (64 - v->engine->config.n_vcpus);
}

// A hart mask and its base as a set of hart ids (section 3.1); false when one of them does not exist.
static bool decode_harts(const struct rv64_vcpu *v, uint64_t mask, uint64_t base, uint64_t *harts)
{
    if (base == ~(uint64_t)0) {
        *harts = all_harts(v);
        return true;
    }
    *harts = base < 64 ? mask << base : 0;
    return mask == 0 || (base < 64 && *harts >> base == mask && !(*harts & ~all_harts(v)));
}

// Whether a hart can begin to run there: in RAM, and instructions stand at even addresses.
static bool can_execute(const struct rv64_vcpu *v, uint64_t addr)
{
    return addr % 2 == 0 && guest_memory_view(v->engine->config.mem, addr, 2);
}

// --- timer, interprocessor interrupts, fences

static struct sbi_result set_timer(struct rv64_vcpu *v, uint64_t deadline)
{
    v->stimecmp = deadline;
    rv64_timer_update(v);
    rv64_pmu_event(v, SBI_FW_SET_TIMER);
    rv64_attention(v, RV64_ATTN_INTERRUPT);
    return success(0);
}

static struct sbi_result send_ipi(struct rv64_vcpu *v, uint64_t harts)
{
    if (harts)
        rv64_pmu_event(v, SBI_FW_IPI_SENT);
    for (; harts; harts &= harts - 1) {
        struct rv64_vcpu *target = v->engine->vcpus[__builtin_ctzll(harts)];
        atomic_fetch_or(&target->sip, SIP_SSIP);
        rv64_pmu_event(target, SBI_FW_IPI_RECEIVED);
        rv64_attention(target, RV64_ATTN_INTERRUPT);
    }
    return success(0);
}

static struct sbi_result send_fence(struct rv64_vcpu *v, uint64_t harts, const struct rv64_fence *fence)
{
    static const enum sbi_firmware_event sent[] = {
        [RV64_FENCE_I] = SBI_FW_FENCE_I_SENT,
        [RV64_FENCE_VMA] = SBI_FW_SFENCE_VMA_SENT,
        [RV64_FENCE_VMA_ASID] = SBI_FW_SFENCE_VMA_ASID_SENT,
    };

    if (harts)
        rv64_pmu_event(v, sent[fence->kind]);
    for (uint64_t rest = harts; rest; rest &= rest - 1)
        rv64_pmu_event(v->engine->vcpus[__builtin_ctzll(rest)], sent[fence->kind] + 1); // "received" follows "sent"
    rv64_fence_remote(v, harts, fence);
    return success(0);
}

static struct sbi_result time_call(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6])
{
    return function == 0 ? set_timer(v, a[0]) : failure(SBI_ERR_NOT_SUPPORTED);
}

static struct sbi_result ipi_call(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6])
{
    uint64_t harts;

    if (function != 0)
        return failure(SBI_ERR_NOT_SUPPORTED);
    if (!decode_harts(v, a[0], a[1], &harts))
        return failure(SBI_ERR_INVALID_PARAM);
    return send_ipi(v, harts);
}

static struct sbi_result rfence_call(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6])
{
    struct rv64_fence fence = {.start = a[2], .size = a[3]};
    uint64_t harts;

    switch (function) {
    case 0:
        fence = (struct rv64_fence){.kind = RV64_FENCE_I};
        break;
    case 1:
        fence.kind = RV64_FENCE_VMA;
        break;
    case 2:
        fence.kind = RV64_FENCE_VMA_ASID;
        fence.asid = a[4];
        break;
    default: // 3 to 6 are the hypervisor extension's
        return failure(SBI_ERR_NOT_SUPPORTED);
    }
    if (!decode_harts(v, a[0], a[1], &harts) || fence.asid > ASID_MAX)
        return failure(SBI_ERR_INVALID_PARAM);
    if (fence.size != ~(uint64_t)0 && fence.start + fence.size < fence.start)
        return failure(SBI_ERR_INVALID_ADDRESS);
    return send_fence(v, harts, &fence);
}

// --- hart states

static struct sbi_result hart_start(struct rv64_vcpu *v, const uint64_t a[static 6])
{
    struct rv64_vcpu *target = hart(v, a[0]);
    bool stopped;

    if (!target)
        return failure(SBI_ERR_INVALID_PARAM);
    if (!can_execute(v, a[1]))
        return failure(SBI_ERR_INVALID_ADDRESS);
    pthread_mutex_lock(&target->lock); // two starters: one of them wins
    stopped = atomic_load(&target->hart_state) == RV64_HART_STOPPED;
    if (stopped) {
        target->start_addr = a[1];
        target->start_opaque = a[2];
        atomic_store(&target->hart_state, RV64_HART_START_PENDING);
    }
    pthread_mutex_unlock(&target->lock);
    if (!stopped)
        return failure(SBI_ERR_ALREADY_AVAILABLE);
    rv64_attention(target, RV64_ATTN_INTERRUPT); // wakes it
    return success(0);
}

static struct sbi_result suspend(struct rv64_vcpu *v, bool retentive, uint64_t resume_addr, uint64_t opaque)
{
    v->suspend_retentive = retentive;
    v->start_addr = resume_addr;
    v->start_opaque = opaque;
    atomic_store(&v->hart_state, RV64_HART_SUSPENDED);
    return success(0);
}

static struct sbi_result hart_suspend(struct rv64_vcpu *v, const uint64_t a[static 6])
{
    uint32_t type = (uint32_t)a[0]; // 32 bits wide, whatever stands above (section 9.4)

    if (type == 0)
        return suspend(v, true, 0, 0);
    if (type != 0x80000000)
        return failure(SBI_ERR_INVALID_PARAM); // reserved, or platform-specific: there are none
    if (!can_execute(v, a[1]))
        return failure(SBI_ERR_INVALID_ADDRESS);
    return suspend(v, false, a[1], a[2]);
}

static struct sbi_result hsm_call(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6])
{
    switch (function) {
    case 0:
        return hart_start(v, a);
    case 1:
        atomic_store(&v->hart_state, RV64_HART_STOPPED);
        return success(0);
    case 2: {
        const struct rv64_vcpu *target = hart(v, a[0]);
        return target ? success((uint64_t)atomic_load(&target->hart_state)) : failure(SBI_ERR_INVALID_PARAM);
    }
    case 3:
        return hart_suspend(v, a);
    default:
        return failure(SBI_ERR_NOT_SUPPORTED);
    }
}

// Suspend to RAM: for the guest nothing but the last hart's own suspension (section 14).
static struct sbi_result susp_call(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6])
{
    if (function != 0)
        return failure(SBI_ERR_NOT_SUPPORTED);
    if ((uint32_t)a[0] != 0)
        return failure(SBI_ERR_INVALID_PARAM);
    if (!can_execute(v, a[1]))
        return failure(SBI_ERR_INVALID_ADDRESS);
    for (unsigned i = 0; i < v->engine->config.n_vcpus; i++)
        if (i != v->id && atomic_load(&v->engine->vcpus[i]->hart_state) != RV64_HART_STOPPED)
            return failure(SBI_ERR_DENIED);
    return suspend(v, false, a[1], a[2]);
}

// --- the end of the system

static struct sbi_result srst_call(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6])
{
    static const enum engine_exit exits[] = {ENGINE_EXIT_SHUTDOWN, ENGINE_EXIT_REBOOT, ENGINE_EXIT_WARM_REBOOT};
    uint32_t type = (uint32_t)a[0], reason = (uint32_t)a[1];

    if (function != 0)
        return failure(SBI_ERR_NOT_SUPPORTED);
    if (type > 2 || reason > 1) // shutdown, cold and warm reboot; no reason, system failure (section 10)
        return failure(SBI_ERR_INVALID_PARAM);
    if (reason == 1)
        rv64_end(v->engine, ENGINE_EXIT_FAILURE, "the guest reported a system failure (SBI system reset)");
    else
        rv64_end(v->engine, exits[type], NULL);
    return success(0); // nobody sees it
}

// --- the debug console

static struct sbi_result console_write(struct rv64_vcpu *v, const uint64_t a[static 6])
{
    const struct engine_host *host = &v->engine->config.host;
    const uint8_t *bytes = a[2] == 0 ? guest_memory_view(v->engine->config.mem, a[1], a[0]) : NULL;
    size_t n = a[0] < CONSOLE_MAX ? (size_t)a[0] : CONSOLE_MAX;

    if (a[0] == 0)
        return success(0);
    if (!bytes)
        return failure(SBI_ERR_INVALID_PARAM);
    host->console_write(host->arg, bytes, n);
    return success(n);
}

static struct sbi_result console_read(struct rv64_vcpu *v, const uint64_t a[static 6])
{
    const struct engine_host *host = &v->engine->config.host;
    uint8_t *bytes = a[2] == 0 ? guest_memory_view(v->engine->config.mem, a[1], a[0]) : NULL;

    if (a[0] == 0)
        return success(0);
    if (!bytes)
        return failure(SBI_ERR_INVALID_PARAM);
    size_t n = host->console_read(host->arg, bytes, a[0] < CONSOLE_MAX ? (size_t)a[0] : CONSOLE_MAX);
    rv64_mark_dirty(v->engine, a[1], n);
    return success(n);
}

static struct sbi_result dbcn_call(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6])
{
    uint8_t byte = (uint8_t)a[0];

    switch (function) {
    case 0:
        return console_write(v, a);
    case 1:
        return console_read(v, a);
    case 2:
        v->engine->config.host.console_write(v->engine->config.host.arg, &byte, 1);
        return success(0);
    default:
        return failure(SBI_ERR_NOT_SUPPORTED);
    }
}

// --- the base extension, and the table of all

static struct sbi_result base_call(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6]);

static const struct {
    uint64_t id;
    struct sbi_result (*call)(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6]);
} extensions[] = {
    {EXT_BASE, base_call}, {EXT_TIME, time_call}, {EXT_IPI, ipi_call},      {EXT_RFENCE, rfence_call}, {EXT_HSM, hsm_call},
    {EXT_SRST, srst_call}, {EXT_DBCN, dbcn_call}, {EXT_PMU, rv64_pmu_call}, {EXT_SUSP, susp_call},
};

static bool is_available(uint64_t extension)
{
    for (size_t i = 0; i < sizeof extensions / sizeof extensions[0]; i++)
        if (extensions[i].id == extension)
            return true;
    return extension <= EXT_LEGACY_SHUTDOWN;
}

static struct sbi_result base_call(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6])
{
    (void)v;
    switch (function) {
    case 0:
        return success(SPEC_VERSION);
    case 1:
        return success(IMPL_ID);
    case 2:
        return success(IMPL_VERSION);
    case 3:
        return success(is_available(a[0]));
    case 4: // mvendorid, marchid and mimpid: 0 is always legal
    case 5:
    case 6:
        return success(0);
    default:
        return failure(SBI_ERR_NOT_SUPPORTED);
    }
}

// --- the legacy extensions (section 5): only a0 is written, and a hart mask is a pointer into the guest's virtual memory

// Does not return if the guest's page tables refuse the access: the guest takes the fault at its ecall. A null pointer means all
// harts, as in other implementations. Harts that do not exist are ignored; there is no error code for them.
static uint64_t legacy_harts(struct rv64_vcpu *v, uint64_t pointer)
{
    return pointer ? rv64_load_supervisor(v, pointer) & all_harts(v) : all_harts(v);
}

static uint64_t legacy_getchar(struct rv64_vcpu *v)
{
    const struct engine_host *host = &v->engine->config.host;
    uint8_t byte;

    return host->console_read(host->arg, &byte, 1) == 1 ? byte : ~(uint64_t)0;
}

static uint64_t legacy_call(struct rv64_vcpu *v, uint64_t extension, const uint64_t a[static 6])
{
    struct rv64_fence fence = {.start = a[1], .size = a[2]};

    switch (extension) {
    case EXT_LEGACY_SET_TIMER:
        set_timer(v, a[0]);
        return 0;
    case EXT_LEGACY_PUTCHAR:
        dbcn_call(v, 2, a);
        return 0;
    case EXT_LEGACY_GETCHAR:
        return legacy_getchar(v);
    case EXT_LEGACY_CLEAR_IPI:
        return (atomic_fetch_and(&v->sip, ~(uint64_t)SIP_SSIP) & SIP_SSIP) != 0;
    case EXT_LEGACY_SEND_IPI:
        send_ipi(v, legacy_harts(v, a[0]));
        return 0;
    case EXT_LEGACY_FENCE_I:
        fence = (struct rv64_fence){.kind = RV64_FENCE_I};
        break;
    case EXT_LEGACY_SFENCE_VMA:
        fence.kind = RV64_FENCE_VMA;
        break;
    case EXT_LEGACY_SFENCE_VMA_ASID:
        fence.kind = RV64_FENCE_VMA_ASID;
        fence.asid = a[3] & ASID_MAX;
        break;
    default:
        rv64_end(v->engine, ENGINE_EXIT_SHUTDOWN, NULL);
        return 0;
    }
    if (fence.start + fence.size < fence.start)
        fence.start = fence.size = 0; // everything: never too little
    send_fence(v, legacy_harts(v, a[0]), &fence);
    return 0;
}

void rv64_sbi_call(struct rv64_vcpu *v)
{
    uint64_t extension = v->x[17], *a = &v->x[10];
    struct sbi_result result = failure(SBI_ERR_NOT_SUPPORTED);

    rv64_count(&v->counters.hypercalls, 1);
    if (extension <= EXT_LEGACY_SHUTDOWN) {
        a[0] = legacy_call(v, extension, a);
        return;
    }
    for (size_t i = 0; i < sizeof extensions / sizeof extensions[0]; i++)
        if (extensions[i].id == extension)
            result = extensions[i].call(v, v->x[16], a);
    a[0] = (uint64_t)(int64_t)result.error;
    a[1] = result.value;
}

// --- life of a hart's part

int rv64_sbi_init(struct rv64_vcpu *v)
{
    int r = rv64_pmu_init(v);

    if (r == 0)
        rv64_sbi_reset(v);
    return r;
}

void rv64_sbi_fini(struct rv64_vcpu *v)
{
    rv64_pmu_fini(v);
}

void rv64_sbi_reset(struct rv64_vcpu *v)
{
    v->start_addr = v->start_opaque = 0;
    v->suspend_retentive = false;
    atomic_store(&v->hart_state, RV64_HART_STOPPED);
    rv64_pmu_reset(v);
}

int rv64_sbi_state(struct rv64_vcpu *v, struct state *s)
{
    uint32_t hart_state = (uint32_t)atomic_load(&v->hart_state);

    state_section_begin(s, "sbi", 1);
    state_u32(s, "hart_state", &hart_state);
    state_u64(s, "start_addr", &v->start_addr);
    state_u64(s, "start_opaque", &v->start_opaque);
    state_bool(s, "suspend_retentive", &v->suspend_retentive);
    rv64_pmu_state(v, s);
    state_section_end(s);
    if (hart_state > RV64_HART_RESUME_PENDING) {
        state_fail(s, "hart %u: there is no hart state %" PRIu32, v->id, hart_state);
        hart_state = RV64_HART_STOPPED;
    }
    if (state_is_loading(s))
        atomic_store(&v->hart_state, (int)hart_state);
    return state_failed(s) ? -EINVAL : 0;
}
