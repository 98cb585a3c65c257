// Running a program of the host: see tool.h.
#include "control/tool.h"

#include "control/cleanup.h"
#include "control/files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define EXIT_NOT_FOUND 127

static volatile sig_atomic_t caught_signal;

static void on_signal(int signo)
{
    caught_signal = signo;
}

void tool_catch_signals(void)
{
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

int tool_interrupted(void)
{
    return caught_signal;
}

static void child_run(const struct tool *tool, int stderr_fd, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    setpgid(0, 0); // so that what it starts ends with it
    if (getppid() != parent)
        _exit(EXIT_NOT_FOUND);
    int null = open("/dev/null", O_RDWR);
    dup2(tool->stdin_fd ? tool->stdin_fd : null, 0);
    dup2(tool->stdout_fd ? tool->stdout_fd : null, 1);
    dup2(stderr_fd, 2);
    const char *path = getenv("PATH");
    char sbin[4096];
    snprintf(sbin, sizeof(sbin), "%s:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin");
    setenv("PATH", sbin, 1);
    setenv("LC_ALL", "C", 1);
    for (const char *const *e = tool->env; e && *e; e++)
        putenv((char *)*e); // putenv() does not change what it is given
    if (tool->cwd && chdir(tool->cwd) < 0) {
        dprintf(2, "%s: %s\n", tool->cwd, strerror(errno));
        _exit(1);
    }
    execvp(tool->argv[0], (char *const *)tool->argv);
    _exit(EXIT_NOT_FOUND);
}

// Waits with a tick; a caught signal ends the child.
static int wait_child(const struct tool *tool, pid_t pid)
{
    cleanup_close int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    for (;;) {
        int status;
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid)
            return status;
        if (caught_signal)
            kill(-pid, SIGTERM);
        struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
        poll(&pfd, 1, 200);
        if (tool->tick)
            tool->tick(tool->arg);
    }
}

// The last line that says something; apt marks its errors with "E: ", which go before all others.
static void last_line(const char *text, char *line, size_t size)
{
    line[0] = 0;
    int is_error = 0;
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, "\n");
        int marked = strncmp(p, "E: ", 3) == 0;
        if (len && (marked || !is_error)) {
            snprintf(line, size, "%.*s", (int)(len > 400 ? 400 : len), p);
            if (marked)
                break; // the first error is the cause, those after it the consequence
            is_error |= marked;
        }
        p += len + (p[len] == '\n');
    }
}

static int explain(const struct tool *tool, int status, int stderr_fd, struct tv_error *err)
{
    if (caught_signal)
        return tv_error_set(err, -EINTR, "interrupted");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NOT_FOUND)
        return tv_error_set(err, -ENOENT, "program '%s' is missing: install the Debian package '%s'", tool->argv[0], tool->package);
    char path[64], line[420];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", stderr_fd);
    cleanup_free char *text = NULL;
    if (file_read_all(path, 1u << 20, &text, NULL, NULL) == 0)
        last_line(text, line, sizeof(line));
    else
        line[0] = 0;
    if (text && strstr(text, strerror(ENOSPC))) // wherever it stands: the last line may only say that a part of it failed
        return tv_error_set(err, -ENOSPC, "%s: %s", tool->argv[0], strerror(ENOSPC));
    if (WIFSIGNALED(status))
        return tv_error_set(err, -EIO, "%s: killed by signal %d", tool->argv[0], WTERMSIG(status));
    return tv_error_set(err, -EIO, "%s: %s", tool->argv[0], line[0] ? line : "failed");
}

int tool_run(const struct tool *tool, struct tv_error *err)
{
    if (caught_signal)
        return tv_error_set(err, -EINTR, "interrupted");
    cleanup_close int stderr_fd = memfd_create("stderr", MFD_CLOEXEC);
    if (stderr_fd < 0)
        return tv_error_set(err, -errno, "memfd: %s", strerror(errno));
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0)
        return tv_error_set(err, -errno, "cannot start %s: %s", tool->argv[0], strerror(errno));
    if (pid == 0)
        child_run(tool, stderr_fd, parent);
    int status = wait_child(tool, pid);
    return explain(tool, status, stderr_fd, err);
}

int tool_output(const struct tool *tool, char **out, struct tv_error *err)
{
    cleanup_close int fd = memfd_create("stdout", MFD_CLOEXEC);
    if (fd < 0)
        return tv_error_set(err, -errno, "memfd: %s", strerror(errno));
    struct tool with = *tool;
    with.stdout_fd = fd;
    int rc = tool_run(&with, err);
    if (rc)
        return rc;
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return file_read_all(path, 16u << 20, out, NULL, err);
}
