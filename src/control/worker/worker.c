// Worker processes: see worker.h.
#include "control/worker/worker.h"

#include "control/cleanup.h"
#include "control/files.h"
#include "control/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

// proc_pid_stat(5): the state and the start time stand behind the name, which is in parentheses and may hold anything.
static int read_stat(pid_t pid, char *state, uint64_t *start_ticks)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    cleanup_free char *text = NULL;
    if (file_read_all(path, 65536, &text, NULL, NULL))
        return -ESRCH;
    const char *end = strrchr(text, ')');
    unsigned long long start;
    if (!end ||
        sscanf(end + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", state, &start) != 2)
        return -ESRCH;
    *start_ticks = start;
    return 0;
}

static void child_run(const struct worker_start *start, const char *path, pid_t parent, int report_fd)
{
    if (start->dies_with_parent) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        setpgid(0, 0); // the terminal's ^C is ours to handle
    } else {
        setsid();
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    if (start->stderr_fd >= 0)
        dup2(start->stderr_fd, 2);
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC); // what a library, or whoever started us, has left open
    for (size_t i = 0; i < start->n_fds; i++)
        fcntl(start->fds[i], F_SETFD, 0);
    if (null > 2)
        close(null);
    int code = start->prepare ? -start->prepare(start->prepare_arg) : 0;
    if (code == 0) {
        execv(path, (char *const *)start->argv);
        code = errno;
    }
    if (write(report_fd, &code, sizeof(code)) < 0)
        _exit(1);
    _exit(1);
}

int worker_start(struct worker *worker, const struct worker_start *start, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = path_program(path, start->program, err);
    if (rc)
        return rc;
    int report[2], code = 0;
    if (pipe2(report, O_CLOEXEC) < 0)
        return tv_error_set(err, -errno, "pipe: %s", strerror(errno));
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        child_run(start, path, parent, report[1]);
    int fork_errno = errno;
    close(report[1]);
    ssize_t n = pid < 0 ? 0 : read(report[0], &code, sizeof(code)); // ends when exec has closed the other end
    close(report[0]);
    if (pid < 0 || n > 0)
        return tv_error_set(err, pid < 0 ? -fork_errno : -code, "%s: cannot be started: %s", path,
                            strerror(pid < 0 ? fork_errno : code));
    char state;
    worker->pid = pid;
    worker->start_ticks = 0;
    if (read_stat(pid, &state, &worker->start_ticks))
        worker->start_ticks = 0; // it has ended already; its status tells why
    return 0;
}

bool worker_is_alive(const struct worker *worker)
{
    char state;
    uint64_t start_ticks;
    return worker->pid > 0 && read_stat(worker->pid, &state, &start_ticks) == 0 && start_ticks == worker->start_ticks &&
           state != 'Z' && state != 'X';
}

int worker_open(const struct worker *worker)
{
    if (worker->pid <= 0)
        return -ESRCH;
    int fd = (int)syscall(SYS_pidfd_open, worker->pid, 0);
    if (fd < 0)
        return -errno;
    if (!worker_is_alive(worker)) { // looked at after the pidfd was taken: now the number cannot change hands any more
        close(fd);
        return -ESRCH;
    }
    return fd;
}

int worker_open_child(const struct worker *worker)
{
    int fd = (int)syscall(SYS_pidfd_open, worker->pid, 0);
    return fd < 0 ? -errno : fd;
}

void worker_kill(const struct worker *worker, int signo)
{
    int fd = worker_open(worker);
    if (fd < 0)
        return;
    syscall(SYS_pidfd_send_signal, fd, signo, NULL, 0);
    close(fd);
}

const char *worker_describe_signal(int signo, char text[static 32])
{
    if (signo == SIGSYS)
        return "its confinement: it made a system call that it has no use for";
    snprintf(text, 32, "signal %d", signo);
    return text;
}

const char *worker_confine_mode(void)
{
    const char *mode = getenv("TRIVET_CONFINE");
    return mode ? mode : "best";
}
