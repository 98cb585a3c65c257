// A block: from guest instructions to host ones. Called with the code's lock held.
#include "machine/engine/rv64/x86_64/translate.h"

// How long the interpreter goes on when floating point is off or rounds otherwise than to nearest.
#define INTERPRET_BLOCKS 16

// The homes of the registers that compilers use most. ra, gp, tp, t0..t6 and the later saved ones are in memory.
static const int8_t homes[32] = {
    [0] = -1,  [1] = -1,   [2] = RBX,  [3] = -1,   [4] = -1,   [5] = -1,   [6] = -1,   [7] = -1,  [8] = RBP, [9] = R12, [10] = R8,
    [11] = R9, [12] = R10, [13] = R11, [14] = RSI, [15] = RDI, [16] = R13, [17] = R14, [18] = -1, [19] = -1, [20] = -1, [21] = -1,
    [22] = -1, [23] = -1,  [24] = -1,  [25] = -1,  [26] = -1,  [27] = -1,  [28] = -1,  [29] = -1, [30] = -1, [31] = -1,
};

int translate_home(unsigned x)
{
    return homes[x];
}

int translate_source(struct translator *t, unsigned x, int scratch)
{
    if (homes[x] >= 0)
        return homes[x];
    if (x == 0)
        x_mov_ri(&t->x, scratch, 0);
    else
        x_rm(&t->x, X_MOV, true, scratch, RSP, VCPU_X(x));
    return scratch;
}

int translate_target(unsigned x)
{
    return homes[x] >= 0 ? homes[x] : RAX;
}

void translate_put(struct translator *t, unsigned x, int host)
{
    if (homes[x] == host || x == 0)
        return;
    if (homes[x] >= 0)
        x_rr(&t->x, X_MOV, true, homes[x], host);
    else
        x_rm(&t->x, X_MOV_TO, true, host, RSP, VCPU_X(x));
}

struct cold *translate_cold(struct translator *t, enum cold_kind kind, uint8_t *site, const struct rv64_insn *insn)
{
    assert(t->n_cold < TRANSLATE_COLD_MAX);
    struct cold *c = &t->cold[t->n_cold++];
    *c = (struct cold){.kind = kind, .site = site, .back = t->x.at, .insn = insn, .pending = t->pending, .fp_ready = t->fp_ready};
    return c;
}

void translate_call(struct x86 *x, const struct rv64_code *c, const uint8_t *thunk)
{
    uint8_t *site = x_call(x);
    x_patch(site, code_written(c, thunk));
}

void translate_jump_to(struct x86 *x, const struct rv64_code *c, const uint8_t *thunk)
{
    uint8_t *site = x_jmp(x);
    x_patch(site, code_written(c, thunk));
}

void translate_jcc_to(struct x86 *x, const struct rv64_code *c, unsigned cc, const uint8_t *thunk)
{
    uint8_t *site = x_jcc(x, cc);
    x_patch(site, code_written(c, thunk));
}

// --- Counting and looking up

static void count(struct x86 *x, unsigned n)
{
    if (n == 0)
        return;
    x_opcode(x, X_PADDQ, false, 15, 0, RSP, false);
    x_modrm(x, 15, RSP, VCPU(counts) + 16 * (int32_t)n);
}

void translate_count(struct translator *t)
{
    count(&t->x, t->pending);
    t->pending = 0;
}

static void poll(struct translator *t, const struct rv64_insn *insn)
{
    x_mi(&t->x, G_CMP, false, RSP, VCPU(attention), 0);
    uint8_t *site = x_jcc(&t->x, CC_NE);
    translate_cold(t, COLD_POLL, site, insn);
}

void translate_poll_behind(struct translator *t, const struct rv64_insn *insn)
{
    x_mi(&t->x, G_CMP, false, RSP, VCPU(attention), 0);
    uint8_t *site = x_jcc(&t->x, CC_NE);
    translate_cold(t, COLD_POLL_BEHIND, site, insn);
}

// --- The interpreter's help

static void call_step(struct translator *t, const struct rv64_insn *insn)
{
    struct rv64_insn *note = code_note(t->code, sizeof(*note));
    if (!note) {
        t->no_room = true;
        return;
    }
    *note = *insn;
    x_mov_ri(&t->x, RDX, (int64_t)(uintptr_t)note);
    x_mov_ri(&t->x, RAX, insn->offset);
    translate_call(&t->x, t->code, t->code->thunks.step);
}

void translate_step(struct translator *t, const struct rv64_insn *insn)
{
    translate_count(t);
    call_step(t, insn);
    t->fp_ready = false;
    t->boxed = 0;
}

// --- Ends of blocks

// Distances of jumps are patched while others execute them, so they must not straddle a cache line.
static void align_site(struct translator *t, unsigned opcode_bytes)
{
    while (((uintptr_t)(t->x.at + opcode_bytes) & 63) > 60)
        x_byte(&t->x, 0x90);
}

// To an offset that may lie outside the page.
static void jump_out(struct translator *t, int64_t offset)
{
    x_rm(&t->x, X_MOV, true, RAX, RSP, VCPU(page));
    if (offset >= INT32_MIN && offset <= INT32_MAX) {
        x_ri(&t->x, G_ADD, true, RAX, (int32_t)offset);
    } else {
        x_mov_ri(&t->x, RCX, offset);
        x_rr(&t->x, X_ADD, true, RAX, RCX);
    }
    thunk_jump(&t->x, t->code->thunks.miss, t->code);
}

// What may be jumped to directly. Not the last halfword: an instruction there may go on in the next page.
static bool in_page(int64_t offset)
{
    return offset >= 0 && offset < (int64_t)RV64_PAGE_BYTES - 2;
}

// A block that crosses the page's end is not thrown away with the page's, so it may not rely on them.
static bool may_link(const struct translator *t, int64_t offset)
{
    return in_page(offset) && !(t->priv & CODE_CROSSING);
}

// Back to its own beginning. The version without spans goes to the one with them, as by then they may lie in one page.
static bool loops(const struct translator *t, int64_t offset)
{
    return offset == t->start && t->code->chain && !(t->priv & CODE_PLAIN);
}

// All instructions are counted.
static void jump_direct(struct translator *t, int64_t offset)
{
    if (!may_link(t, offset)) {
        jump_out(t, offset);
        return;
    }
    if (loops(t, offset)) {
        uint8_t *site = x_jmp(&t->x);
        x_patch(site, t->body);
        return;
    }
    align_site(t, 1);
    uint8_t *site = x_jmp(&t->x);
    translate_cold(t, COLD_LINK, site, NULL)->target = (uint32_t)offset;
}

static unsigned length_of(const struct rv64_insn *insn)
{
    return rv64_length(insn->raw);
}

static void link_register(struct translator *t, const struct rv64_insn *insn)
{
    if (insn->rd == 0)
        return;
    int d = translate_home(insn->rd) >= 0 ? translate_home(insn->rd) : RCX;
    x_rm(&t->x, X_MOV, true, d, RSP, VCPU(page));
    x_ri(&t->x, G_ADD, true, d, (int32_t)(insn->offset + length_of(insn)));
    translate_put(t, insn->rd, d);
}

static void translate_jal(struct translator *t, const struct rv64_insn *insn)
{
    int64_t target = (int64_t)insn->offset + insn->imm;
    if (target <= insn->offset || !in_page(target))
        poll(t, insn);
    t->pending++;
    translate_count(t);
    link_register(t, insn);
    jump_direct(t, target);
    t->ended = true;
}

static void translate_jalr(struct translator *t, const struct rv64_insn *insn)
{
    poll(t, insn);
    t->pending++;
    translate_count(t);
    int s = translate_source(t, insn->rs1, RAX);
    if (insn->imm != 0)
        x_rm(&t->x, X_LEA, true, RAX, s, insn->imm);
    else if (s != RAX)
        x_rr(&t->x, X_MOV, true, RAX, s);
    link_register(t, insn);
    thunk_jump(&t->x, t->code->thunks.miss, t->code);
    t->ended = true;
}

static unsigned swapped(unsigned cc) // the condition with the operands exchanged
{
    static const uint8_t swap[16] = {[CC_B] = CC_A,   [CC_A] = CC_B, [CC_AE] = CC_BE, [CC_BE] = CC_AE, [CC_E] = CC_E,
                                     [CC_NE] = CC_NE, [CC_L] = CC_G, [CC_G] = CC_L,   [CC_GE] = CC_LE, [CC_LE] = CC_GE};
    return swap[cc];
}

// Compares rs1 with rs2; returns the condition to use.
static unsigned compare(struct translator *t, unsigned rs1, unsigned rs2, unsigned cc)
{
    if (rs1 == 0 && rs2 != 0) {
        rs1 = rs2;
        rs2 = 0;
        cc = swapped(cc);
    }
    int a = translate_home(rs1), b = translate_home(rs2);
    if (rs2 == 0 && a >= 0)
        x_rr(&t->x, X_TEST, true, a, a);
    else if (rs2 == 0 && rs1 != 0)
        x_mi(&t->x, G_CMP, true, RSP, VCPU_X(rs1), 0);
    else if (a < 0 && b >= 0)
        x_rm(&t->x, X_CMP_TO, true, b, RSP, VCPU_X(rs1));
    else {
        a = translate_source(t, rs1, RAX);
        if (b >= 0 || rs2 == 0)
            x_rr(&t->x, X_CMP, true, a, rs2 == 0 ? a : b);
        else
            x_rm(&t->x, X_CMP, true, a, RSP, VCPU_X(rs2));
    }
    return cc;
}

// Where to when the condition holds; what stands behind it here is for when it does not.
static void branch_to(struct translator *t, unsigned cc, int64_t target)
{
    if (may_link(t, target)) {
        align_site(t, 2);
        uint8_t *site = x_jcc(&t->x, cc);
        if (loops(t, target))
            x_patch(site, t->body);
        else
            translate_cold(t, COLD_LINK, site, NULL)->target = (uint32_t)target;
    } else {
        uint8_t *over = x_jcc8(&t->x, cc ^ 1);
        jump_out(t, target);
        x_patch8(&t->x, over);
    }
}

static void translate_branch(struct translator *t, const struct rv64_insn *insn, unsigned cc)
{
    int64_t target = (int64_t)insn->offset + insn->imm;
    if (translate_goes_round(t, insn)) { // the loop's next round stands behind it
        t->pending++;
        translate_count(t);
        cc = compare(t, insn->rs1, insn->rs2, cc);
        branch_to(t, cc ^ 1, insn->offset + length_of(insn));
        return;
    }
    if (target <= insn->offset || !in_page(target))
        poll(t, insn);
    t->pending++;
    translate_count(t);
    cc = compare(t, insn->rs1, insn->rs2, cc);
    branch_to(t, cc, target);
}

static bool translate_control(struct translator *t, const struct rv64_insn *insn)
{
    switch (insn->op) {
    case RV64_OP_jal:
        translate_jal(t, insn);
        return true;
    case RV64_OP_jalr:
        translate_jalr(t, insn);
        return true;
    case RV64_OP_beq:
        translate_branch(t, insn, CC_E);
        return true;
    case RV64_OP_bne:
        translate_branch(t, insn, CC_NE);
        return true;
    case RV64_OP_blt:
        translate_branch(t, insn, CC_L);
        return true;
    case RV64_OP_bge:
        translate_branch(t, insn, CC_GE);
        return true;
    case RV64_OP_bltu:
        translate_branch(t, insn, CC_B);
        return true;
    case RV64_OP_bgeu:
        translate_branch(t, insn, CC_AE);
        return true;
    default:
        return false;
    }
}

void translate_hold_nothing(struct translator *t)
{
    t->held[0] = t->held[1] = SPAN_NONE;
}

static bool at_home(unsigned x)
{
    return x == 0 || homes[x] >= 0;
}

// Whether its code, where control goes on behind it, uses no scratch register.
static bool keeps_scratch(const struct rv64_insn *insn)
{
    if (insn->op == RV64_OP_addi)
        return insn->rd != 0 && at_home(insn->rd) && insn->rs1 != 0 && at_home(insn->rs1);
    if (insn->op >= RV64_OPS || !(rv64_insn_table[insn->op].properties & RV64_P_BRANCH))
        return false;
    return insn->rs1 != 0 && at_home(insn->rs1) && at_home(insn->rs2);
}

static void translate_insn(struct translator *t, const struct rv64_insn *insn)
{
    bool is_access = translate_memory(t, insn);
    if (!is_access && !keeps_scratch(insn))
        translate_hold_nothing(t);
    if (translate_control(t, insn) || translate_system(t, insn))
        return; // which count it
    if (!is_access && !translate_integer(t, insn) && !translate_float(t, insn)) {
        translate_step(t, insn); // which counts it
        return;
    }
    t->pending++;
}

// --- Out of line

static void call_link(struct translator *t, const uint8_t *thunk, const uint8_t *site, uint32_t target)
{
    translate_call(&t->x, t->code, thunk);
    struct code_jump jump = {.target = (uint16_t)target, .site = (uint16_t)(t->x.at - site)};
    memcpy(t->x.at, &jump, sizeof(jump));
    t->x.at += sizeof(jump);
}

static void cold_poll(struct translator *t, const struct cold *c, bool behind)
{
    unsigned offset = c->insn->offset + (behind ? length_of(c->insn) : 0);
    x_mov_ri(&t->x, RDX, (int64_t)(offset | (c->pending + behind) << 16));
    translate_jump_to(&t->x, t->code, t->code->thunks.leave_counting);
}

static void go_back(struct translator *t, const struct cold *c)
{
    uint8_t *site = x_jmp(&t->x);
    x_patch(site, c->back);
}

// The instruction counts itself, which the block would do once more: so one less. Where the block relies on what it knows of
// floating-point registers control does not come back to it.
static void cold_step(struct translator *t, const struct cold *c)
{
    count(&t->x, c->pending);
    call_step(t, c->insn);
    if (c->fp_ready) {
        x_rm(&t->x, X_MOV, true, RAX, RSP, VCPU(page));
        x_ri(&t->x, G_ADD, true, RAX, (int32_t)(c->insn->offset + length_of(c->insn)));
        translate_jump_to(&t->x, t->code, t->code->thunks.jump);
        return;
    }
    x_opcode(&t->x, 0x660ffb, false, 15, 0, RSP, false); // psubq
    x_modrm(&t->x, 15, RSP, VCPU(counts) + 16 * (int32_t)(c->pending + 1));
    go_back(t, c);
}

static void cold_fp(struct translator *t, const struct cold *c)
{
    translate_call(&t->x, t->code, t->code->thunks.fp_load);
    uint8_t *loaded = x_jcc(&t->x, CC_NE);
    x_patch(loaded, c->back);
    count(&t->x, c->pending);
    x_rm(&t->x, X_MOV, true, RAX, RSP, VCPU(page));
    x_ri(&t->x, G_ADD, true, RAX, (int32_t)c->insn->offset);
    x_mov_mi(&t->x, false, RSP, VCPU(interpret_blocks), INTERPRET_BLOCKS);
    translate_jump_to(&t->x, t->code, t->code->thunks.leave_at);
}

static void cold_nan(struct translator *t, const struct cold *c)
{
    // The register is a double, or a single below 16.
    bool single = c->target;
    x_mov_ri(&t->x, RAX, single ? (int64_t)0xffffffff7fc00000ull : 0x7ff8000000000000ll);
    x_rr(&t->x, X_MOVQ_TO_X, true, c->reg, RAX);
    go_back(t, c);
}

// On in the other version of the block.
static void cold_plain(struct translator *t, const struct cold *c)
{
    count(&t->x, c->pending);
    align_site(t, 1);
    uint8_t *site = x_jmp(&t->x);
    x_patch(site, t->x.at);
    call_link(t, t->code->thunks.link_plain, site, c->insn->offset);
}

static void cold_hot(struct translator *t)
{
    translate_call(&t->x, t->code, t->code->thunks.hot);
    x_byte(&t->x, t->start & 0xff);
    x_byte(&t->x, t->start >> 8);
}

static void emit_cold(struct translator *t, const struct cold *c)
{
    x_patch(c->site, t->x.at);
    switch (c->kind) {
    case COLD_LINK:
        call_link(t, t->code->thunks.link, c->site, c->target);
        break;
    case COLD_POLL:
    case COLD_POLL_BEHIND:
        cold_poll(t, c, c->kind == COLD_POLL_BEHIND);
        break;
    case COLD_ACCESS:
        translate_slow_access(t, c);
        go_back(t, c);
        break;
    case COLD_PREDICT:
        translate_search(t, c);
        go_back(t, c);
        break;
    case COLD_SPAN:
        translate_slow_span(t, c);
        cold_plain(t, c);
        break;
    case COLD_STEP:
        cold_step(t, c);
        break;
    case COLD_FP:
        cold_fp(t, c);
        break;
    case COLD_NAN:
        cold_nan(t, c);
        break;
    case COLD_HOT:
        cold_hot(t);
        break;
    }
}

// --- The block

// Code goes on behind a branch that is not taken, and behind the CSRs that change nothing of consequence (run_step() tells).
#define BRANCHES_MAX 2

static bool ends_block(const struct rv64_insn *insn, unsigned *branches)
{
    if (insn->op >= RV64_OPS)
        return true;
    uint32_t properties = rv64_insn_table[insn->op].properties;
    if (properties & RV64_P_BRANCH)
        return ++*branches == BRANCHES_MAX;
    return properties & (RV64_P_JUMP | RV64_P_JUMP_REGISTER | RV64_P_SYSTEM) && !(properties & RV64_P_CSR);
}

static uint32_t read_half(const uint8_t *guest)
{
    return *(const volatile uint16_t *)(const void *)guest;
}

// Decodes up to the block's end. What crosses the page's end is left for another time.
static unsigned decode(const uint8_t *guest, struct rv64_insn *insns, unsigned *bytes)
{
    uint32_t start = (uint32_t)((uintptr_t)guest & (RV64_PAGE_BYTES - 1)), offset = start;
    unsigned n = 0, branches = 0;
    while (n < TRANSLATE_INSNS_MAX && offset < RV64_PAGE_BYTES) {
        const uint8_t *at = guest + (offset - start);
        uint32_t raw = read_half(at);
        unsigned length = rv64_length(raw);
        if (offset + length > RV64_PAGE_BYTES)
            break;
        if (length == 4)
            raw |= read_half(at + 2) << 16;
        rv64_decode(raw, &insns[n]);
        insns[n].offset = (uint16_t)offset;
        offset += length;
        if (ends_block(&insns[n++], &branches))
            break;
    }
    *bytes = offset - start;
    return n;
}

// A small loop stands in its block several times over, so that accesses of several rounds can share a look at the translation
// cache. insns has room for TRANSLATE_INSNS_MAX; returns how many there are then, *n_round: how many a round has, 0: no loop.
#define ROUNDS_MAX 4

static unsigned unroll(struct rv64_insn *insns, unsigned n, unsigned *n_round)
{
    unsigned length = 0;
    for (unsigned i = 0; i < n && length == 0; i++)
        if (insns[i].op < RV64_OPS && rv64_insn_table[insns[i].op].properties & RV64_P_BRANCH &&
            (int64_t)insns[i].offset + insns[i].imm == insns[0].offset)
            length = i + 1;
    *n_round = 0;
    unsigned rounds = length ? TRANSLATE_INSNS_MAX / length : 0;
    if (rounds < 2)
        return n;
    if (rounds > ROUNDS_MAX)
        rounds = ROUNDS_MAX;
    for (unsigned i = 1; i < rounds; i++)
        memcpy(&insns[i * length], insns, length * sizeof(*insns));
    *n_round = length;
    return rounds * length;
}

bool translate_goes_round(const struct translator *t, const struct rv64_insn *insn)
{
    unsigned i = (unsigned)(insn - t->insns) + 1;
    return t->n_round && i % t->n_round == 0 && i < t->n_insns;
}

static void copy_insns(uint8_t *to, const struct rv64_insn *insns, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        memcpy(to, &insns[i].raw, 2);
        if (rv64_length(insns[i].raw) == 4)
            memcpy(to + 2, (const uint8_t *)&insns[i].raw + 2, 2);
        to += rv64_length(insns[i].raw);
    }
}

// A small block is translated anew when it has run so often. What harts race for there loses nothing.
#define HEAT 4096
#define HEAT_OF_AUDIT 16

bool translate_is_small(const struct translator *t)
{
    return t->priv & (CODE_SMALL | CODE_PLAIN | CODE_CROSSING);
}

static void count_heat(struct translator *t)
{
    t->block->heat = t->code->chain ? HEAT : HEAT_OF_AUDIT;
    x_byte(&t->x, 0x66); // dec word [rip + distance]
    x_byte(&t->x, 0xff);
    x_byte(&t->x, 0x0d);
    const uint8_t *end = code_executed(t->code, t->x.at + 4);
    x_dword(&t->x, (uint32_t)((const uint8_t *)&t->block->heat - end));
    uint8_t *site = x_jcc(&t->x, CC_E);
    translate_cold(t, COLD_HOT, site, NULL);
}

static void emit(struct translator *t, uint32_t end)
{
    x_ri(&t->x, G_AND, true, RAX, -(int32_t)RV64_PAGE_BYTES);
    x_rm(&t->x, X_MOV_TO, true, RAX, RSP, VCPU(page));
    t->body = t->x.at;
    if (t->priv & CODE_SMALL)
        count_heat(t);
    for (unsigned i = 0; i < t->n_insns; i++) {
        t->starts[i] = t->x.at;
        translate_insn(t, &t->insns[i]);
    }
    if (!t->ended) {
        translate_count(t);
        jump_direct(t, end);
    }
    t->starts[t->n_insns] = t->x.at;
    for (unsigned i = 0; i < t->n_cold; i++)
        emit_cold(t, &t->cold[i]);
}

static uint32_t note_starts(const struct translator *t, const uint8_t *entry)
{
    uint16_t *starts = code_note(t->code, (t->n_insns + 1) * sizeof(*starts));
    if (!starts)
        return 0;
    for (unsigned i = 0; i <= t->n_insns; i++)
        starts[i] = (uint16_t)(t->starts[i] - entry);
    return code_note_of(t->code, starts);
}

static struct code_block *make(struct rv64_code *c, struct code_page *page, const uint8_t *guest, const struct rv64_insn *insns,
                               unsigned n, unsigned n_round, unsigned bytes, unsigned priv)
{
    struct code_block *b = code_note(c, offsetof(struct code_block, copy) + bytes);
    if (!b || c->used + TRANSLATE_BYTES_MAX > c->bytes)
        return NULL;
    copy_insns(b->copy, insns, n_round ? n_round : n);

    // Too large to be cleared each time: the arrays are only as good as their counts.
    struct translator t;
    t.code = c;
    t.block = b;
    t.insns = insns;
    t.n_insns = n;
    t.n_round = n_round;
    t.priv = priv;
    t.start = insns[0].offset;
    t.pending = t.n_spans = t.n_cold = 0;
    t.boxed = 0;
    t.ended = t.fp_ready = t.no_room = false;
    translate_hold_nothing(&t);
    if (priv & (CODE_PLAIN | CODE_CROSSING))
        memset(t.span_of, SPAN_NONE, sizeof(t.span_of));
    else
        translate_find_spans(&t);
    t.x.at = c->write + c->used;
    uint8_t *start = t.x.at;
    emit(&t, t.start + bytes);
    assert(t.x.at <= c->write + c->used + TRANSLATE_BYTES_MAX);
    if (t.no_room)
        return NULL;
    b->guest = guest;
    b->guest_halves = (uint8_t)(bytes / 2);
    b->n_insns = (uint8_t)n;
    b->priv = (uint8_t)priv;
    b->entry = (uint32_t)(start - c->write);
    b->body = (uint8_t)(t.body - start);
    b->code_bytes = (uint16_t)(t.x.at - start);
    b->starts = c->chain ? 0 : note_starts(&t, start);
    size_t align = translate_is_small(&t) ? 4 : 16;
    c->used = ((size_t)(t.x.at - c->write) + align - 1) & ~(align - 1);
    code_add(c, page, b);
    return b;
}

struct code_block *translate(struct rv64_code *c, struct code_page *page, const uint8_t *guest, unsigned priv)
{
    struct rv64_insn decoded[TRANSLATE_INSNS_MAX];
    unsigned bytes, n = decode(guest, decoded, &bytes), n_round = 0;
    if (!(priv & (CODE_PLAIN | CODE_SMALL)) && c->chain)
        n = unroll(decoded, n, &n_round);
    if (n_round)
        bytes = decoded[n_round - 1].offset + length_of(&decoded[n_round - 1]) - decoded[0].offset;
    return make(c, page, guest, decoded, n, n_round, bytes, priv);
}

struct code_block *translate_crossing(struct rv64_code *c, const uint8_t *guest, uint32_t raw, unsigned priv)
{
    struct rv64_insn insn;
    rv64_decode(raw, &insn);
    insn.offset = RV64_PAGE_BYTES - 2;
    return make(c, NULL, guest, &insn, 1, 0, 4, priv | CODE_CROSSING);
}
