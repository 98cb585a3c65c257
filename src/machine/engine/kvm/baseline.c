// Levels of features: see baseline.h. Leaves and bits: Intel SDM, volume 2A, CPUID; AMD APM, volume 3, appendix E.
#include "machine/engine/kvm/baseline.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum reg { EAX, EBX, ECX, EDX };
#define AMD_FEATURES 0x80000001u
#define AMD_POWER 0x80000007u
#define AMD_GUARDS 0x80000008u
#define AMD_FEATURES_2 0x80000021u
#define LEAF_XSAVE 0xdu
#define XSAVE_STATES 63u // numbers of states are below
#define XSAVE_LEGACY_BYTES 576u

static const char *const names[] = {[2] = "x86-64-v2", [3] = "x86-64-v3", [4] = "x86-64-v4"};
#define LEVEL_MIN 2u
#define LEVEL_MAX 4u

// What must be there from a level on. Those of level 2 that the ABI calls the baseline are what any x86-64 kernel relies on.
static const struct feature {
    uint32_t function;
    uint8_t reg, bit, level;
    const char *name; // as in Linux's /proc/cpuinfo
} features[] = {
    {1, EDX, 0, 2, "fpu"},
    {1, EDX, 3, 2, "pse"},
    {1, EDX, 4, 2, "tsc"},
    {1, EDX, 5, 2, "msr"},
    {1, EDX, 6, 2, "pae"},
    {1, EDX, 7, 2, "mce"},
    {1, EDX, 8, 2, "cx8"},
    {1, EDX, 9, 2, "apic"},
    {1, EDX, 11, 2, "sep"},
    {1, EDX, 12, 2, "mtrr"},
    {1, EDX, 13, 2, "pge"},
    {1, EDX, 14, 2, "mca"},
    {1, EDX, 15, 2, "cmov"},
    {1, EDX, 16, 2, "pat"},
    {1, EDX, 17, 2, "pse36"},
    {1, EDX, 19, 2, "clflush"},
    {1, EDX, 23, 2, "mmx"},
    {1, EDX, 24, 2, "fxsr"},
    {1, EDX, 25, 2, "sse"},
    {1, EDX, 26, 2, "sse2"},
    {1, ECX, 0, 2, "pni"},
    {1, ECX, 9, 2, "ssse3"},
    {1, ECX, 13, 2, "cx16"},
    {1, ECX, 19, 2, "sse4_1"},
    {1, ECX, 20, 2, "sse4_2"},
    {1, ECX, 21, 2, "x2apic"},
    {1, ECX, 23, 2, "popcnt"},
    {1, ECX, 24, 2, "tsc_deadline_timer"},
    {1, ECX, 31, 2, "hypervisor"},
    {AMD_FEATURES, EDX, 11, 2, "syscall"},
    {AMD_FEATURES, EDX, 20, 2, "nx"},
    {AMD_FEATURES, EDX, 27, 2, "rdtscp"},
    {AMD_FEATURES, EDX, 29, 2, "lm"},
    {AMD_FEATURES, ECX, 0, 2, "lahf_lm"},
    {1, ECX, 1, 3, "pclmulqdq"},
    {1, ECX, 12, 3, "fma"},
    {1, ECX, 22, 3, "movbe"},
    {1, ECX, 25, 3, "aes"},
    {1, ECX, 26, 3, "xsave"},
    {1, ECX, 28, 3, "avx"},
    {1, ECX, 29, 3, "f16c"},
    {1, ECX, 30, 3, "rdrand"},
    {7, EBX, 0, 3, "fsgsbase"},
    {7, EBX, 1, 3, "tsc_adjust"},
    {7, EBX, 3, 3, "bmi1"},
    {7, EBX, 5, 3, "avx2"},
    {7, EBX, 7, 3, "smep"},
    {7, EBX, 8, 3, "bmi2"},
    {AMD_FEATURES, ECX, 5, 3, "abm"},
    {AMD_FEATURES, EDX, 26, 3, "pdpe1gb"},
    {7, EBX, 16, 4, "avx512f"},
    {7, EBX, 17, 4, "avx512dq"},
    {7, EBX, 18, 4, "rdseed"},
    {7, EBX, 19, 4, "adx"},
    {7, EBX, 20, 4, "smap"},
    {7, EBX, 23, 4, "clflushopt"},
    {7, EBX, 24, 4, "clwb"},
    {7, EBX, 28, 4, "avx512cd"},
    {7, EBX, 30, 4, "avx512bw"},
    {7, EBX, 31, 4, "avx512vl"},
};
#define FEATURES (sizeof(features) / sizeof(features[0]))

// Words of features. `always` is shown at each level as the host has it: what guards, what says how other leaves are to be read,
// and what repeats another word. `changes` is not the processor's alone: the guest turns it on, or it follows from the number of
// vcpus.
static const struct word {
    uint32_t function, index;
    uint8_t reg;
    uint32_t always, changes;
} words[] = {
    {1, 0, ECX, 1u << 27, 1u << 27 | 1u << 3}, // OSXSAVE; MONITOR
    {1, 0, EDX, 1u << 28, 1u << 28 | 1u << 9}, // HTT; APIC
    {6, 0, EAX, 1u << 2, 0},                   // the APIC's timer never stops
    {7, 0, EBX, 0, 0},
    {7, 0, ECX, 0, 1u << 4},                // OSPKE
    {7, 0, EDX, 1u << 10 | 0x3fu << 26, 0}, // MD_CLEAR; IBRS and IBPB, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, CORE_CAPABILITIES, SSBD
    {7, 1, EAX, 0, 0},
    {7, 1, EDX, 0, 0},
    {7, 2, EDX, 0x3f, 0}, // speculation control, one by one
    {LEAF_XSAVE, 1, EAX, 0, 0},
    {0x14, 0, EBX, 0, 0},
    {AMD_FEATURES, 0, ECX, 1u << 1 | 1u << 4 | 1u << 22, 1u << 1}, // CMP_LEGACY, CR8, TOPOEXT
    {AMD_FEATURES, 0, EDX, 0x0183f3ff, 0},                         // what repeats leaf 1
    {AMD_POWER, 0, EDX, 0, 0},
    {AMD_GUARDS, 0, EBX, 1u << 12 | 0xfu << 14 | 1u << 18 | 1u << 19 | 7u << 24 | 1u << 28 | 1u << 29 | 1u << 30, 0},
    {AMD_FEATURES_2, 0, EAX, 1u << 2 | 1u << 6 | 1u << 8 | 3u << 27, 0}, // LFENCE, null selectors, automatic IBRS, SBPB
};
#define WORDS (sizeof(words) / sizeof(words[0]))

// Leaves of features with state of their own, in no level: SGX, trace, key locker, AMX, AVX10; IBS, LWP, encrypted memory.
static const uint32_t beyond[] = {0x12, 0x14, 0x19, 0x1d, 0x1e, 0x24, 0x8000001b, 0x8000001c, 0x8000001f, 0x80000020};

static uint32_t *reg_of(struct kvm_cpuid_entry2 *e, unsigned reg)
{
    uint32_t *const regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};
    return regs[reg];
}

static uint32_t value_of(const struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index, unsigned reg)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];
        if (e->function == function && (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == index))
            return *reg_of((struct kvm_cpuid_entry2 *)(uintptr_t)e, reg);
    }
    return 0;
}

// --- names of what is missing

struct missing {
    unsigned n;
    size_t len;
    char text[200];
};

static void add_missing(struct missing *m, const char *name)
{
    m->n++;
    if (m->len < sizeof(m->text))
        m->len += (size_t)snprintf(m->text + m->len, sizeof(m->text) - m->len, "%s%s", m->n > 1 ? ", " : "", name);
    if (m->len >= sizeof(m->text))
        memcpy(m->text + sizeof(m->text) - 4, "...", 4);
}

static void find_missing(const struct kvm_cpuid2 *cpuid, unsigned level, struct missing *m)
{
    *m = (struct missing){0};
    for (size_t i = 0; i < FEATURES; i++)
        if (features[i].level <= level && !(value_of(cpuid, features[i].function, 0, features[i].reg) >> features[i].bit & 1))
            add_missing(m, features[i].name);
}

// --- taking out

static uint32_t level_mask(const struct word *word, unsigned level)
{
    uint32_t mask = word->always;
    for (size_t i = 0; i < FEATURES && word->index == 0; i++)
        if (features[i].level <= level && features[i].function == word->function && features[i].reg == word->reg)
            mask |= 1u << features[i].bit;
    return mask;
}

static bool is_word(const struct word *word, const struct kvm_cpuid_entry2 *e)
{
    return e->function == word->function && (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == word->index);
}

static void clear(struct kvm_cpuid_entry2 *e)
{
    e->eax = e->ebx = e->ecx = e->edx = 0;
}

static bool is_beyond(uint32_t function)
{
    for (size_t i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++)
        if (beyond[i] == function)
            return true;
    return false;
}

// States that XSAVE keeps, and how it does: x87, SSE and AVX, from level 4 on AVX-512 and the compact form. Those of a supervisor
// are in no level.
static void put_xsave(struct kvm_cpuid2 *cpuid, unsigned level)
{
    uint64_t states = level >= 4 ? 0xe7 : level == 3 ? 0x7 : 0;
    uint32_t size_bytes = states ? XSAVE_LEGACY_BYTES : 0;
    for (uint32_t i = 2; i < XSAVE_STATES; i++) {
        uint32_t end = value_of(cpuid, LEAF_XSAVE, i, EAX) + value_of(cpuid, LEAF_XSAVE, i, EBX);
        if (states >> i & 1 && end > size_bytes)
            size_bytes = end;
    }
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *e = &cpuid->entries[i];
        if (e->function != LEAF_XSAVE)
            continue;
        if (e->index == 0)
            *e = (struct kvm_cpuid_entry2){
                .function = e->function, .flags = e->flags, .eax = (uint32_t)states, .ebx = size_bytes, .ecx = size_bytes};
        else if (e->index == 1)
            *e = (struct kvm_cpuid_entry2){.function = e->function,
                                           .index = 1,
                                           .flags = e->flags,
                                           .eax = e->eax & (level >= 4   ? 7u
                                                            : level == 3 ? 1u
                                                                         : 0u)};
        else if (e->index >= XSAVE_STATES || !(states >> e->index & 1))
            clear(e);
    }
}

static void take_out(struct kvm_cpuid2 *cpuid, unsigned level)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *e = &cpuid->entries[i];
        for (size_t j = 0; j < WORDS; j++)
            if (words[j].function != LEAF_XSAVE && is_word(&words[j], e))
                *reg_of(e, words[j].reg) &= level_mask(&words[j], level);
        if (e->function == 6)
            e->ebx = e->ecx = e->edx = 0;
        if (e->function == 7 && e->index)
            e->ebx = e->ecx = 0;
        if (is_beyond(e->function))
            clear(e);
    }
    put_xsave(cpuid, level);
}

static unsigned highest_level(const struct kvm_cpuid2 *cpuid)
{
    struct missing m;
    for (unsigned level = LEVEL_MAX; level >= LEVEL_MIN; level--) {
        find_missing(cpuid, level, &m);
        if (!m.n)
            return level;
    }
    return 0;
}

int kvm_baseline_apply(struct kvm_cpuid2 *cpuid, const char *cpu, struct tv_error *err)
{
    struct missing m;
    unsigned level = LEVEL_MIN;
    if (strcmp(cpu, "host") == 0)
        return 0;
    while (level <= LEVEL_MAX && strcmp(cpu, names[level]) != 0)
        level++;
    if (level > LEVEL_MAX)
        return tv_error_set(err, -EINVAL, "kvm: cpu '%s' is not known; there are " KVM_BASELINES, cpu);
    find_missing(cpuid, level, &m);
    unsigned highest = highest_level(cpuid);
    if (m.n)
        return tv_error_set(err, -ENOTSUP, "kvm: cpu '%s': this host gives its guests no %s; take cpu '%s'", cpu, m.text,
                            highest ? names[highest] : "host");
    take_out(cpuid, level);
    return 0;
}

// --- a guest that was saved

static void add_missing_bit(struct missing *m, const struct word *word, unsigned bit)
{
    static const char *const regs[] = {"eax", "ebx", "ecx", "edx"};
    char text[64];
    for (size_t i = 0; i < FEATURES && word->index == 0; i++)
        if (features[i].function == word->function && features[i].reg == word->reg && features[i].bit == bit) {
            add_missing(m, features[i].name);
            return;
        }
    snprintf(text, sizeof(text), "CPUID 0x%x.%u %s bit %u", word->function, word->index, regs[word->reg], bit);
    add_missing(m, text);
}

static void compare(const struct kvm_cpuid2 *now, const struct kvm_cpuid2 *saved, const struct word *word, struct missing *m)
{
    uint32_t gone = value_of(saved, word->function, word->index, word->reg) &
                    ~value_of(now, word->function, word->index, word->reg) & ~word->changes;
    for (unsigned bit = 0; bit < 32; bit++)
        if (gone >> bit & 1)
            add_missing_bit(m, word, bit);
}

int kvm_baseline_check(const struct kvm_cpuid2 *now, const struct kvm_cpuid2 *saved, struct tv_error *err)
{
    static const struct word states = {.function = LEAF_XSAVE, .reg = EAX};
    struct missing m = {0};
    for (size_t i = 0; i < WORDS; i++)
        compare(now, saved, &words[i], &m);
    compare(now, saved, &states, &m);
    return m.n ? tv_error_set(err, -ENOTSUP, "kvm: its processor had %s, this one has not; load it on a host like its own", m.text)
               : 0;
}
