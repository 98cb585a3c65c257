// The APLIC: see aplic.h. Section numbers are those of "RISC-V Advanced Interrupt Architecture" 1.0.
#include "machine/board/virt/aplic.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SOURCES_MAX 127u
#define WORDS ((SOURCES_MAX + 1) / 32)

// Registers, 4.5.
enum {
    REG_DOMAINCFG = 0x0000,
    REG_SOURCECFG = 0x0004,
    REG_SETIP = 0x1c00,
    REG_SETIPNUM = 0x1cdc,
    REG_CLRIP = 0x1d00,
    REG_CLRIPNUM = 0x1ddc,
    REG_SETIE = 0x1e00,
    REG_SETIENUM = 0x1edc,
    REG_CLRIE = 0x1f00,
    REG_CLRIENUM = 0x1fdc,
    REG_SETIPNUM_LE = 0x2000,
    REG_SETIPNUM_BE = 0x2004,
    REG_GENMSI = 0x3000,
    REG_TARGET = 0x3004,
    REG_ARRAY_BYTES = 0x80, // of setip, in_clrip, setie, clrie: 32 words
};

// 4.5.1: the top byte reads as 0x80, delivery mode is fixed at MSI (DM = 1), the domain is little-endian (BE = 0).
#define DOMAINCFG_FIXED 0x80000004u
#define DOMAINCFG_IE (1u << 8)
// 4.5.2: source modes.
#define SOURCECFG_D (1u << 10)
enum { SM_INACTIVE = 0, SM_DETACHED = 1, SM_EDGE1 = 4, SM_EDGE0 = 5, SM_LEVEL1 = 6, SM_LEVEL0 = 7 };
// 4.5.16: hart index 31:18, guest index 17:12 (we have no guest files: always 0), EIID 10:0. genmsi has the same fields.
#define TARGET_MASK 0xfffc07ffu
#define TARGET_HART(t) ((t) >> 18)
#define TARGET_EIID(t) ((t)&0x7ffu)

struct aplic {
    struct aplic_config config;
    pthread_mutex_t lock; // guards all below
    uint32_t domaincfg;   // DOMAINCFG_IE or 0
    uint32_t genmsi;
    uint8_t mode[SOURCES_MAX + 1];    // SM_*; entry 0 is always SM_INACTIVE
    uint32_t target[SOURCES_MAX + 1]; // 0 while inactive
    uint32_t line[WORDS];             // the wires, as the devices drive them
    uint32_t ip[WORDS], ie[WORDS];    // 0 while inactive
};

static bool bit_get(const uint32_t *bits, unsigned i)
{
    return bits[i / 32] >> (i % 32) & 1;
}

static void bit_put(uint32_t *bits, unsigned i, bool on)
{
    uint32_t mask = 1u << (i % 32);
    bits[i / 32] = on ? bits[i / 32] | mask : bits[i / 32] & ~mask;
}

static bool is_source(const struct aplic *a, unsigned i)
{
    return i >= 1 && i <= a->config.n_sources;
}

static bool is_level(const struct aplic *a, unsigned i)
{
    return a->mode[i] == SM_LEVEL1 || a->mode[i] == SM_LEVEL0;
}

// 4.5.2: the rectified input value; 0 for sources that do not listen to their wire.
static bool rectified(const struct aplic *a, unsigned i)
{
    switch (a->mode[i]) {
    case SM_EDGE1:
    case SM_LEVEL1:
        return bit_get(a->line, i);
    case SM_EDGE0:
    case SM_LEVEL0:
        return !bit_get(a->line, i);
    default:
        return false;
    }
}

static void send_msi(const struct aplic *a, uint32_t target)
{
    unsigned hart = TARGET_HART(target);
    if (hart < a->config.n_harts)
        a->config.raise_msi(a->config.arg, a->config.imsic_base + hart * a->config.imsic_stride, TARGET_EIID(target));
}

// 4.9.2: forwards a pending and enabled source; that clears its pending bit.
static void forward(struct aplic *a, unsigned i)
{
    if (!(a->domaincfg & DOMAINCFG_IE) || !bit_get(a->ip, i) || !bit_get(a->ie, i))
        return;
    bit_put(a->ip, i, false);
    send_msi(a, a->target[i]);
}

static void forward_all(struct aplic *a)
{
    for (unsigned i = 1; i <= a->config.n_sources; i++)
        forward(a, i);
}

// What a changed rectified input does to the pending bit, 4.7: a rise sets it; a fall clears it if the source is level-sensitive.
static void input_changed(struct aplic *a, unsigned i, bool before)
{
    bool now = rectified(a, i);
    if (now && !before) {
        bit_put(a->ip, i, true);
        forward(a, i);
    } else if (!now && is_level(a, i)) {
        bit_put(a->ip, i, false);
    }
}

static void set_pending(struct aplic *a, unsigned i)
{
    if (!is_source(a, i) || a->mode[i] == SM_INACTIVE)
        return;
    if (is_level(a, i) && !rectified(a, i)) // 4.7: only while the rectified input is high
        return;
    bit_put(a->ip, i, true);
    forward(a, i);
}

static void clear_pending(struct aplic *a, unsigned i)
{
    if (is_source(a, i))
        bit_put(a->ip, i, false);
}

static void set_enabled(struct aplic *a, unsigned i)
{
    if (!is_source(a, i) || a->mode[i] == SM_INACTIVE)
        return;
    bit_put(a->ie, i, true);
    forward(a, i);
}

static void clear_enabled(struct aplic *a, unsigned i)
{
    if (is_source(a, i))
        bit_put(a->ie, i, false);
}

static void write_sourcecfg(struct aplic *a, unsigned i, uint32_t value)
{
    if (!is_source(a, i))
        return;
    bool before = rectified(a, i);
    unsigned mode = value & 7;
    if (value & SOURCECFG_D || mode == 2 || mode == 3) // no children to delegate to; reserved modes
        mode = SM_INACTIVE;
    a->mode[i] = (uint8_t)mode;
    if (mode == SM_INACTIVE) {
        bit_put(a->ip, i, false);
        bit_put(a->ie, i, false);
        a->target[i] = 0;
        return;
    }
    input_changed(a, i, before);
}

static void write_target(struct aplic *a, unsigned i, uint32_t value)
{
    if (is_source(a, i) && a->mode[i] != SM_INACTIVE)
        a->target[i] = value & TARGET_MASK;
}

// A write to one of the arrays of 32 words: fn for each bit that is set.
static void each_bit(struct aplic *a, uint64_t word, uint32_t value, void (*fn)(struct aplic *, unsigned))
{
    for (unsigned bit = 0; bit < 32 && word < WORDS; bit++)
        if (value >> bit & 1)
            fn(a, (unsigned)word * 32 + bit);
}

static bool in_array(uint64_t offset, uint64_t base)
{
    return offset >= base && offset < base + REG_ARRAY_BYTES;
}

// The source that a register of an array of 1023 (sourcecfg, target) belongs to, or 0.
static unsigned source_of(uint64_t offset, uint64_t first)
{
    uint64_t i = (offset - first) / 4 + 1;
    return offset >= first && i <= SOURCES_MAX ? (unsigned)i : 0;
}

static uint32_t read_word(const uint32_t *bits, uint64_t word)
{
    return word < WORDS ? bits[word] : 0;
}

static uint32_t read_inputs(const struct aplic *a, uint64_t word)
{
    uint32_t value = 0;
    for (unsigned bit = 0; bit < 32 && word < WORDS; bit++)
        if (rectified(a, (unsigned)word * 32 + bit))
            value |= 1u << bit;
    return value;
}

static uint32_t read_register(const struct aplic *a, uint64_t offset)
{
    if (offset == REG_DOMAINCFG)
        return DOMAINCFG_FIXED | a->domaincfg;
    if (offset == REG_GENMSI)
        return a->genmsi;
    if (in_array(offset, REG_SETIP))
        return read_word(a->ip, (offset - REG_SETIP) / 4);
    if (in_array(offset, REG_CLRIP))
        return read_inputs(a, (offset - REG_CLRIP) / 4);
    if (in_array(offset, REG_SETIE))
        return read_word(a->ie, (offset - REG_SETIE) / 4);
    if (offset >= REG_TARGET)
        return a->target[source_of(offset, REG_TARGET)];
    if (offset < REG_SETIP)
        return a->mode[source_of(offset, REG_SOURCECFG)];
    return 0; // write-only and reserved registers, 4.5
}

static void write_number(struct aplic *a, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case REG_SETIPNUM:
    case REG_SETIPNUM_LE:
        set_pending(a, value);
        break;
    case REG_SETIPNUM_BE:
        set_pending(a, __builtin_bswap32(value));
        break;
    case REG_CLRIPNUM:
        clear_pending(a, value);
        break;
    case REG_SETIENUM:
        set_enabled(a, value);
        break;
    case REG_CLRIENUM:
        clear_enabled(a, value);
        break;
    default:
        break;
    }
}

static void write_register(struct aplic *a, uint64_t offset, uint32_t value)
{
    if (offset == REG_DOMAINCFG) {
        a->domaincfg = value & DOMAINCFG_IE;
        forward_all(a);
    } else if (offset == REG_GENMSI) { // 4.5.15: an extempore MSI is sent at once, whatever IE says, so Busy is never seen
        a->genmsi = value & TARGET_MASK;
        send_msi(a, a->genmsi);
    } else if (in_array(offset, REG_SETIP)) {
        each_bit(a, (offset - REG_SETIP) / 4, value, set_pending);
    } else if (in_array(offset, REG_CLRIP)) {
        each_bit(a, (offset - REG_CLRIP) / 4, value, clear_pending);
    } else if (in_array(offset, REG_SETIE)) {
        each_bit(a, (offset - REG_SETIE) / 4, value, set_enabled);
    } else if (in_array(offset, REG_CLRIE)) {
        each_bit(a, (offset - REG_CLRIE) / 4, value, clear_enabled);
    } else if (offset >= REG_TARGET) {
        write_target(a, source_of(offset, REG_TARGET), value);
    } else if (offset < REG_SETIP) {
        write_sourcecfg(a, source_of(offset, REG_SOURCECFG), value);
    } else {
        write_number(a, offset, value);
    }
}

static uint64_t aplic_read(void *device, uint64_t offset, unsigned size)
{
    struct aplic *a = device;
    if (size != 4) // 4.5: only naturally aligned 32-bit accesses are defined
        return 0;
    pthread_mutex_lock(&a->lock);
    uint32_t value = read_register(a, offset);
    pthread_mutex_unlock(&a->lock);
    return value;
}

static void aplic_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct aplic *a = device;
    if (size != 4)
        return;
    pthread_mutex_lock(&a->lock);
    write_register(a, offset, (uint32_t)value);
    pthread_mutex_unlock(&a->lock);
}

const struct bus_ops aplic_bus_ops = {.name = "aplic", .read = aplic_read, .write = aplic_write};

void aplic_set_line(struct aplic *a, unsigned source, bool level)
{
    assert(is_source(a, source));
    pthread_mutex_lock(&a->lock);
    bool before = rectified(a, source);
    bit_put(a->line, source, level);
    input_changed(a, source, before);
    pthread_mutex_unlock(&a->lock);
}

struct aplic *aplic_create(const struct aplic_config *config, struct tv_error *err)
{
    assert(config->n_sources >= 1 && config->n_sources <= SOURCES_MAX);
    struct aplic *a = calloc(1, sizeof(*a));
    if (!a) {
        tv_error_set(err, -ENOMEM, "no memory for the interrupt controller");
        return NULL;
    }
    a->config = *config;
    pthread_mutex_init(&a->lock, NULL);
    return a;
}

void aplic_destroy(struct aplic *a)
{
    if (!a)
        return;
    pthread_mutex_destroy(&a->lock);
    free(a);
}

void aplic_reset(struct aplic *a)
{
    pthread_mutex_lock(&a->lock);
    a->domaincfg = 0;
    a->genmsi = 0;
    memset(a->mode, 0, sizeof(a->mode));
    memset(a->target, 0, sizeof(a->target));
    memset(a->ip, 0, sizeof(a->ip));
    memset(a->ie, 0, sizeof(a->ie));
    pthread_mutex_unlock(&a->lock);
}

static bool is_mode(unsigned mode)
{
    return mode == SM_INACTIVE || mode == SM_DETACHED || (mode >= SM_EDGE1 && mode <= SM_LEVEL0);
}

// The invariants of struct aplic, for what was loaded.
static void check_loaded(const struct aplic *a, struct state *s)
{
    for (unsigned i = 0; i <= SOURCES_MAX; i++) {
        if (!is_mode(a->mode[i]) || (a->mode[i] != SM_INACTIVE && !is_source(a, i)))
            state_fail(s, "aplic: source %u has mode %u", i, a->mode[i]);
        else if (a->mode[i] == SM_INACTIVE && (a->target[i] || bit_get(a->ip, i) || bit_get(a->ie, i)))
            state_fail(s, "aplic: source %u is inactive but has a target or is pending or enabled", i);
        else if (a->target[i] & ~TARGET_MASK)
            state_fail(s, "aplic: source %u has target 0x%x", i, a->target[i]);
    }
    if (a->domaincfg & ~DOMAINCFG_IE || a->genmsi & ~TARGET_MASK)
        state_fail(s, "aplic: domaincfg 0x%x or genmsi 0x%x has bits that do not exist", a->domaincfg, a->genmsi);
}

int aplic_state(struct aplic *a, struct state *s)
{
    pthread_mutex_lock(&a->lock);
    state_section_begin(s, "aplic", 1);
    state_u32(s, "domaincfg", &a->domaincfg);
    state_u32(s, "genmsi", &a->genmsi);
    state_bytes(s, "mode", a->mode, sizeof(a->mode));
    state_bytes(s, "target", a->target, sizeof(a->target));
    state_bytes(s, "line", a->line, sizeof(a->line));
    state_bytes(s, "ip", a->ip, sizeof(a->ip));
    state_bytes(s, "ie", a->ie, sizeof(a->ie));
    state_section_end(s);
    if (state_is_loading(s))
        check_loaded(a, s);
    bool failed = state_failed(s);
    pthread_mutex_unlock(&a->lock);
    if (failed && state_is_loading(s))
        aplic_reset(a);
    return failed ? -EINVAL : 0;
}
