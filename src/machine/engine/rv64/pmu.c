// The SBI's performance monitoring unit (SBI 2.0, section 11): a hart's counters, what they count and where the guest reads them.
//
// Runs on the hart's own thread, but for rv64_pmu_event().
#include "machine/engine/rv64/sbi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// Hardware counters have the index of their CSR, from 0xc00 on, as kernels expect of the fixed two; that makes `time` (1) a hole.
enum {
    COUNTER_CYCLE = 0,
    COUNTER_TIME = 1,
    COUNTER_INSTRET = 2,
    COUNTER_HPM = 3,
    COUNTER_FIRMWARE = COUNTER_HPM + 4,
    COUNTERS = COUNTER_FIRMWARE + 16,
};
#define CSR_CYCLE 0xc00u

// event_idx: type in bits 19..16, code below.
enum {
    EVENT_NONE = 0,
    EVENT_CPU_CYCLES = 1,
    EVENT_INSTRUCTIONS = 2,
    EVENT_BUS_CYCLES = 7,
    EVENT_REF_CPU_CYCLES = 10,
    EVENT_FIRMWARE = 0xf0000, // + code
};

#define CONFIG_SKIP_MATCH 1u
#define CONFIG_CLEAR_VALUE 2u
#define CONFIG_AUTO_START 4u
#define CONFIG_FLAGS 0xffu // with the filters (bits 3..7), which are hints
#define START_SET_INIT_VALUE 1u
#define START_INIT_SNAPSHOT 2u
#define STOP_RESET 1u
#define STOP_TAKE_SNAPSHOT 2u

#define SNAPSHOT_SIZE 4096u
#define NO_SNAPSHOT (~(uint64_t)0)

struct snapshot { // in guest memory
    uint64_t overflow_bitmap, values[64];
};

// A counter's value is `base` while it stands and base + (what was counted until now) while it runs.
struct counter {
    uint32_t event; // EVENT_NONE: not configured
    bool running;
    uint64_t base;
};

struct rv64_pmu {
    struct counter counters[COUNTERS];
    uint64_t snapshot; // guest-physical, or NO_SNAPSHOT
    // How often each firmware event happened; raised by any thread.
    _Atomic uint64_t firmware[SBI_FW_EVENTS];
};

// --- what is counted

// Instructions are counted by the interpreter. A cycle is a nanosecond of guest time, as of a hart with a clock of 1 GHz.
static uint64_t occurrences(const struct rv64_vcpu *v, uint32_t event)
{
    switch (event) {
    case EVENT_INSTRUCTIONS:
        return v->instret;
    case EVENT_CPU_CYCLES:
        return rv64_time(v->engine) * (1000000000u / RV64_TIMEBASE_HZ);
    case EVENT_BUS_CYCLES:
    case EVENT_REF_CPU_CYCLES:
        return rv64_time(v->engine);
    default:
        return event >= EVENT_FIRMWARE ? atomic_load_explicit(&v->pmu->firmware[event - EVENT_FIRMWARE], memory_order_relaxed) : 0;
    }
}

// The fixed counters count their event even if nobody configured them.
static uint32_t event_of(const struct rv64_vcpu *v, unsigned index)
{
    if (index == COUNTER_CYCLE)
        return EVENT_CPU_CYCLES;
    return index == COUNTER_INSTRET ? EVENT_INSTRUCTIONS : v->pmu->counters[index].event;
}

static bool can_count(unsigned index, uint32_t event)
{
    if (event >= EVENT_FIRMWARE + SBI_FW_SET_TIMER && event < EVENT_FIRMWARE + SBI_FW_EVENTS)
        return index >= COUNTER_FIRMWARE;
    if (index == COUNTER_CYCLE)
        return event == EVENT_CPU_CYCLES;
    if (index == COUNTER_INSTRET)
        return event == EVENT_INSTRUCTIONS;
    return index < COUNTER_FIRMWARE &&
           (event == EVENT_CPU_CYCLES || event == EVENT_INSTRUCTIONS || event == EVENT_BUS_CYCLES || event == EVENT_REF_CPU_CYCLES);
}

static uint64_t value_of(const struct rv64_vcpu *v, unsigned index)
{
    const struct counter *c = &v->pmu->counters[index];

    return c->running ? c->base + occurrences(v, event_of(v, index)) : c->base;
}

static void set_value(struct rv64_vcpu *v, unsigned index, uint64_t value)
{
    struct counter *c = &v->pmu->counters[index];

    c->base = c->running ? value - occurrences(v, event_of(v, index)) : value;
}

static void set_running(struct rv64_vcpu *v, unsigned index, bool running)
{
    uint64_t value = value_of(v, index);

    v->pmu->counters[index].running = running;
    set_value(v, index, value);
}

void rv64_pmu_event(struct rv64_vcpu *v, enum sbi_firmware_event event)
{
    atomic_fetch_add_explicit(&v->pmu->firmware[event], 1, memory_order_relaxed);
}

int rv64_pmu_read(struct rv64_vcpu *v, unsigned counter, uint64_t *value)
{
    if (counter >= COUNTER_FIRMWARE || counter == COUNTER_TIME)
        return -EINVAL;
    *value = value_of(v, counter);
    return 0;
}

// --- the functions

static struct sbi_result answer(enum sbi_error error, uint64_t value)
{
    return (struct sbi_result){.error = error, .value = value};
}

static bool is_valid(uint64_t index)
{
    return index < COUNTERS && index != COUNTER_TIME;
}

// The set base + mask as bits of the counters' indices; false when one of them does not exist.
static bool decode_set(uint64_t base, uint64_t mask, uint64_t *set)
{
    *set = base < 64 ? mask << base : 0;
    if (mask == 0)
        return true;
    return base < 64 && *set >> base == mask && *set < (uint64_t)1 << COUNTERS && !(*set >> COUNTER_TIME & 1);
}

static struct snapshot *snapshot_of(const struct rv64_vcpu *v)
{
    if (v->pmu->snapshot == NO_SNAPSHOT)
        return NULL;
    rv64_mark_dirty(v->engine, v->pmu->snapshot, SNAPSHOT_SIZE);
    return guest_memory_view(v->engine->config.mem, v->pmu->snapshot, SNAPSHOT_SIZE);
}

static struct sbi_result get_info(uint64_t index)
{
    if (!is_valid(index))
        return answer(SBI_ERR_INVALID_PARAM, 0);
    if (index >= COUNTER_FIRMWARE)
        return answer(SBI_SUCCESS, (uint64_t)1 << 63);
    return answer(SBI_SUCCESS, (CSR_CYCLE + index) | 63u << 12); // 64 bits wide
}

static struct sbi_result config_matching(struct rv64_vcpu *v, const uint64_t a[static 6])
{
    uint64_t set, flags = a[2], event = a[3], event_data = a[4];

    if (!decode_set(a[0], a[1], &set) || flags & ~(uint64_t)CONFIG_FLAGS)
        return answer(SBI_ERR_INVALID_PARAM, 0);
    if (event_data != 0) // reserved for all events that are counted here
        return answer(SBI_ERR_NOT_SUPPORTED, 0);
    for (; set; set &= set - 1) {
        unsigned index = (unsigned)__builtin_ctzll(set);
        struct counter *c = &v->pmu->counters[index];
        bool started = c->running && c->event != EVENT_NONE; // the fixed ones run unconfigured from power-on
        if (event > UINT32_MAX || !can_count(index, (uint32_t)event) || (started && !(flags & CONFIG_SKIP_MATCH))) {
            if (flags & CONFIG_SKIP_MATCH)
                break; // the first or none
            continue;
        }
        if (!started)
            set_running(v, index, false);
        c->event = (uint32_t)event;
        if (flags & CONFIG_CLEAR_VALUE)
            set_value(v, index, 0);
        if (flags & CONFIG_AUTO_START)
            set_running(v, index, true);
        return answer(SBI_SUCCESS, index);
    }
    return answer(SBI_ERR_NOT_SUPPORTED, 0);
}

static struct sbi_result start(struct rv64_vcpu *v, const uint64_t a[static 6])
{
    uint64_t set, base = a[0], flags = a[2], value = a[3];
    const struct snapshot *snapshot = snapshot_of(v);
    enum sbi_error error = SBI_SUCCESS;

    if (!decode_set(base, a[1], &set) || flags & ~(uint64_t)(START_SET_INIT_VALUE | START_INIT_SNAPSHOT) ||
        flags == (START_SET_INIT_VALUE | START_INIT_SNAPSHOT))
        return answer(SBI_ERR_INVALID_PARAM, 0);
    for (uint64_t rest = set; rest; rest &= rest - 1)
        if (v->pmu->counters[__builtin_ctzll(rest)].event == EVENT_NONE)
            return answer(SBI_ERR_INVALID_PARAM, 0); // it would count nothing
    if (flags & START_INIT_SNAPSHOT && !snapshot)
        return answer(SBI_ERR_NO_SHMEM, 0);
    for (; set; set &= set - 1) {
        unsigned index = (unsigned)__builtin_ctzll(set);
        if (v->pmu->counters[index].running) {
            error = SBI_ERR_ALREADY_STARTED; // and the others are started
            continue;
        }
        if (flags & START_SET_INIT_VALUE)
            set_value(v, index, value);
        else if (flags & START_INIT_SNAPSHOT)
            set_value(v, index, snapshot->values[index - base]);
        set_running(v, index, true);
    }
    return answer(error, 0);
}

static struct sbi_result stop(struct rv64_vcpu *v, const uint64_t a[static 6])
{
    uint64_t set, base = a[0], flags = a[2];
    struct snapshot *snapshot = snapshot_of(v);
    enum sbi_error error = SBI_SUCCESS;

    if (!decode_set(base, a[1], &set) || flags & ~(uint64_t)(STOP_RESET | STOP_TAKE_SNAPSHOT))
        return answer(SBI_ERR_INVALID_PARAM, 0);
    if (flags & STOP_TAKE_SNAPSHOT && !snapshot)
        return answer(SBI_ERR_NO_SHMEM, 0);
    if (flags & STOP_TAKE_SNAPSHOT)
        snapshot->overflow_bitmap = 0; // there is no Sscofpmf
    for (; set; set &= set - 1) {
        unsigned index = (unsigned)__builtin_ctzll(set);
        struct counter *c = &v->pmu->counters[index];
        if (!c->running)
            error = SBI_ERR_ALREADY_STOPPED; // and the others are stopped
        set_running(v, index, false);
        if (flags & STOP_TAKE_SNAPSHOT)
            snapshot->values[index - base] = c->base;
        if (flags & STOP_RESET)
            c->event = EVENT_NONE;
    }
    return answer(error, 0);
}

static struct sbi_result set_snapshot(struct rv64_vcpu *v, const uint64_t a[static 6])
{
    uint64_t low = a[0], high = a[1], flags = a[2];

    if (flags != 0)
        return answer(SBI_ERR_INVALID_PARAM, 0);
    if (low == ~(uint64_t)0 && high == ~(uint64_t)0) {
        v->pmu->snapshot = NO_SNAPSHOT;
        return answer(SBI_SUCCESS, 0);
    }
    if (low % SNAPSHOT_SIZE)
        return answer(SBI_ERR_INVALID_PARAM, 0);
    if (high != 0 || !guest_memory_view(v->engine->config.mem, low, SNAPSHOT_SIZE))
        return answer(SBI_ERR_INVALID_ADDRESS, 0);
    v->pmu->snapshot = low;
    return answer(SBI_SUCCESS, 0);
}

struct sbi_result rv64_pmu_call(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6])
{
    bool firmware = is_valid(a[0]) && a[0] >= COUNTER_FIRMWARE;

    switch (function) {
    case 0:
        return answer(SBI_SUCCESS, COUNTERS);
    case 1:
        return get_info(a[0]);
    case 2:
        return config_matching(v, a);
    case 3:
        return start(v, a);
    case 4:
        return stop(v, a);
    case 5:
        return firmware ? answer(SBI_SUCCESS, value_of(v, (unsigned)a[0])) : answer(SBI_ERR_INVALID_PARAM, 0);
    case 6: // the upper half, of which 64-bit harts have none
        return firmware ? answer(SBI_SUCCESS, 0) : answer(SBI_ERR_INVALID_PARAM, 0);
    case 7:
        return set_snapshot(v, a);
    default:
        return answer(SBI_ERR_NOT_SUPPORTED, 0);
    }
}

// --- life

int rv64_pmu_init(struct rv64_vcpu *v)
{
    v->pmu = calloc(1, sizeof *v->pmu);
    return v->pmu ? 0 : -ENOMEM;
}

void rv64_pmu_fini(struct rv64_vcpu *v)
{
    free(v->pmu);
    v->pmu = NULL;
}

void rv64_pmu_reset(struct rv64_vcpu *v)
{
    memset(v->pmu->counters, 0, sizeof v->pmu->counters);
    v->pmu->snapshot = NO_SNAPSHOT;
    for (unsigned i = 0; i < SBI_FW_EVENTS; i++)
        atomic_store(&v->pmu->firmware[i], 0);
    v->pmu->counters[COUNTER_CYCLE].running = v->pmu->counters[COUNTER_INSTRET].running = true;
}

// Saves values, not bases: those depend on what was counted elsewhere. So instret and the clock are loaded before.
int rv64_pmu_state(struct rv64_vcpu *v, struct state *s)
{
    struct rv64_pmu *p = v->pmu;

    state_section_begin(s, "pmu", 1);
    state_u64(s, "snapshot", &p->snapshot);
    for (unsigned i = 0; i < SBI_FW_EVENTS; i++) {
        uint64_t count = atomic_load(&p->firmware[i]);
        state_u64(s, "firmware", &count);
        if (state_is_loading(s))
            atomic_store(&p->firmware[i], count);
    }
    for (unsigned i = 0; i < COUNTERS; i++) {
        struct counter *c = &p->counters[i];
        uint64_t value = value_of(v, i);
        state_u32(s, "event", &c->event);
        if (c->event != EVENT_NONE && !can_count(i, c->event)) {
            state_fail(s, "hart %u: counter %u cannot count event %#x", v->id, i, c->event);
            c->event = EVENT_NONE;
        }
        state_bool(s, "running", &c->running);
        state_u64(s, "value", &value);
        if (state_is_loading(s))
            set_value(v, i, value);
    }
    state_section_end(s);
    if (p->snapshot != NO_SNAPSHOT && (p->snapshot % SNAPSHOT_SIZE || !snapshot_of(v))) {
        state_fail(s, "hart %u: the counters' snapshot is outside memory", v->id);
        p->snapshot = NO_SNAPSHOT;
    }
    return state_failed(s) ? -EINVAL : 0;
}
