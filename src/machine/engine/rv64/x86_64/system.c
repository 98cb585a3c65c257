// System instructions that kernels live on: the CSRs of traps, sstatus, time, ecall from U mode, sret, sfence.vma. The others are
// the interpreter's. What calls C here calls "light" functions (translate.h), so that nothing is saved but what C may change.
#include "machine/engine/rv64/x86_64/translate.h"

enum { CSR_SSTATUS = 0x100, CSR_SSCRATCH = 0x140, CSR_SEPC, CSR_SCAUSE, CSR_STVAL, CSR_TIME = 0xc01 };

// Calls a light function in the middle of a block. What it returns is in rax.
static void call_light(struct translator *t, const void *function)
{
    x_mov_ri(&t->x, RAX, (int64_t)(uintptr_t)function);
    translate_call(&t->x, t->code, t->code->thunks.light);
}

// --- CSRs that are nothing but a place

static int32_t plain_csr(int32_t csr)
{
    switch (csr) {
    case CSR_SSCRATCH:
        return VCPU(sscratch);
    case CSR_SEPC:
        return VCPU(sepc);
    case CSR_SCAUSE:
        return VCPU(scause);
    case CSR_STVAL:
        return VCPU(stval);
    default:
        return 0;
    }
}

struct csr_access {
    enum rv64_csr_op op;
    bool immediate, writes;
};

static bool csr_access_of(const struct rv64_insn *insn, struct csr_access *a)
{
    switch (insn->op) {
    case RV64_OP_csrrw:
    case RV64_OP_csrrwi:
        *a = (struct csr_access){RV64_CSR_WRITE, insn->op == RV64_OP_csrrwi, true};
        return true;
    case RV64_OP_csrrs:
    case RV64_OP_csrrsi:
        *a = (struct csr_access){RV64_CSR_SET, insn->op == RV64_OP_csrrsi, insn->rs1 != 0};
        return true;
    case RV64_OP_csrrc:
    case RV64_OP_csrrci:
        *a = (struct csr_access){RV64_CSR_CLEAR, insn->op == RV64_OP_csrrci, insn->rs1 != 0};
        return true;
    default:
        return false;
    }
}

// The operand into rcx.
static void operand(struct translator *t, const struct rv64_insn *insn, bool immediate)
{
    if (immediate) {
        x_mov_ri(&t->x, RCX, insn->rs1);
        return;
    }
    int s = translate_source(t, insn->rs1, RCX);
    if (s != RCX)
        x_rr(&t->x, X_MOV, true, RCX, s);
}

static void plain_access(struct translator *t, const struct rv64_insn *insn, const struct csr_access *a, int32_t place)
{
    struct x86 *x = &t->x;
    if (a->writes)
        operand(t, insn, a->immediate);
    x_rm(x, X_MOV, true, RAX, RSP, place);
    if (a->writes) {
        if (a->op == RV64_CSR_SET)
            x_rr(x, X_OR, true, RCX, RAX);
        if (a->op == RV64_CSR_CLEAR) {
            x_f7(x, 2, true, RCX);
            x_rr(x, X_AND, true, RCX, RAX);
        }
        if (insn->imm == CSR_SEPC)
            x_ri(x, G_AND, true, RCX, -2);
        x_rm(x, X_MOV_TO, true, RCX, RSP, place);
    }
    translate_put(t, insn->rd, RAX);
}

static void status_access(struct translator *t, const struct rv64_insn *insn, const struct csr_access *a)
{
    static const void *const functions[] = {[RV64_CSR_WRITE] = (const void *)run_status_write,
                                            [RV64_CSR_SET] = (const void *)run_status_set,
                                            [RV64_CSR_CLEAR] = (const void *)run_status_clear};
    if (a->writes) {
        operand(t, insn, a->immediate);
        call_light(t, functions[a->op]);
        x_rm(&t->x, X_MOV, true, R15, RSP, VCPU(context));
        t->fp_ready = false;
        t->boxed = 0;
    } else {
        call_light(t, (const void *)run_status_read);
    }
    translate_put(t, insn->rd, RAX);
    if (a->writes)
        translate_poll_behind(t, insn); // what was just enabled may pend (Privileged ISA 3.1.9)
}

static void csr(struct translator *t, const struct rv64_insn *insn)
{
    struct csr_access a;
    csr_access_of(insn, &a);
    if (insn->imm == CSR_SSTATUS) {
        status_access(t, insn, &a);
    } else if (insn->imm == CSR_TIME) {
        call_light(t, (const void *)run_time);
        translate_put(t, insn->rd, RAX);
    } else {
        plain_access(t, insn, &a, plain_csr(insn->imm));
    }
}

// --- Traps and the way back. None of them falls through; an ecall does not retire (Privileged ISA 3.3.1).

static void leave_by(struct translator *t, const struct rv64_insn *insn, bool retires, const void *function)
{
    t->pending += retires;
    translate_count(t);
    x_rm(&t->x, X_MOV, true, RAX, RSP, VCPU(page));
    x_ri(&t->x, G_ADD, true, RAX, insn->offset);
    x_rm(&t->x, X_MOV_TO, true, RAX, RSP, VCPU(pc));
    call_light(t, function);
    x_rm(&t->x, X_MOV, true, R15, RSP, VCPU(context));
    x_rm(&t->x, X_MOV, true, RAX, RSP, VCPU(pc));
    x_mi(&t->x, G_CMP, false, RSP, VCPU(attention), 0);
    translate_jcc_to(&t->x, t->code, CC_NE, t->code->thunks.leave);
    translate_jump_to(&t->x, t->code, t->code->thunks.jump);
    t->ended = true;
}

static void fence(struct translator *t, const struct rv64_insn *insn)
{
    // Which pages and which ASID; x0 stands for all.
    if (insn->rs2 != 0) {
        int s = translate_source(t, insn->rs2, RDX);
        if (s != RDX)
            x_rr(&t->x, X_MOV, true, RDX, s);
    }
    if (insn->rs1 != 0)
        operand(t, insn, false);
    x_rm(&t->x, X_MOV_TO, true, RCX, RSP, VCPU(access_va));
    x_rm(&t->x, X_MOV_TO, true, RDX, RSP, VCPU(access_value));
    t->pending++;
    translate_count(t);
    static const void *const functions[2][2] = {{(const void *)run_fence_all, (const void *)run_fence_asid},
                                                {(const void *)run_fence_page, (const void *)run_fence_page}};
    call_light(t, functions[insn->rs1 != 0][insn->rs2 != 0]);
    x_rm(&t->x, X_MOV, true, R15, RSP, VCPU(context));
    x_rm(&t->x, X_MOV, true, RAX, RSP, VCPU(page)); // by the table, as the page may be another one now
    x_ri(&t->x, G_ADD, true, RAX, (int32_t)(insn->offset + rv64_length(insn->raw)));
    translate_jump_to(&t->x, t->code, t->code->thunks.jump);
    t->ended = true;
}

bool translate_is_own_system(const struct rv64_insn *insn, unsigned priv)
{
    struct csr_access a;
    switch (insn->op) {
    case RV64_OP_ecall:
        return priv == RV64_U;
    case RV64_OP_sret:
    case RV64_OP_sfence_vma:
    case RV64_OP_sinval_vma:
        return priv == RV64_S;
    default:
        return priv == RV64_S && csr_access_of(insn, &a) &&
               (insn->imm == CSR_SSTATUS || plain_csr(insn->imm) || (insn->imm == CSR_TIME && !a.writes));
    }
}

bool translate_is_time(const struct rv64_insn *insn)
{
    struct csr_access a;
    return csr_access_of(insn, &a) && insn->imm == CSR_TIME;
}

bool translate_system(struct translator *t, const struct rv64_insn *insn)
{
    if (!translate_is_own_system(insn, t->priv & RV64_S))
        return false;
    switch (insn->op) {
    case RV64_OP_ecall:
        leave_by(t, insn, false, (const void *)run_user_call);
        break;
    case RV64_OP_sret:
        leave_by(t, insn, true, (const void *)run_sret);
        break;
    case RV64_OP_sfence_vma:
    case RV64_OP_sinval_vma:
        fence(t, insn);
        break;
    default:
        csr(t, insn);
        t->pending++;
        break;
    }
    return true;
}
