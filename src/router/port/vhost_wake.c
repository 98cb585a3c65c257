// Ends the library's poll: see vhost_wake.h. A signal does, since the thread then counts its sockets anew.
#include "router/port/vhost_wake.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREAD "vhost-events\n" // as the library names it
#define TIMES 2                 // should the first come between its counting and its poll; then it is late, as it would be without
#define PAUSE_NS 1000000

static void ignore(int signo)
{
    (void)signo;
}

static int open_name(const char *tid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", tid);
    return open(path, O_RDONLY | O_CLOEXEC);
}

// The thread's number, or 0.
static pid_t find_thread(void)
{
    DIR *tasks = opendir("/proc/self/task");
    const struct dirent *task;
    pid_t found = 0;
    while (tasks && !found && (task = readdir(tasks))) {
        char name[32] = "";
        const int fd = open_name(task->d_name);
        if (fd < 0)
            continue;
        if (read(fd, name, sizeof(name) - 1) > 0 && !strcmp(name, THREAD))
            found = (pid_t)strtol(task->d_name, NULL, 10);
        close(fd);
    }
    if (tasks)
        closedir(tasks);
    return found;
}

void vhost_wake(void)
{
    static pid_t thread;
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    const struct sigaction action = {.sa_handler = ignore}; // SIGURG: what nobody sends is ignored otherwise, and ends no poll
    if (!thread && (sigaction(SIGURG, &action, NULL) || !(thread = find_thread())))
        return;
    for (unsigned i = 0; i < TIMES; i++) {
        if (i)
            nanosleep(&pause, NULL);
        syscall(SYS_tgkill, getpid(), thread, SIGURG);
    }
}
