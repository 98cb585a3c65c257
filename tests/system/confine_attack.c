// A worker that somebody has taken over: confines itself as trivet-machine does, by the same code and the same lists, and then
// tries one way out. Used by confine.py, which says what must become of it.
//
//   confine_attack LIST ATTEMPT VICTIM     LIST: start, loop or vcpu (of a machine; with kvm- in front, of one on KVM), outer
//   (namespaces, uid, Landlock, but every system
//                                          call is let through), none (not confined). VICTIM: the process id of somebody else
//   confine_attack --config FD             in trivet-machine's place: is confined, and asks for a socket
//   confine_attack                         prints the attempts: name, "can" if it succeeds where nothing is confined (as root, on
//   any
//                                          kernel), "outer" if it must fail even without a filter, "start" if a start may do it
//
// Exit status 0: the attempt succeeded; 1: it was refused (errno on standard output); a signal: it was killed.
#include "machine/confined.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pid_t victim;
static char buffer[4096];

#define CAN 1u   // succeeds unconfined
#define OUTER 2u // fails without a filter too
#define START 4u // a start needs it

struct attempt {
    const char *name;
    long (*run)(void);
    unsigned flags;
};

#define ATTEMPT(name, call)                                                                                                        \
    static long name(void)                                                                                                         \
    {                                                                                                                              \
        return (call);                                                                                                             \
    }

// files
ATTEMPT(open_file, syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY))
ATTEMPT(open_root, syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY))
ATTEMPT(open_memory, syscall(SYS_openat, AT_FDCWD, "/proc/self/mem", O_RDWR))
ATTEMPT(open_device, syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR))
ATTEMPT(make_folder, syscall(SYS_mkdirat, AT_FDCWD, "confine-attack-folder", 0700) ?: rmdir("confine-attack-folder"))
ATTEMPT(read_link, readlinkat(AT_FDCWD, "/proc/self/exe", buffer, sizeof(buffer)))
ATTEMPT(stat_file, syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", buffer, 0))
ATTEMPT(change_mode, syscall(SYS_fchmodat, AT_FDCWD, "/etc/passwd", 0644))
ATTEMPT(change_root, syscall(SYS_chroot, "/"))
ATTEMPT(mount_file_system, syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, NULL))
ATTEMPT(watch_files, syscall(SYS_inotify_init1, 0))
// the network
ATTEMPT(socket_inet, syscall(SYS_socket, AF_INET, SOCK_STREAM, 0))
ATTEMPT(socket_unix, syscall(SYS_socket, AF_UNIX, SOCK_DGRAM, 0))
ATTEMPT(socket_netlink, syscall(SYS_socket, AF_NETLINK, SOCK_RAW, 0))
ATTEMPT(socket_packet, syscall(SYS_socket, AF_PACKET, SOCK_RAW, 0))
static long socketpair_datagram(void)
{
    int ends[2];
    return syscall(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, ends);
}
// other processes
ATTEMPT(trace, ptrace(PTRACE_SEIZE, victim, NULL, NULL))
ATTEMPT(kill_other, syscall(SYS_kill, victim, SIGCONT))
ATTEMPT(kill_thread_of_other, syscall(SYS_tgkill, victim, victim, SIGCONT))
ATTEMPT(kill_all, syscall(SYS_kill, -1, 0))
ATTEMPT(open_process, syscall(SYS_pidfd_open, victim, 0))
static long read_memory(void)
{
    struct iovec to = {buffer, 1}, from = {buffer, 1};
    const long n = syscall(SYS_process_vm_readv, victim, &to, 1, &from, 1, 0);
    return n < 0 && errno == EFAULT ? 0 : n; // let in, and nothing lies at our address
}
ATTEMPT(change_limits, syscall(SYS_prlimit64, victim, 7, NULL, buffer))
ATTEMPT(change_priority, syscall(SYS_setpriority, 0, 0, 1))
ATTEMPT(compare, syscall(SYS_kcmp, victim, getpid(), 1, 0, 0))
// programs and processes
static long execute(void)
{
    char *const arguments[] = {(char[]){"true"}, NULL};
    return execve("/bin/true", arguments, NULL);
}
static long make_process(void)
{
    const long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return pid;
}
static long make_process_clone3(void)
{
    uint64_t arguments[8] = {[4] = SIGCHLD};
    const long pid = syscall(SYS_clone3, arguments, sizeof(arguments));
    if (pid == 0)
        _exit(0);
    return pid;
}
// code
ATTEMPT(map_code, (long)mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
static long make_code(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mprotect(page, 4096, PROT_READ | PROT_EXEC);
}
static long make_code_writable(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mprotect(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
}
// the kernel's large interfaces
ATTEMPT(uring, syscall(SYS_io_uring_setup, 1, memset(buffer, 0, 256)))
ATTEMPT(key, syscall(SYS_add_key, "user", "confine-attack", "x", 1, -1))
ATTEMPT(keyring, syscall(SYS_keyctl, 0, -3, 1))
static long bpf_map(void)
{
    union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
}
static long perf(void)
{
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_TASK_CLOCK};
    return syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
}
ATTEMPT(user_fault, syscall(SYS_userfaultfd, O_CLOEXEC))
ATTEMPT(shared_memory, syscall(SYS_shmget, 0, 4096, 0600))
ATTEMPT(message_queue, syscall(SYS_msgget, 0, 0600))
ATTEMPT(load_module, syscall(SYS_finit_module, 0, "", 0))
ATTEMPT(file_handle, syscall(SYS_open_by_handle_at, AT_FDCWD, buffer, O_RDONLY))
ATTEMPT(terminal_input, syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x"))
// to have more again
ATTEMPT(user_namespace, syscall(SYS_unshare, CLONE_NEWUSER))
ATTEMPT(net_namespace, syscall(SYS_unshare, CLONE_NEWNET))
ATTEMPT(enter_namespace, syscall(SYS_setns, 0, 0))
ATTEMPT(become_root, syscall(SYS_setresuid, 0, 0, 0))
ATTEMPT(become_dumpable, syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0))
ATTEMPT(handle_signal, syscall(SYS_rt_sigaction, SIGUSR1, NULL, buffer, 8))
ATTEMPT(own_descriptor, syscall(SYS_fcntl, 0, F_SETOWN, victim))
ATTEMPT(set_time, syscall(SYS_clock_settime, 0, NULL))
ATTEMPT(execution_domain, syscall(SYS_personality, 0xffffffff))
#ifdef __x86_64__
ATTEMPT(x32_call, syscall(0x40000000 | SYS_getpid))
static long i386_call(void)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(5L), "b"(0L), "c"(0L) : "memory", "r8", "r9", "r10", "r11"); // open(NULL)
    return result == -EFAULT ? 0 : -1;
}
#endif

static const struct attempt attempts[] = {
#define A(name, flags)                                                                                                             \
    {                                                                                                                              \
#name, name, flags                                                                                                         \
    }
    A(open_file, CAN | OUTER),
    A(open_root, CAN | OUTER),
    A(open_memory, CAN | OUTER),
    A(open_device, CAN | OUTER),
    A(make_folder, CAN | OUTER),
    A(read_link, CAN | OUTER),
    A(stat_file, CAN | OUTER),
    A(change_mode, CAN | OUTER),
    A(change_root, CAN | OUTER),
    A(mount_file_system, OUTER),
    A(watch_files, CAN),
    A(socket_inet, CAN),
    A(socket_unix, CAN),
    A(socket_netlink, CAN),
    A(socket_packet, OUTER),
    A(socketpair_datagram, CAN),
    A(trace, CAN | OUTER),
    A(kill_other, CAN | OUTER),
    A(kill_thread_of_other, CAN | OUTER),
    A(kill_all, 0),
    A(open_process, CAN),
    A(read_memory, CAN | OUTER),
    A(change_limits, CAN | OUTER),
    A(change_priority, CAN),
    A(compare, 0),
    A(execute, CAN | OUTER),
    A(make_process, CAN),
    A(make_process_clone3, CAN),
    A(map_code, CAN),
    A(make_code, CAN | START),
    A(make_code_writable, CAN),
    A(uring, 0),
    A(key, 0),
    A(keyring, 0),
    A(bpf_map, 0),
    A(perf, 0),
    A(user_fault, 0),
    A(shared_memory, CAN),
    A(message_queue, CAN),
    A(load_module, OUTER),
    A(file_handle, OUTER),
    A(terminal_input, OUTER),
    A(user_namespace, 0),
    A(net_namespace, OUTER),
    A(enter_namespace, OUTER),
    A(become_root, CAN | OUTER),
    A(become_dumpable, CAN),
    A(handle_signal, CAN | START),
    A(own_descriptor, 0),
    A(set_time, OUTER),
    A(execution_domain, CAN),
#ifdef __x86_64__
    A(x32_call, 0),
    A(i386_call, 0),
#endif
};
#define N_ATTEMPTS (sizeof(attempts) / sizeof(attempts[0]))

// Lets every call through.
#define CALLS 512
static struct confine_rule all_rules[CALLS];
static const struct confine_list all_list = {.rules = all_rules, .n = CALLS};

static int confine(const char *name)
{
    struct tv_error err = {0};
    const struct machine_lists *lists = machine_lists(strncmp(name, "kvm-", 4) == 0 ? "kvm" : "rv64");
    const struct confine_list *first = &lists->start, *second = NULL;
    for (int i = 0; i < CALLS; i++)
        all_rules[i].call = i;
    if (strcmp(name, "none") == 0)
        return 0;
    if (strcmp(name, "outer") == 0)
        first = &all_list;
    else if (strstr(name, "loop"))
        second = &lists->loop;
    else if (strstr(name, "vcpu"))
        second = &lists->vcpu;
    int rc = confine_process(CONFINE_REQUIRED, first, false, NULL, &err);
    if (!rc && second)
        rc = confine_thread(second);
    if (rc)
        fprintf(stderr, "confine_attack: cannot be confined: %s\n", err.text);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc == 3)
        return confine("loop") ? 2 : socket_inet() < 0;
    if (argc != 4) {
        for (size_t i = 0; i < N_ATTEMPTS; i++)
            printf("%s %s %s %s\n", attempts[i].name, attempts[i].flags & CAN ? "can" : "-",
                   attempts[i].flags & OUTER ? "outer" : "-", attempts[i].flags & START ? "start" : "-");
        return 0;
    }
    victim = (pid_t)atoi(argv[3]);
    for (size_t i = 0; i < N_ATTEMPTS; i++) {
        if (strcmp(attempts[i].name, argv[2]) != 0)
            continue;
        if (confine(argv[1]))
            return 2;
        const long result = attempts[i].run();
        if (result < 0)
            dprintf(1, "%s\n", strerror(errno));
        return result < 0;
    }
    return 2;
}
