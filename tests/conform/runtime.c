// The program inside an image: runs the generated blocks again and again, each time from other registers, page tables and modes,
// records every trap, and prints hashes of all that came out. Everything follows from the image's seed; nothing depends on time.
//
// S mode, one hart, translation off. The blocks are entered and left in runtime.S.
#include "runtime.h"
#include "image.h"

#include <stdbool.h>
#include <stddef.h>

struct context {
    uint64_t x[32], f[32], fcsr, pc, sstatus, satp, scause, stval, sie, sip, sp, s11, address;
};
_Static_assert(offsetof(struct context, f) == CONTEXT_F && offsetof(struct context, fcsr) == CONTEXT_FCSR &&
                   offsetof(struct context, sip) == CONTEXT_SIP && offsetof(struct context, address) == CONTEXT_ADDRESS,
               "runtime.h");

void runtime_main(void);
void enter_block(struct context *c);
long sbi(long a0, long extension);

// A page of its own: mapped while a block runs.
static struct {
    struct context c;
    uint8_t fill[4096 - sizeof(struct context)];
} page __attribute__((aligned(4096), section(".bss.context")));

static const struct image_header *const header = (const struct image_header *)IMAGE_PROGRAM;
static uint64_t random_state, hash_state;

// --- random numbers, hash, output

static uint64_t rnd(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1d;
}

static unsigned below(unsigned n)
{
    return (unsigned)((rnd() >> 32) % n);
}

static void mix(uint64_t value)
{
    hash_state = (hash_state ^ value) * 0x9e3779b97f4a7c15;
    hash_state ^= hash_state >> 29;
}

static void put(const char *s)
{
    while (*s)
        sbi(*s++, 1);
}

static void put_hex(uint64_t value)
{
    char digits[17] = {0};

    for (int i = 15; i >= 0; i--, value >>= 4)
        digits[i] = "0123456789abcdef"[value & 15];
    put(digits);
}

static void put_field(const char *name, uint64_t value)
{
    put(" ");
    put(name);
    put("=");
    put_hex(value);
}

// --- address spaces

enum { V = 1, R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128 };
#define PTE_PBMT_SHIFT 61
#define PTE_N (1ull << 63)
#define PAGE 4096ull
#define WINDOW_PAGES 64
#define LOW_WINDOW 0x20000000ull
#define MEGA_WINDOW 0x30000000ull   // four superpages of 2 MiB
#define GIGA_WINDOW 0x3740000000ull // one of 1 GiB that shows physical 0x80000000; read-only
#define NAPOT_WINDOW 0x28000000ull  // 64 KiB in one entry

static uint64_t *tables_end;
static unsigned levels;  // 0: no translation
static bool mostly_user; // how most pages are marked, and most blocks run
static uint64_t satp;

static uint64_t *new_table(void)
{
    uint64_t *table = tables_end;

    for (unsigned i = 0; i < 512; i++)
        table[i] = 0;
    tables_end += 512;
    return table;
}

static void map(uint64_t *root, uint64_t va, unsigned leaf_level, uint64_t pte)
{
    uint64_t *table = root;

    for (unsigned level = levels - 1; level > leaf_level; level--) {
        uint64_t *entry = &table[va >> (12 + 9 * level) & 511];
        if (!(*entry & V))
            *entry = (uint64_t)new_table() >> 12 << 10 | V;
        table = (uint64_t *)(*entry >> 10 << 12);
    }
    table[va >> (12 + 9 * leaf_level) & 511] = pte;
}

// The entry that an address leads to, for the report.
static uint64_t entry_of(uint64_t va)
{
    uint64_t entry = (satp << 12 >> 2) | V;

    for (unsigned level = levels; level-- > 0 && (entry & (V | R | W | X)) == V;)
        entry = ((const uint64_t *)(entry << 10 >> 20 << 12))[va >> (12 + 9 * level) & 511];
    return entry;
}

static uint64_t high_half(void)
{
    return -(1ull << (12 + 9 * levels - 1));
}

// Permissions of every kind, also reserved ones. A and D are always set: hardware may do either of two things when they are not
// (docs/conformance.md).
static uint64_t random_permissions(void)
{
    static const uint8_t usual[] = {R, R | X, X, R | W | X, R | W, R | W, R | W, R | W, R | W};
    uint64_t pte = V | A | D | usual[below(sizeof usual)];

    if (below(8) < (mostly_user ? 7 : 1))
        pte |= U;
    if (below(4) == 0)
        pte |= G;
    switch (below(24)) {
    case 0:
        pte &= ~(uint64_t)V;
        break;
    case 1:
        pte = (pte & ~(uint64_t)R) | W; // reserved
        break;
    case 2:
        if (IMAGE_HAS_RESERVED_BITS(header->seed))
            pte |= 1ull << (54 + below(7));
        else
            pte |= (uint64_t)(1 + below(2)) << PTE_PBMT_SHIFT; // NC, IO: ordinary here. The oracle takes the reserved 3 too
        break;
    case 3:
        if (!IMAGE_HAS_RESERVED_BITS(header->seed))
            pte |= PTE_N; // reserved but with the right low bits of the address
        break;
    case 4:
        pte &= ~(uint64_t)(R | W | X); // a pointer at the last level
        break;
    default:
        break;
    }
    return pte;
}

static uint64_t random_entry(void)
{
    return random_permissions() | (IMAGE_DATA + below(IMAGE_DATA_SIZE / PAGE) * PAGE) >> 2;
}

// The last two pages sometimes lead to where nothing is: access faults. They are readable and writable, as the oracle looks for
// memory before it looks whether an AMO may write. No access crosses their border: of one that leaves memory the first part may
// have been stored, and of one that comes to what is not mapped either part may fault first. So a page before them is not mapped,
// and no pointer is near the end of the last one.
static void map_window(uint64_t *root, uint64_t base)
{
    bool absent = below(2);
    uint64_t nothing = V | A | D | R | W | (below(2) ? U : 0) | 0x700000000000ull >> 2;

    for (unsigned i = 0; i < WINDOW_PAGES; i++) {
        uint64_t entry = random_entry();
        if (absent && i >= WINDOW_PAGES - 3)
            entry = i == WINDOW_PAGES - 3 ? 0 : nothing;
        map(root, base + i * PAGE, 0, entry);
    }
}

static void map_windows(uint64_t *root)
{
    map_window(root, LOW_WINDOW);
    map_window(root, high_half() + LOW_WINDOW);
    for (unsigned i = 0; i < 4; i++) { // now and then misaligned: a page fault
        uint64_t misaligned = below(8) == 0 ? PAGE << below(9) : 0;
        map(root, MEGA_WINDOW + i * 0x200000, 1, random_permissions() | (IMAGE_DATA + misaligned) >> 2);
    }
    map(root, GIGA_WINDOW, 2, V | A | D | R | (below(2) ? U : 0) | 0x80000000 >> 2);
    for (unsigned i = 0; i < 16 && !IMAGE_HAS_RESERVED_BITS(header->seed); i++) // the same entry sixteen times, as Svnapot wants it
        map(root, NAPOT_WINDOW + i * PAGE, 0, V | A | D | R | W | U | PTE_N | (IMAGE_DATA + 0x8000) >> 2);
}

static void new_address_space(void)
{
    static const uint8_t modes[] = {8, 9, 10}; // Sv39, Sv48, Sv57
    unsigned mode = below(4);
    uint64_t *root;

    levels = 0;
    satp = 0;
    mostly_user = below(2);
    if (mode == 3)
        return;
    levels = 3 + mode;
    tables_end = (uint64_t *)IMAGE_TABLES;
    root = new_table();
    map(root, IMAGE_RUNTIME, 0, V | A | D | R | X | IMAGE_RUNTIME >> 2);
    map(root, (uint64_t)&page, 0, V | A | D | R | W | (uint64_t)&page >> 2);
    for (uint64_t offset = 0; offset < IMAGE_PROGRAM_SIZE; offset += PAGE) {
        map(root, IMAGE_PROGRAM + offset, 0, V | A | D | R | X | (IMAGE_PROGRAM + offset) >> 2);
        map(root, IMAGE_USER_CODE + offset, 0, V | A | D | R | X | U | (IMAGE_PROGRAM + offset) >> 2);
    }
    map_windows(root);
    satp = (uint64_t)modes[mode] << 60 | (rnd() & 0xffff) << 44 | (uint64_t)root >> 12;
}

// --- registers

// Somewhere in the data, often near a page's end.
static uint64_t random_offset(bool aligned)
{
    uint64_t offset = below(2) ? PAGE - below(24) : below(PAGE);

    return aligned && below(8) ? offset & ~7ull : offset;
}

static uint64_t random_pointer(bool aligned)
{
    unsigned n = below(16);

    if (levels == 0) // all immediates must stay inside
        return IMAGE_DATA + 0x1000 + below(IMAGE_DATA_SIZE / PAGE - 3) * PAGE + random_offset(aligned);
    if (n < 6)
        return LOW_WINDOW + below(WINDOW_PAGES - 1) * PAGE + random_offset(aligned);
    if (n < 11)
        return high_half() + LOW_WINDOW + below(WINDOW_PAGES - 1) * PAGE + random_offset(aligned);
    if (n < 12)
        return MEGA_WINDOW + below(4) * 0x200000 + below(IMAGE_DATA_SIZE / PAGE) * PAGE + random_offset(aligned);
    if (n < 13)
        return GIGA_WINDOW + 0x400000 + below(IMAGE_DATA_SIZE / PAGE - 1) * PAGE + random_offset(aligned);
    if (n < 15)
        return NAPOT_WINDOW + below(IMAGE_DATA_SIZE / PAGE) * PAGE + random_offset(aligned);
    return (1ull << (12 + 9 * levels - 1)) + LOW_WINDOW + random_offset(aligned); // not canonical
}

static uint64_t random_integer(void)
{
    static const uint64_t special[] = {0, 1, 2, 63, 64, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fffffff, 0x80000000, 0xffffffff};

    switch (below(8)) {
    case 0:
        return special[below(sizeof special / sizeof special[0])];
    case 1:
        return -special[below(sizeof special / sizeof special[0])];
    case 2:
        return 1ull << below(64);
    case 3:
        return (1ull << below(64)) - 1;
    case 4:
        return (uint64_t)((int64_t)rnd() >> below(64));
    case 5:
        return 0x8000000000000000;
    default:
        return rnd();
    }
}

static uint64_t random_float(unsigned frac_bits, unsigned exp_bits)
{
    uint64_t frac_mask = (1ull << frac_bits) - 1, exp_mask = (1ull << exp_bits) - 1, bias = exp_mask / 2;
    uint64_t frac = rnd() & frac_mask, exp = rnd() & exp_mask;

    switch (below(8)) {
    case 0:
        frac = 0;
        break;
    case 1:
        frac = frac_mask - below(3);
        break;
    case 2:
        frac = 1ull << below(frac_bits);
        break;
    case 3:
        frac = frac << frac_bits / 2 & frac_mask;
        break;
    default:
        break;
    }
    switch (below(8)) {
    case 0:
        exp = 0;
        break;
    case 1:
        exp = exp_mask - below(2);
        break;
    case 2:
    case 3:
    case 4:
        exp = bias - 4 + below(8);
        break;
    case 5:
        exp = bias - 70 + below(140);
        break;
    default:
        break;
    }
    return (rnd() & 1) << (frac_bits + exp_bits) | exp << frac_bits | frac;
}

static void random_registers(struct context *c)
{
    static const uint8_t pointers[] = IMAGE_POINTERS;

    for (unsigned i = 1; i < 32; i++)
        c->x[i] = random_integer();
    for (unsigned i = 0; i < sizeof pointers; i++)
        c->x[pointers[i]] = random_pointer(i + 2 >= sizeof pointers);
    for (unsigned i = 0; i < 32; i++) {
        unsigned kind = below(16);
        c->f[i] = kind < 7    ? 0xffffffff00000000 | random_float(23, 8)
                  : kind < 15 ? random_float(52, 11)
                              : random_float(23, 8); // no NaN box
    }
    c->fcsr = rnd() & (below(4) ? 0x9f : 0xff);
}

// --- runs

#define SIP_SSIP 2ull
#define SSTATUS_SPIE (1ull << 5)
#define SSTATUS_SPP (1ull << 8)
#define SSTATUS_FS (3ull << 13)
#define SSTATUS_SUM (1ull << 18)
#define SSTATUS_MXR (1ull << 19)
#define SSTATUS_SD (1ull << 63)
#define CAUSE_ILLEGAL 2
#define CAUSE_BREAKPOINT 3
#define CAUSE_LOAD_MISALIGNED 4
#define CAUSE_LOAD_ACCESS 5
#define CAUSE_STORE_ACCESS 7
#define CAUSE_LOAD_PAGE 13
#define CAUSE_STORE_PAGE 15

static bool verbose;
static uint64_t executed, entry_cost; // instructions: of blocks, of entering one that is empty

// FS may be Dirty for more than was written (privileged ISA 3.1.6.6), so only off or not is compared; SD follows from it.
static uint64_t comparable_sstatus(uint64_t sstatus)
{
    return (sstatus & ~(SSTATUS_FS | SSTATUS_SD)) | (sstatus & SSTATUS_FS ? SSTATUS_FS : 0);
}

// What the oracle is known to do otherwise, made as it should be. docs/conformance.md says why.
static void correct_oracle(struct context *c, uint32_t insn)
{
    if (c->scause == CAUSE_BREAKPOINT)
        c->stval = c->pc;
    if (c->scause == CAUSE_ILLEGAL && c->stval == 0)
        c->stval = (insn & 3) == 3 ? insn : insn & 0xffff;
    // An AMO (not LR) raises the exceptions of stores, also where it may not read.
    if ((c->scause == CAUSE_LOAD_MISALIGNED || c->scause == CAUSE_LOAD_ACCESS || c->scause == CAUSE_LOAD_PAGE) &&
        (insn & 0x7f) == 0x2f && insn >> 27 != 2)
        c->scause += 2; // misaligned 4 and 6, access 5 and 7, page 13 and 15
    // It looks for memory before it looks whether an AMO may write: most of the gigapage's window leads to none.
    if (c->scause == CAUSE_STORE_ACCESS && (insn & 0x7f) == 0x2f && levels && !(entry_of(c->stval) & W))
        c->scause = CAUSE_STORE_PAGE;
}

// A misaligned access outside memory may be made in parts, and stval then names one of them (privileged ISA 10.1.9).
static void coarsen(struct context *c)
{
    if (c->scause == CAUSE_LOAD_ACCESS || c->scause == CAUSE_STORE_ACCESS)
        c->stval &= ~7ull;
}

static void record_trap(const struct context *c)
{
    mix(c->scause);
    mix(c->stval);
    mix(c->pc);
    mix(comparable_sstatus(c->sstatus));
    if (verbose) {
        put("trap");
        put_field("cause", c->scause);
        put_field("stval", c->stval);
        put_field("sepc", c->pc);
        put_field("sstatus", comparable_sstatus(c->sstatus));
        put_field("entry", levels ? entry_of(c->stval) : 0);
        put("\n");
    }
}

static void record_end(const struct context *c)
{
    for (unsigned i = 1; i < 32; i++)
        mix(c->x[i]);
    for (unsigned i = 0; i < 32; i++)
        mix(c->f[i]);
    mix(c->fcsr);
    mix(c->sie);
    mix(c->sip);
    if (!verbose)
        return;
    for (unsigned i = 1; i < 32; i++) {
        char name[] = {'x', (char)('0' + i / 10), (char)('0' + i % 10), 0};
        put_field(name, c->x[i]);
        if (i % 4 == 3)
            put("\n");
    }
    for (unsigned i = 0; i < 32; i++) {
        char name[] = {'f', (char)('0' + i / 10), (char)('0' + i % 10), 0};
        put_field(name, c->f[i]);
        if (i % 4 == 3)
            put("\n");
    }
    put_field("fcsr", c->fcsr);
    put_field("sie", c->sie);
    put_field("sip", c->sip);
    put_field("hash", hash_state);
    put("\n");
}

static uint64_t instructions(void)
{
    uint64_t n;

    __asm__ volatile("rdinstret %0" : "=r"(n));
    return n;
}

static void prepare(struct context *c, const struct image_block *b)
{
    bool user = b->flags & IMAGE_BLOCK_USER || (!(b->flags & IMAGE_BLOCK_SUPERVISOR) && below(8) < (mostly_user ? 7 : 1));
    uint64_t fs = below(16) == 0 ? 0 : b->flags & IMAGE_BLOCK_FS_KNOWN ? 3 : 1 + below(3);
    uint64_t enabled = rnd() & 0x222, pending = below(4) == 0 ? SIP_SSIP : 0;

    random_registers(c);
    c->scause = below(16);
    c->stval = random_integer();
    c->satp = satp;
    c->address = (uint64_t)c;
    c->pc = (user && levels ? IMAGE_USER_CODE : IMAGE_PROGRAM) + b->offset_bytes;
    c->sstatus =
        fs << 13 | (user ? 0 : SSTATUS_SPP) | (rnd() & (SSTATUS_SPIE | SSTATUS_SUM | SSTATUS_MXR)) | (below(2) ? SSTATUS_SUM : 0);
    // Only software interrupts ever come. No reservation is left from before.
    __asm__ volatile("csrw sie, %0\n csrw sip, %1\n sc.w zero, zero, (%2)"
                     :
                     : "r"(enabled), "r"(pending), "r"(&page.fill[0])
                     : "memory");
}

static unsigned length_at(uint64_t address)
{
    return (*(const uint16_t *)address & 3) == 3 ? 4 : 2;
}

static uint32_t insn_at(uint64_t address)
{
    return *(const uint16_t *)address | (uint32_t)((const uint16_t *)address)[1] << 16;
}

static bool is_lr_or_sc(uint64_t address)
{
    uint32_t insn = insn_at(address);

    return (insn & 0x7f) == 0x2f && insn >> 28 == 1;
}

// Where to go on after a trap at `at`. An SC goes with its LR: whether a failing SC checks its address is left open.
static uint64_t behind(uint64_t at)
{
    bool reserved = is_lr_or_sc(at);

    do
        at += length_at(at);
    while (reserved && is_lr_or_sc(at));
    return at;
}

// Runs a block to its end, over its traps.
static void run_block(struct context *c, const struct image_block *b)
{
    uint64_t start, at, code = IMAGE_PROGRAM + b->offset_bytes;
    bool inside;

    prepare(c, b);
    start = c->pc;
    for (unsigned traps = 0; traps < IMAGE_TRAPS_MAX; traps++) {
        uint64_t before = instructions();
        enter_block(c);
        executed += instructions() - before - entry_cost;
        at = code + (c->pc - start);
        inside = c->pc - start <= b->len_bytes;
        if (header->on_oracle)
            correct_oracle(c, inside ? insn_at(at) : 0);
        coarsen(c);
        record_trap(c);
        if (c->scause >> 63) {
            __asm__ volatile("csrc sip, %0" : : "r"(SIP_SSIP));
            continue;
        }
        if (!inside || c->pc - start == b->len_bytes) // it jumped away, or its end
            break;
        c->pc = start + (behind(at) - code);
    }
    record_end(c);
}

static void hash_data(void)
{
    const uint64_t *data = (const uint64_t *)IMAGE_DATA;

    for (unsigned i = 0; i < IMAGE_DATA_SIZE / 8; i++)
        mix(data[i]);
}

// What enter_block() costs itself, by the instruction counter.
static uint64_t measure_entry(void)
{
    static const uint32_t ebreak __attribute__((aligned(4))) = 0x00100073;
    uint64_t before;

    satp = 0;
    page.c.satp = 0;
    page.c.address = (uint64_t)&page.c;
    page.c.sstatus = SSTATUS_SPP;
    page.c.pc = (uint64_t)&ebreak;
    before = instructions();
    enter_block(&page.c);
    return instructions() - before;
}

static void verbose_run(unsigned run, const struct image_block *b)
{
    put("run");
    put_field("number", run);
    put_field("block", (uint64_t)(b - header->blocks));
    put_field("satp", satp);
    put("\n");
}

static const struct image_block *choose_block(void)
{
    const struct image_block *b;

    do {
        b = &header->blocks[below(header->n_blocks)];
    } while (levels == 0 && b->flags & IMAGE_BLOCK_WILD);
    return b;
}

static void checkpoint(unsigned run)
{
    hash_data();
    put("checkpoint");
    put_field("run", run);
    put_field("hash", hash_state);
    put("\n");
}

void runtime_main(void)
{
    entry_cost = measure_entry();
    random_state = header->seed * 2 + 1;
    __asm__ volatile("csrw scounteren, %0" : : "r"(5)); // cycle and instret in U mode, time not
    for (unsigned i = 0; i < IMAGE_DATA_SIZE / 8; i++)
        ((uint64_t *)IMAGE_DATA)[i] = random_integer();
    for (unsigned run = 0; run < header->n_runs; run++) {
        if (run % 8 == 0)
            new_address_space();
        const struct image_block *b = choose_block();
        verbose = run >= header->verbose_first && run <= header->verbose_last;
        if (verbose)
            verbose_run(run, b);
        run_block(&page.c, b);
        if (verbose)
            checkpoint(run);
        if (run % IMAGE_CHECKPOINT_RUNS == IMAGE_CHECKPOINT_RUNS - 1)
            checkpoint(run);
    }
    put("# instructions"); // only the engine under test counts them
    put_field("executed", executed);
    put("\nend\n");
    sbi(0, 8);
}
