// The engine as a whole: see kvm.h.
#include "machine/engine/kvm/kvm.h"

#include "machine/engine/kvm/host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

// Pages for the kernel's own use on Intel hosts (4.40 and 4.41): below the top of 4 GiB, where nothing else is.
#define IDENTITY_MAP_ADDR 0xfeffc000ull
#define TSS_ADDR 0xfeffd000ull
#define MSI_BASE 0xfee00000ull
#define MSI_BYTES 0x100000ull

static int check_host(const struct engine_config *config, struct tv_error *err)
{
    if (config->kvm_fd < 0)
        return tv_error_set(err, -ENODEV,
                            "kvm: there is no /dev/kvm for this machine; load the host's KVM module, or take engine 'rv64'");
    int rc = kvm_host_check(config->kvm_fd, err);
    if (rc < 0)
        return tv_error_prefix(err, "kvm");
    int max = ioctl(config->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if ((unsigned)max < config->n_vcpus)
        return tv_error_set(err, -ENOTSUP, "kvm: the host's KVM takes %d vcpus, not %u; give the machine fewer", max,
                            config->n_vcpus);
    return 0;
}

int kvm_put_memory(struct kvm_engine *e, unsigned region, uint32_t flags)
{
    const struct guest_region *r = &e->config.mem->regions[region];
    struct kvm_userspace_memory_region slot = {.slot = region,
                                               .flags = flags,
                                               .guest_phys_addr = r->guest_addr,
                                               .memory_size = r->size_bytes,
                                               .userspace_addr = (uintptr_t)r->host};
    return ioctl(e->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0 ? -errno : 0;
}

static int create_vm(struct kvm_engine *e, struct tv_error *err)
{
    uint64_t identity_map = IDENTITY_MAP_ADDR;
    e->vm_fd = ioctl(e->config.kvm_fd, KVM_CREATE_VM, 0);
    if (e->vm_fd < 0)
        return tv_error_set(err, -errno, "kvm: no virtual machine: %s", strerror(errno));
    if (ioctl(e->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 || ioctl(e->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDR) < 0)
        return tv_error_set(err, -errno, "kvm: pages for the kernel's own use: %s", strerror(errno));
    if (ioctl(e->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return tv_error_set(err, -errno, "kvm: no interrupt controllers: %s", strerror(errno));
    for (unsigned i = 0; i < e->config.mem->n_regions; i++) {
        const struct guest_region *r = &e->config.mem->regions[i];
        int rc = kvm_put_memory(e, i, 0);
        if (rc < 0)
            return tv_error_set(err, rc, "kvm: memory at 0x%" PRIx64 ": %s", r->guest_addr, strerror(-rc));
        madvise(r->host, r->size_bytes, MADV_HUGEPAGE); // where the host has them for shared memory
    }
    kvm_dirty_prepare(e);
    int run_bytes = ioctl(e->config.kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    int xsave_bytes = ioctl(e->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    if (run_bytes < (int)sizeof(struct kvm_run))
        return tv_error_set(err, -EINVAL, "kvm: a vcpu shares %d bytes", run_bytes);
    e->has_xcrs = ioctl(e->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) > 0;
    e->run_bytes = (size_t)run_bytes;
    e->xsave_bytes = xsave_bytes > (int)sizeof(struct kvm_xsave) ? (size_t)xsave_bytes : sizeof(struct kvm_xsave);
    return 0;
}

static void destroy(struct engine *engine)
{
    struct kvm_engine *e = kvm_engine_of(engine);
    if (!e)
        return;
    for (unsigned i = 0; i < e->n_vcpus; i++)
        kvm_vcpu_destroy(&e->vcpus[i]);
    kvm_dirty_fini(e);
    if (e->vm_fd >= 0)
        close(e->vm_fd);
    pthread_mutex_destroy(&e->failure_lock);
    pthread_mutex_destroy(&e->dirty.lock);
    pthread_mutex_destroy(&e->routes_lock);
    free(e->initial);
    free(e->cpuid);
    free(e);
}

static int keep_initial(struct kvm_engine *e, struct tv_error *err)
{
    struct state *s = state_create_save();
    if (!s)
        return tv_error_set(err, -ENOMEM, "kvm: no memory");
    kvm_vcpus_state(e, s);
    int rc = state_finish(s, &e->initial, &e->initial_bytes, err);
    state_destroy(s);
    return rc;
}

static int create_parts(struct kvm_engine *e, struct tv_error *err)
{
    int rc = check_host(&e->config, err);
    if (rc == 0)
        rc = kvm_kicks_prepare(err);
    if (rc == 0)
        rc = create_vm(e, err);
    if (rc == 0)
        rc = kvm_cpuid_make(e, err);
    for (unsigned i = 0; rc == 0 && i < e->config.n_vcpus; i++)
        rc = kvm_vcpu_create(e, i, err);
    if (rc == 0)
        rc = kvm_msrs_find(e, err);
    return rc == 0 ? keep_initial(e, err) : rc;
}

static struct engine *create(const struct engine_config *config, struct tv_error *err)
{
    struct kvm_engine *e = calloc(1, sizeof(*e));
    if (!e) {
        tv_error_set(err, -ENOMEM, "kvm: no memory");
        return NULL;
    }
    e->engine.ops = &engine_kvm;
    e->config = *config;
    e->vm_fd = -1;
    pthread_mutex_init(&e->failure_lock, NULL);
    pthread_mutex_init(&e->dirty.lock, NULL);
    pthread_mutex_init(&e->routes_lock, NULL);
    if (create_parts(e, err) < 0) {
        destroy(&e->engine);
        return NULL;
    }
    return &e->engine;
}

static int load_initial(struct kvm_engine *e, struct tv_error *err)
{
    struct state *s = state_create_load(e->initial, e->initial_bytes);
    if (!s)
        return tv_error_set(err, -ENOMEM, "no memory");
    kvm_vcpus_state(e, s);
    int rc = state_finish(s, NULL, NULL, err);
    state_destroy(s);
    return rc;
}

// A flat segment of 4 GiB, as PVH, multiboot and Linux's 32-bit protocol want them.
static struct kvm_segment flat_segment(uint16_t selector, uint8_t type)
{
    return (struct kvm_segment){.selector = selector, .limit = 0xffffffff, .type = type, .present = 1, .s = 1, .db = 1, .g = 1};
}

static int set_start(struct kvm_engine *e, const struct engine_start *start)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = start->entry, .rax = start->magic, .rbx = start->arg, .rsi = start->arg, .rflags = 1u << 1};
    if (ioctl(e->vcpus[0].fd, KVM_GET_SREGS, &sregs) < 0)
        return -errno;
    sregs.cr0 = 1u << 0 | 1u << 4; // PE, ET
    sregs.cr3 = sregs.cr4 = sregs.efer = 0;
    sregs.cs = flat_segment(0x10, 0x0b); // code, readable, accessed; Linux's __BOOT_CS
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat_segment(0x18, 0x03);
    sregs.tr = (struct kvm_segment){.limit = 0x67, .type = 0x0b, .present = 1};
    return ioctl(e->vcpus[0].fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(e->vcpus[0].fd, KVM_SET_REGS, &regs) < 0 ? -errno : 0;
}

static void reset(struct engine *engine, const struct engine_start *start)
{
    struct kvm_engine *e = kvm_engine_of(engine);
    e->failure[0] = 0;
    e->clock_ns = 0;
    struct tv_error err = {0};
    int rc = load_initial(e, &err);
    if (rc == 0 && (rc = set_start(e, start)) < 0)
        tv_error_set(&err, rc, "its registers: %s", strerror(-rc));
    e->is_unusable = rc < 0;
    if (rc < 0)
        kvm_fail(e, "the vcpus cannot be reset: %s", err.text);
}

static int raise_msi(struct engine *engine, uint64_t addr, uint32_t data)
{
    struct kvm_msi msi = {.address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data};
    if ((addr & 0xffffffffull) - MSI_BASE >= MSI_BYTES)
        return -ENXIO;
    return ioctl(kvm_engine_of(engine)->vm_fd, KVM_SIGNAL_MSI, &msi) < 0 ? -ENXIO : 0;
}

static void set_irq(struct engine *engine, unsigned line, bool level)
{
    struct kvm_irq_level irq = {.irq = line, .level = level};
    ioctl(kvm_engine_of(engine)->vm_fd, KVM_IRQ_LINE, &irq); // fails for a line that there is not, and then nobody listens
}

static void clock_start(struct engine *engine)
{
    struct kvm_engine *e = kvm_engine_of(engine);
    struct kvm_clock_data clock = {.clock = e->clock_ns};
    ioctl(e->vm_fd, KVM_SET_CLOCK, &clock);
}

static void clock_stop(struct engine *engine)
{
    struct kvm_engine *e = kvm_engine_of(engine);
    struct kvm_clock_data clock = {0};
    if (ioctl(e->vm_fd, KVM_GET_CLOCK, &clock) == 0)
        e->clock_ns = clock.clock;
    for (unsigned i = 0; i < e->n_vcpus; i++) // so that its watchdog knows; fails as long as the guest has no such clock
        ioctl(e->vcpus[i].fd, KVM_KVMCLOCK_CTRL, 0);
}

static int state(struct engine *engine, struct state *s)
{
    struct kvm_engine *e = kvm_engine_of(engine);
    uint32_t n_vcpus = e->n_vcpus;
    state_section_begin(s, "kvm", 1);
    state_u32(s, "n_vcpus", &n_vcpus);
    if (n_vcpus != e->n_vcpus)
        state_fail(s, "kvm: the state is of %u vcpus, the machine has %u", n_vcpus, e->n_vcpus);
    state_u64(s, "clock_ns", &e->clock_ns);
    kvm_vcpus_state(e, s);
    state_section_end(s);
    return state_failed(s) ? -EINVAL : 0;
}

static void counters(const struct engine *engine, unsigned vcpu, struct engine_counters *out)
{
    struct kvm_engine *e = kvm_engine_of(engine);
    const uint64_t *from = (const uint64_t *)&e->vcpus[vcpu].counters;
    uint64_t *to = (uint64_t *)out;
    for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    if (e->exits_offset && pread(e->vcpus[vcpu].stats_fd, &out->exits, sizeof(out->exits), (off_t)e->exits_offset) < 0)
        out->exits = 0;
}

static void code(const struct engine *engine, struct engine_code *out)
{
    (void)engine;
    *out = (struct engine_code){0};
}

static const char *failure(const struct engine *engine)
{
    return kvm_engine_of(engine)->failure;
}

static int get_registers(const struct engine *engine, unsigned vcpu, uint64_t x[static 32], uint64_t *pc)
{
    struct kvm_regs r;
    if (ioctl(kvm_engine_of(engine)->vcpus[vcpu].fd, KVM_GET_REGS, &r) < 0)
        return -errno;
    const uint64_t values[16] = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
                                 r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
    memset(x, 0, 32 * sizeof(*x));
    memcpy(x, values, sizeof(values));
    *pc = r.rip;
    return 0;
}

static const char *const cause_names[ENGINE_TRAP_CAUSES] = {
    [KVM_CAUSE_PORT_READ] = "port read",   [KVM_CAUSE_PORT_WRITE] = "port write", [KVM_CAUSE_MMIO_READ] = "mmio read",
    [KVM_CAUSE_MMIO_WRITE] = "mmio write", [KVM_CAUSE_SIGNAL] = "signal",         [KVM_CAUSE_OTHER] = "other",
};

const struct engine_ops engine_kvm = {
    .name = "kvm",
    .arch = ENGINE_X86_64,
    .create = create,
    .destroy = destroy,
    .reset = reset,
    .run = kvm_run,
    .kick = kvm_kick,
    .raise_msi = raise_msi,
    .set_irq = set_irq,
    .bind_doorbell = kvm_bind_doorbell,
    .bind_msi = kvm_bind_msi,
    .clock_start = clock_start,
    .clock_stop = clock_stop,
    .state = state,
    .counters = counters,
    .code = code,
    .trap_names = cause_names,
    .failure = failure,
    .get_registers = get_registers,
    .dirty_log = kvm_dirty_log,
};
