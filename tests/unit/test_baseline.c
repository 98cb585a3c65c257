// Levels of a processor's features: what is in a level is shown, nothing else is, and a host with less is refused by name.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "machine/engine/kvm/baseline.h"

#define ENTRIES_MAX 32

struct fixture {
    struct kvm_cpuid2 *cpuid, *other;
    struct tv_error err;
};

static struct kvm_cpuid_entry2 *leaf(struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return &cpuid->entries[i];
    fail_msg("no leaf 0x%x.%u", function, index);
    return NULL;
}

static void add(struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    assert_true(cpuid->nent < ENTRIES_MAX);
    const bool has_index = function == 4 || function == 7 || function == 0xd || function == 0x14;
    cpuid->entries[cpuid->nent++] = (struct kvm_cpuid_entry2){.function = function,
                                                              .index = index,
                                                              .flags = has_index ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
                                                              .eax = eax,
                                                              .ebx = ebx,
                                                              .ecx = ecx,
                                                              .edx = edx};
}

// A processor that has every feature there is a bit for.
static struct kvm_cpuid2 *make(void)
{
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + ENTRIES_MAX * sizeof(cpuid->entries[0]));
    add(cpuid, 0, 0, 0x20, 0x756e6547, 0x6c65746e, 0x49656e69);
    add(cpuid, 1, 0, 0x806f8, 0x00100800, ~0u, ~0u);
    add(cpuid, 4, 0, 0x1c004121, 0x2c0003f, 0x3f, 0);
    add(cpuid, 6, 0, ~0u, 2, 9, 0);
    add(cpuid, 7, 0, 2, ~0u, ~0u, ~0u);
    add(cpuid, 7, 1, ~0u, ~0u, ~0u, ~0u);
    add(cpuid, 7, 2, 0, 0, 0, ~0u);
    add(cpuid, 0xd, 0, 0x602e7, 2696, 11008, 0);
    add(cpuid, 0xd, 1, 0x1f, 2696, 0x1900, 0);
    add(cpuid, 0xd, 2, 256, 576, 0, 0);
    add(cpuid, 0xd, 5, 64, 1088, 0, 0);
    add(cpuid, 0xd, 6, 512, 1152, 0, 0);
    add(cpuid, 0xd, 7, 1024, 1664, 0, 0);
    add(cpuid, 0xd, 9, 8, 2688, 0, 0);
    add(cpuid, 0xd, 18, 8192, 2816, 6, 0);
    add(cpuid, 0x14, 0, 1, 0x5f, 7, 0);
    add(cpuid, 0x1d, 0, 1, 0, 0, 0);
    add(cpuid, 0x80000001, 0, 0, 0, ~0u, ~0u);
    add(cpuid, 0x80000007, 0, 0, 0, 0, 0x100);
    add(cpuid, 0x80000008, 0, 0x3934, ~0u, 0, 0);
    return cpuid;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->cpuid = make();
    f->other = make();
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    free(f->cpuid);
    free(f->other);
    free(f);
    return 0;
}

static void apply(struct fixture *f, const char *cpu)
{
    if (kvm_baseline_apply(f->cpuid, cpu, &f->err) != 0)
        fail_msg("%s", f->err.text);
}

static void test_host_is_all_of_it(void **state)
{
    struct fixture *f = *state;
    apply(f, "host");
    assert_memory_equal(f->cpuid, f->other, sizeof(*f->cpuid) + f->cpuid->nent * sizeof(f->cpuid->entries[0]));
}

// The words are written out: what a level is does not change unless somebody means it to.
static void test_level_2(void **state)
{
    struct fixture *f = *state;
    apply(f, "x86-64-v2");
    assert_int_equal(leaf(f->cpuid, 1, 0)->ecx, 0x89b82201); // bit 27 is the guest's own
    assert_int_equal(leaf(f->cpuid, 1, 0)->edx, 0x178bfbf9);
    assert_int_equal(leaf(f->cpuid, 7, 0)->ebx, 0);
    assert_int_equal(leaf(f->cpuid, 7, 0)->ecx, 0);
    assert_int_equal(leaf(f->cpuid, 7, 1)->eax, 0);
    assert_int_equal(leaf(f->cpuid, 0x80000001, 0)->ecx & ~(1u << 1 | 1u << 4 | 1u << 22), 1);
    assert_int_equal(leaf(f->cpuid, 0x80000001, 0)->edx, 0x2993fbff);
    assert_int_equal(leaf(f->cpuid, 0x80000007, 0)->edx, 0);
    assert_int_equal(leaf(f->cpuid, 0xd, 0)->eax, 0);
    assert_int_equal(leaf(f->cpuid, 0xd, 2)->eax, 0);
}

static void test_level_3(void **state)
{
    struct fixture *f = *state;
    apply(f, "x86-64-v3");
    assert_int_equal(leaf(f->cpuid, 1, 0)->ecx, 0x89b82201 | 0x76401002);
    assert_int_equal(leaf(f->cpuid, 7, 0)->ebx, 0x1ab);
    assert_int_equal(leaf(f->cpuid, 0xd, 0)->eax, 7);
    assert_int_equal(leaf(f->cpuid, 0xd, 0)->ebx, 832); // to the end of what AVX has
    assert_int_equal(leaf(f->cpuid, 0xd, 0)->ecx, 832);
    assert_int_equal(leaf(f->cpuid, 0xd, 1)->eax, 1);
    assert_int_equal(leaf(f->cpuid, 0xd, 2)->eax, 256);
    assert_int_equal(leaf(f->cpuid, 0xd, 5)->eax, 0);
}

static void test_level_4(void **state)
{
    struct fixture *f = *state;
    apply(f, "x86-64-v4");
    assert_int_equal(leaf(f->cpuid, 7, 0)->ebx, 0xd19f01ab);
    assert_int_equal(leaf(f->cpuid, 0xd, 0)->eax, 0xe7);
    assert_int_equal(leaf(f->cpuid, 0xd, 0)->ecx, 2688);
    assert_int_equal(leaf(f->cpuid, 0xd, 1)->eax, 7);
    assert_int_equal(leaf(f->cpuid, 0xd, 9)->eax, 0); // protection keys
    assert_int_equal(leaf(f->cpuid, 0xd, 18)->eax, 0);
    assert_int_equal(leaf(f->cpuid, 0x14, 0)->ebx, 0);
    assert_int_equal(leaf(f->cpuid, 0x1d, 0)->eax, 0);
}

// What keeps a guest's secrets from others on its processor is there at each level; who it is and its caches as well.
static void test_guards_and_identity_stay(void **state)
{
    struct fixture *f = *state;
    apply(f, "x86-64-v2");
    assert_int_equal(leaf(f->cpuid, 7, 0)->edx & (1u << 26 | 1u << 27 | 1u << 29 | 1u << 31), 0xac000000);
    assert_int_equal(leaf(f->cpuid, 0x80000008, 0)->ebx & 1u << 12, 1u << 12);
    assert_int_equal(leaf(f->cpuid, 0x80000008, 0)->eax, 0x3934);
    assert_int_equal(leaf(f->cpuid, 1, 0)->eax, 0x806f8);
    assert_int_equal(leaf(f->cpuid, 4, 0)->eax, 0x1c004121);
}

static void refused(struct fixture *f, const char *cpu, int code, const char *message)
{
    assert_int_equal(kvm_baseline_apply(f->cpuid, cpu, &f->err), code);
    assert_string_equal(f->err.text, message);
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    refused(f, "x86-64-v5", -EINVAL, "kvm: cpu 'x86-64-v5' is not known; there are 'host', 'x86-64-v2', 'x86-64-v3', 'x86-64-v4'");
    leaf(f->cpuid, 7, 0)->ebx &= ~(1u << 16 | 1u << 31);
    refused(f, "x86-64-v4", -ENOTSUP,
            "kvm: cpu 'x86-64-v4': this host gives its guests no avx512f, avx512vl; take cpu 'x86-64-v3'");
    leaf(f->cpuid, 1, 0)->ecx &= ~(1u << 28);
    refused(f, "x86-64-v3", -ENOTSUP, "kvm: cpu 'x86-64-v3': this host gives its guests no avx; take cpu 'x86-64-v2'");
    leaf(f->cpuid, 1, 0)->ecx = 0;
    assert_int_equal(kvm_baseline_apply(f->cpuid, "x86-64-v2", &f->err), -ENOTSUP);
    assert_non_null(
        strstr(f->err.text, "no pni, ssse3, cx16, sse4_1, sse4_2, x2apic, popcnt, tsc_deadline_timer, hypervisor; take"));
    assert_non_null(strstr(f->err.text, "cpu 'host'"));
    f->cpuid->nent = 0; // all is missing: the message ends where it is full
    assert_int_equal(kvm_baseline_apply(f->cpuid, "x86-64-v4", &f->err), -ENOTSUP);
    assert_non_null(strstr(f->err.text, "..."));
}

static void test_saved_guest_finds_what_it_had(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(kvm_baseline_check(f->other, f->cpuid, &f->err), 0);
    apply(f, "x86-64-v3");
    assert_int_equal(kvm_baseline_check(f->other, f->cpuid, &f->err), 0); // less than there is
    leaf(f->cpuid, 7, 0)->ecx |= 1u << 4;                                 // the guest's own doing, as OSXSAVE is
    leaf(f->other, 7, 0)->ecx &= ~(1u << 4);
    leaf(f->other, 1, 0)->ecx &= ~(1u << 27);
    assert_int_equal(kvm_baseline_check(f->other, f->cpuid, &f->err), 0);
    leaf(f->other, 7, 0)->ebx &= ~(1u << 5);
    leaf(f->other, 0xd, 0)->eax &= ~(1u << 2);
    assert_int_equal(kvm_baseline_check(f->other, f->cpuid, &f->err), -ENOTSUP);
    assert_string_equal(f->err.text,
                        "kvm: its processor had avx2, CPUID 0xd.0 eax bit 2, this one has not; load it on a host like its own");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_host_is_all_of_it),
                                       TEST(test_level_2),
                                       TEST(test_level_3),
                                       TEST(test_level_4),
                                       TEST(test_guards_and_identity_stay),
                                       TEST(test_refused),
                                       TEST(test_saved_guest_finds_what_it_had)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
