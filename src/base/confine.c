// Confinement of a worker: see confine.h.
#include "base/confine.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER true // its runtime opens /proc, traces itself and maps as it likes
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define HAS_SANITIZER true
#endif
#endif
#ifndef HAS_SANITIZER
#define HAS_SANITIZER false
#endif

#define PROGRAM_MAX 4096 // BPF_MAXINSNS

// A uid that nobody has: above what distributions, systemd and containers give out (systemd's UIDS-GIDS.md), one a process.
#define OWN_UID_FIRST 2000000000u

static struct confine_state state;

int confine_mode_parse(const char *text, enum confine_mode *mode, struct tv_error *err)
{
    static const char *const names[] = {[CONFINE_BEST] = "best", [CONFINE_REQUIRED] = "required", [CONFINE_OFF] = "off"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(text, names[i]) == 0) {
            *mode = (enum confine_mode)i;
            return 0;
        }
    return tv_error_set(err, -EINVAL, "confine: '%.40s' should be 'required', 'best' or 'off'", text);
}

static void lack(const char *what, int error)
{
    const size_t at = strlen(state.lacking);
    snprintf(state.lacking + at, sizeof(state.lacking) - at, "%s%s (%s)", at ? ", " : "", what, strerror(error));
}

// --- namespaces and users

static int write_text(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    const ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));
    const int code = n < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return code;
}

// user_namespaces(7): one uid and one gid, so that there is nobody else in there to become.
static int map_users(uid_t uid, gid_t gid)
{
    char text[64];
    int rc = write_text("/proc/self/setgroups", "deny");
    snprintf(text, sizeof(text), "65534 %u 1", uid);
    if (!rc)
        rc = write_text("/proc/self/uid_map", text);
    snprintf(text, sizeof(text), "65534 %u 1", gid);
    return rc ? rc : write_text("/proc/self/gid_map", text);
}

// An empty folder that is read-only and has nothing above it (pivot_root(2), "pivot_root(".", ".")").
static int empty_root(void)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,nr_inodes=2,mode=555") < 0 ||
        chdir("/proc") < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return -errno;
    return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ? -errno : 0;
}

static void take_namespaces(void)
{
    const uid_t uid = geteuid();
    const gid_t gid = getegid();
    int flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS, rc = 0;
    if (uid != 0)
        flags |= CLONE_NEWUSER;
    if (unshare(flags) < 0) {
        lack("namespaces", errno);
        return;
    }
    if (uid != 0)
        rc = map_users(uid, gid);
    state.user = uid != 0 && !rc;
    if (!rc)
        rc = empty_root();
    state.namespaces = !rc;
    if (rc)
        lack("an empty root", -rc);
}

static void take_user(void)
{
    const uid_t own = OWN_UID_FIRST + (uid_t)getpid();
    if (state.user || geteuid() != 0)
        return;
    // By system call: glibc's functions do it for all threads, and there is one.
    if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, own, own, own) < 0 ||
        syscall(SYS_setresuid, own, own, own) < 0)
        lack("a uid of its own", errno);
    else
        state.user = true;
}

// Before the uid goes, which takes the right to do it along.
static void drop_bounding_set(void)
{
    for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap); // without CAP_SETPCAP the set stays, and no_new_privs makes it mean nothing
}

static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[2] = {0};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

// --- Landlock (Documentation/userspace-api/landlock.rst); our own names, since Debian's header is older than the kernels we run on

#define LANDLOCK_CREATE 444
#define LANDLOCK_RESTRICT 446
#define LANDLOCK_ASK_VERSION 1u

struct landlock_rights {
    uint64_t fs, net, scoped;
};

// Everything that the kernel's version knows is handled, and no rule allows any of it.
static void take_landlock(void)
{
    static const uint8_t fs_bits[] = {0, 13, 14, 15, 15, 16, 16};
    const long version = syscall(LANDLOCK_CREATE, NULL, 0, LANDLOCK_ASK_VERSION);
    if (version <= 0) {
        lack("Landlock", errno);
        return;
    }
    const unsigned known = version > 6 ? 6 : (unsigned)version;
    const struct landlock_rights rights = {
        .fs = (1ull << fs_bits[known]) - 1, .net = known >= 4 ? 3 : 0, .scoped = known >= 6 ? 3 : 0};
    const size_t bytes = known >= 6 ? 24 : known >= 4 ? 16 : 8;
    const int fd = (int)syscall(LANDLOCK_CREATE, &rights, bytes, 0);
    if (fd < 0 || syscall(LANDLOCK_RESTRICT, fd, 0) < 0)
        lack("Landlock", errno);
    else
        state.landlock = (int)version;
    if (fd >= 0)
        close(fd);
}

// --- the filter

static char *put_text(char *at, const char *text)
{
    while (*text)
        *at++ = *text++;
    return at;
}

static char *put_number(char *at, unsigned n)
{
    char digits[10];
    unsigned k = 0;
    do
        digits[k++] = (char)('0' + n % 10);
    while (n /= 10);
    while (k)
        *at++ = digits[--k];
    return at;
}

// In a signal handler, perhaps on a thread that somebody else has in hand: only write(2), on the stack there is. SA_RESETHAND has
// taken the handler away, so that the signal which is raised here ends the process.
static void denied(int signo, siginfo_t *info, void *context)
{
    char line[96], name[17] = "";
    (void)context;
    prctl(PR_GET_NAME, name);
    char *at = put_text(line, "killed by its confinement: system call ");
    at = put_number(at, (unsigned)info->si_syscall);
    at = put_text(at, " on thread ");
    at = put_text(at, name);
    *at++ = '\n';
    if (write(STDERR_FILENO, line, (size_t)(at - line)) < 0)
        errno = 0; // nobody listens
    syscall(SYS_tgkill, getpid(), gettid(), signo);
}

static int install_handler(void)
{
    struct sigaction action = {.sa_sigaction = denied, .sa_flags = SA_SIGINFO | (int)SA_RESETHAND | SA_NODEFER};
    return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

static int put_filter(const struct confine_list *list)
{
    struct sock_filter filter[PROGRAM_MAX];
    const int n = confine_assemble(list, (uint32_t)getpid(), filter, PROGRAM_MAX);
    const struct sock_fprog program = {.len = (unsigned short)(n < 0 ? 0 : n), .filter = filter};
    if (n < 0)
        return n;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}

int confine_thread(const struct confine_list *list)
{
    return state.seccomp ? put_filter(list) : 0;
}

// --- all of it

static int take_rest(const struct confine_list *list, bool stays_dumpable, int death, pid_t parent)
{
    const struct rlimit none = {0};
    int rc = drop_capabilities();
    if (!rc && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        rc = -errno;
    if (!rc && !stays_dumpable && setrlimit(RLIMIT_CORE, &none) < 0)
        rc = -errno;
    if (!rc && prctl(PR_SET_DUMPABLE, stays_dumpable, 0, 0, 0) < 0)
        rc = -errno;
    if (rc)
        return rc;
    if (death && (prctl(PR_SET_PDEATHSIG, death) < 0 || getppid() != parent))
        return -ESRCH;
    take_landlock();
    rc = install_handler();
    return rc ? rc : put_filter(list);
}

int confine_process(enum confine_mode mode, const struct confine_list *list, bool stays_dumpable, struct confine_state *out,
                    struct tv_error *err)
{
    state = (struct confine_state){.mode = mode};
    if (HAS_SANITIZER && mode == CONFINE_BEST)
        state.mode = mode = CONFINE_OFF;
    if (mode != CONFINE_OFF) {
        // Credentials that change take away the signal that comes with the parent's death (PR_SET_PDEATHSIG(2const)).
        const pid_t parent = getppid();
        int death = 0;
        prctl(PR_GET_PDEATHSIG, &death);
        take_namespaces();
        drop_bounding_set();
        take_user();
        const int rc = take_rest(list, stays_dumpable, death, parent);
        state.seccomp = !rc;
        if (rc)
            lack("seccomp", -rc);
    }
    if (out)
        *out = state;
    if (mode == CONFINE_REQUIRED && state.lacking[0])
        return tv_error_set(err, -EPERM, "confine: required, but this host does not let it have: %s; 'best' goes on without",
                            state.lacking);
    return 0;
}

const struct confine_state *confine_state(void)
{
    return &state;
}
