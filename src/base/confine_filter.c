// Lists of calls as programs for seccomp (seccomp(2), Documentation/userspace-api/seccomp_filter.rst): see confine.h.
#include "base/confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCH AUDIT_ARCH_RISCV64
#else
// cppcheck-suppress preprocessorErrorDirective
#error "confine_filter.c: the audit architecture of this host is not known"
#endif
#define X32_BIT 0x40000000u // calls of the x32 ABI come with the same architecture

struct assembler {
    struct sock_filter *out;
    size_t n, room;
};

static void emit(struct assembler *a, uint16_t code, uint32_t k, uint8_t jump_true, uint8_t jump_false)
{
    if (a->n < a->room)
        a->out[a->n] = (struct sock_filter){.code = code, .k = k, .jt = jump_true, .jf = jump_false};
    a->n++;
}

static void load(struct assembler *a, size_t offset)
{
    emit(a, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

// A classic program has 32 bits: each argument is two words, the low one first on all of the hosts above.
#define INSNS_A_WORD 3

// Goes on if (word & mask) == value, else `rest` words and one more instruction further.
static void test_word(struct assembler *a, size_t offset, uint32_t mask, uint32_t value, unsigned rest)
{
    load(a, offset);
    emit(a, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
    emit(a, BPF_JMP | BPF_JEQ | BPF_K, value, 0, (uint8_t)(rest * INSNS_A_WORD + 1));
}

static void put_rule(struct assembler *a, const struct confine_rule *rule, uint32_t self)
{
    const unsigned words = rule->n_tests * 2u;
    load(a, offsetof(struct seccomp_data, nr));
    emit(a, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)rule->call, 0, (uint8_t)(words * INSNS_A_WORD + 1));
    for (unsigned i = 0; i < rule->n_tests; i++) {
        const struct confine_test *t = &rule->tests[i];
        const size_t at = offsetof(struct seccomp_data, args) + sizeof(uint64_t) * t->arg;
        const uint64_t value = t->is_self ? self : t->value;
        test_word(a, at, (uint32_t)t->mask, (uint32_t)value, words - 2 * i - 1);
        test_word(a, at + 4, (uint32_t)(t->mask >> 32), (uint32_t)(value >> 32), words - 2 * i - 2);
    }
    emit(a, BPF_RET | BPF_K, rule->refuse ? SECCOMP_RET_ERRNO | (uint32_t)rule->refuse : SECCOMP_RET_ALLOW, 0, 0);
}

int confine_assemble(const struct confine_list *list, uint32_t self, struct sock_filter *out, size_t room)
{
    struct assembler a = {.out = out, .room = room};
    load(&a, offsetof(struct seccomp_data, arch));
    emit(&a, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    emit(&a, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
    load(&a, offsetof(struct seccomp_data, nr));
    emit(&a, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
    emit(&a, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
    for (size_t i = 0; i < list->n; i++)
        put_rule(&a, &list->rules[i], self);
    emit(&a, BPF_RET | BPF_K, SECCOMP_RET_TRAP, 0, 0); // to confine.c's handler, which tells and ends
    return a.n > a.room ? -E2BIG : (int)a.n;
}
