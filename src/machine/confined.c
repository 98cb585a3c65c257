// The system calls of a machine's process, each with why it is needed. Derived from traces of the tests' machines (strace -f) and
// cut to the arguments that are used; docs/security.md argues what is left. Lists are asked in order, so what is frequent comes
// first.
#include "machine/confined.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#endif
#define SOCKET_TYPE_MASK 0xf
#define ALL_32 UINT32_MAX
#define ALL_64 UINT64_MAX

// Locks, memory without PROT_EXEC, the host's clock, and to end. `tgkill` only to ourselves: abort(), and confine.c's last words.
#define EVERY_THREAD                                                                                                               \
    CONFINE_ALLOW(futex), CONFINE_ALLOW(sched_yield), CONFINE_ALLOW(gettid), CONFINE_ALLOW(getpid), CONFINE_ALLOW(write),          \
        CONFINE_ALLOW(rt_sigreturn), CONFINE_ALLOW(rt_sigprocmask), CONFINE_ALLOW(clock_gettime), CONFINE_ALLOW(clock_nanosleep),  \
        CONFINE_ALLOW(restart_syscall), CONFINE_IF(mmap, CONFINE_TEST(2, PROT_EXEC, 0)),                                           \
        CONFINE_IF(mprotect, CONFINE_TEST(2, PROT_EXEC, 0)), CONFINE_ALLOW(munmap), CONFINE_ALLOW(brk),                            \
        CONFINE_IF(mremap, CONFINE_TEST(3, ALL_32, MREMAP_MAYMOVE)), CONFINE_IF(madvise, CONFINE_TEST(2, ALL_32, MADV_DONTNEED)),  \
        CONFINE_IF(tgkill, CONFINE_SELF(0)), CONFINE_IF(prctl, CONFINE_TEST(0, ALL_32, PR_GET_NAME)), CONFINE_ALLOW(poll),         \
        CONFINE_ALLOW(ppoll), CONFINE_ALLOW(exit), CONFINE_ALLOW(exit_group)

// The timer of a vcpu is made by its own thread. Names of translated code go to files that the launcher opened (engine/perf.c).
#define VCPU                                                                                                                       \
    CONFINE_ALLOW(timer_settime), CONFINE_ALLOW(timer_create), CONFINE_ALLOW(timer_delete), CONFINE_ALLOW(lseek),                  \
        CONFINE_ALLOW(ftruncate)

// Sockets and files that were handed over: nothing here makes a descriptor that leads anywhere but into this process, except
// accept4, of who connects to a socket that we were given, and recvmsg, of what the supervisor sends.
#define LOOP                                                                                                                       \
    CONFINE_ALLOW(epoll_wait), CONFINE_ALLOW(epoll_pwait), CONFINE_ALLOW(read), CONFINE_ALLOW(pread64), CONFINE_ALLOW(pwrite64),   \
        CONFINE_ALLOW(writev), CONFINE_ALLOW(readv), CONFINE_ALLOW(preadv), CONFINE_ALLOW(pwritev),                                \
        CONFINE_IF(sendto, CONFINE_TEST(4, ALL_64, 0)), CONFINE_ALLOW(sendmsg), CONFINE_ALLOW(recvmsg), CONFINE_ALLOW(recvfrom),   \
        CONFINE_ALLOW(epoll_ctl), CONFINE_ALLOW(timerfd_settime), CONFINE_ALLOW(close), CONFINE_ALLOW(accept4),                    \
        CONFINE_ALLOW(shutdown), CONFINE_ALLOW(getsockopt), CONFINE_ALLOW(eventfd2), CONFINE_ALLOW(timerfd_create),                \
        CONFINE_ALLOW(memfd_create), CONFINE_ALLOW(fallocate), CONFINE_ALLOW(fdatasync), CONFINE_ALLOW(fsync),                     \
        CONFINE_ALLOW(getrandom), CONFINE_ALLOW(fstat), CONFINE_IF(newfstatat, CONFINE_TEST(3, ALL_32, AT_EMPTY_PATH)),            \
        CONFINE_IF(fcntl, CONFINE_TEST(1, ALL_32, F_GETFD)), CONFINE_IF(fcntl, CONFINE_TEST(1, ALL_32, F_SETFD)),                  \
        CONFINE_IF(fcntl, CONFINE_TEST(1, ALL_32, F_GETFL)), CONFINE_IF(fcntl, CONFINE_TEST(1, ALL_32, F_SETFL)),                  \
        CONFINE_IF(fcntl, CONFINE_TEST(1, ALL_32, F_DUPFD_CLOEXEC)), CONFINE_IF(fcntl, CONFINE_TEST(1, ALL_32, F_GET_SEALS)),      \
        CONFINE_IF(fcntl, CONFINE_TEST(1, ALL_32, F_ADD_SEALS)),                                                                   \
        CONFINE_IF(socketpair, CONFINE_TEST(0, ALL_32, AF_UNIX), CONFINE_TEST(1, SOCKET_TYPE_MASK, SOCK_STREAM))

// Threads of ours: all that makes a process is missing, and so is all that makes a namespace.
#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)
#define NEW_FLAGS                                                                                                                  \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_VFORK |     \
     CLONE_PTRACE | CLONE_PARENT)

// Only until the vcpus stand: their threads (glibc falls back to clone, whose flags can be looked at), signals, and the lists that
// follow.
#define START                                                                                                                      \
    CONFINE_REFUSE(clone3, ENOSYS), CONFINE_IF(clone, CONFINE_TEST(0, THREAD_FLAGS | NEW_FLAGS, THREAD_FLAGS)),                    \
        CONFINE_ALLOW(set_robust_list), CONFINE_ALLOW(rseq), CONFINE_ALLOW(rt_sigaction), CONFINE_ALLOW(signalfd4),                \
        CONFINE_IF(prlimit64, CONFINE_TEST(0, ALL_32, 0), CONFINE_TEST(2, ALL_64, 0)),                                             \
        CONFINE_IF(prctl, CONFINE_TEST(0, ALL_32, PR_SET_NAME)),                                                                   \
        CONFINE_IF(seccomp, CONFINE_TEST(0, ALL_32, SECCOMP_SET_MODE_FILTER))
// The same for the translator's code, which is mapped a second time and then made executable and no longer writable, and perf's
// marker.
#define TRANSLATOR                                                                                                                 \
    CONFINE_IF(mprotect, CONFINE_TEST(2, PROT_WRITE | PROT_EXEC, PROT_EXEC)),                                                      \
        CONFINE_IF(mmap, CONFINE_TEST(2, PROT_WRITE | PROT_EXEC, PROT_EXEC)),                                                      \
        CONFINE_IF(mremap, CONFINE_TEST(3, ALL_32, MREMAP_MAYMOVE | MREMAP_FIXED))

// KVM's ioctls (Documentation/virt/kvm/api.rst), on the descriptors of the VM and its vcpus, by who makes them: what runs a vcpu
// and lets its devices' doorbells and interrupts be set, which a guest does by writes of its own; what stops, saves and looks; what
// makes a machine.
#define KVM(number) CONFINE_IF(ioctl, CONFINE_TEST(1, ALL_32, number))
#define KVM_OF_VCPU                                                                                                                \
    KVM(KVM_RUN), KVM(KVM_GET_REGS), KVM(KVM_SIGNAL_MSI), KVM(KVM_IRQ_LINE), KVM(KVM_IOEVENTFD), KVM(KVM_IRQFD),                   \
        KVM(KVM_SET_GSI_ROUTING), KVM(KVM_RESET_DIRTY_RINGS)
#define KVM_OF_LOOP                                                                                                                \
    KVM(KVM_SET_REGS), KVM(KVM_GET_SREGS), KVM(KVM_SET_SREGS), KVM(KVM_GET_MSRS), KVM(KVM_SET_MSRS), KVM(KVM_GET_LAPIC),           \
        KVM(KVM_SET_LAPIC), KVM(KVM_GET_XSAVE), KVM(KVM_GET_XSAVE2), KVM(KVM_SET_XSAVE), KVM(KVM_GET_XCRS), KVM(KVM_SET_XCRS),     \
        KVM(KVM_GET_DEBUGREGS), KVM(KVM_SET_DEBUGREGS), KVM(KVM_GET_MP_STATE), KVM(KVM_SET_MP_STATE), KVM(KVM_GET_VCPU_EVENTS),    \
        KVM(KVM_SET_VCPU_EVENTS), KVM(KVM_GET_CPUID2), KVM(KVM_SET_CPUID2), KVM(KVM_GET_IRQCHIP), KVM(KVM_SET_IRQCHIP),            \
        KVM(KVM_GET_CLOCK), KVM(KVM_SET_CLOCK), KVM(KVM_KVMCLOCK_CTRL), KVM(KVM_GET_DIRTY_LOG), KVM(KVM_SET_USER_MEMORY_REGION)
#define KVM_OF_START                                                                                                               \
    KVM(KVM_GET_API_VERSION), KVM(KVM_CHECK_EXTENSION), KVM(KVM_CREATE_VM), KVM(KVM_SET_IDENTITY_MAP_ADDR), KVM(KVM_SET_TSS_ADDR), \
        KVM(KVM_CREATE_IRQCHIP), KVM(KVM_ENABLE_CAP), KVM(KVM_GET_VCPU_MMAP_SIZE), KVM(KVM_CREATE_VCPU), KVM(KVM_GET_STATS_FD),    \
        KVM(KVM_GET_SUPPORTED_CPUID), KVM(KVM_GET_MSR_INDEX_LIST)

#define LOOP_AT_REST LOOP, CONFINE_ALLOW(lseek), CONFINE_ALLOW(ftruncate), CONFINE_ALLOW(timer_delete)
static const struct confine_rule rv64_start[] = {EVERY_THREAD, VCPU, LOOP, START, TRANSLATOR};
static const struct confine_rule rv64_loop[] = {EVERY_THREAD, LOOP_AT_REST};
static const struct confine_rule rv64_vcpu[] = {EVERY_THREAD, VCPU};
#define LIST(rules_)                                                                                                               \
    {                                                                                                                              \
        .rules = (rules_), .n = sizeof(rules_) / sizeof((rules_)[0])                                                               \
    }
static const struct machine_lists rv64_lists = {
    .engine = "rv64", .start = LIST(rv64_start), .loop = LIST(rv64_loop), .vcpu = LIST(rv64_vcpu)};

#ifdef __x86_64__
static const struct confine_rule kvm_start[] = {
    KVM_OF_VCPU, EVERY_THREAD, CONFINE_IF(madvise, CONFINE_TEST(2, ALL_32, MADV_HUGEPAGE)), LOOP_AT_REST, START,
    KVM_OF_LOOP, KVM_OF_START};
static const struct confine_rule kvm_loop[] = {EVERY_THREAD, LOOP_AT_REST, KVM_OF_VCPU, KVM_OF_LOOP};
static const struct confine_rule kvm_vcpu[] = {KVM_OF_VCPU, EVERY_THREAD};
static const struct machine_lists kvm_lists = {
    .engine = "kvm", .start = LIST(kvm_start), .loop = LIST(kvm_loop), .vcpu = LIST(kvm_vcpu)};
#endif

const struct machine_lists *machine_lists(const char *engine)
{
#ifdef __x86_64__
    if (strcmp(engine, kvm_lists.engine) == 0)
        return &kvm_lists;
#endif
    (void)engine;
    return &rv64_lists;
}
