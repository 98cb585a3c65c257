// Runs the kernels that its arguments name and prints "kernel NAME SECONDS CHECKSUM" for each; a number among them says how often
// those behind it run. As a guest's first program it gets its arguments from the kernel's command line (after "--", at most 32),
// says first how long the guest has been up, and powers off in the end.
#include "kernels.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name;
    kernel_run *run;
} kernels[] = {
    {"crc", crc},
    {"sha", sha},
    {"sieve", sieve},
    {"list", list},
    {"qsort", sort},
    {"coremark", coremark},
    {"dhrystone", dhrystone},
    {"btree", btree},
    {"gzip", gzip},
    {"fib", fib},
    {"switch", dispatch},
    {"switchlong", dispatch_long},
    {"matmul", matmul},
    {"nbody", nbody},
    {"mandelbrot", mandelbrot},
    {"memcpy", copy},
    {"syscall", syscalls},
    {"pagefault", pagefaults},
    {"ctxswitch", context},
    {"pipe", piped},
    {"forkexec", forkexec},
    {"mmap", mapping},
    {"fileread", fileread},
    {"sum1", sum_by_1},
    {"sum2", sum_by_2},
    {"sum4", sum_by_4},
    {"lock2", lock_by_2},
    {"lock4", lock_by_4},
};
#define KERNELS (sizeof kernels / sizeof kernels[0])

const char *program_path;

void need(int held, const char *what)
{
    if (!held) {
        printf("kernels: %s: %s\n", what, strerror(errno));
        fflush(stdout);
        _exit(1);
    }
}

void *need_memory(size_t bytes)
{
    void *memory = calloc(1, bytes);

    need(memory != NULL, "memory");
    return memory;
}

static double seconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void measure(size_t n)
{
    double started = seconds(CLOCK_MONOTONIC);
    uint64_t sum = kernels[n].run();

    printf("kernel %s %.9f %016" PRIx64 "\n", kernels[n].name, seconds(CLOCK_MONOTONIC) - started, sum);
    fflush(stdout);
}

// In a process of its own, so that no kernel finds what another left in its memory.
static int run_kernel(const char *name)
{
    int status;

    for (size_t n = 0; n < KERNELS; n++)
        if (!strcmp(kernels[n].name, name)) {
            pid_t child = fork();

            need(child >= 0, "fork");
            if (child == 0) {
                measure(n);
                _exit(0);
            }
            need(waitpid(child, &status, 0) == child, "wait");
            return status;
        }
    printf("kernels: there is no kernel '%s'\n", name);
    fflush(stdout);
    return 1;
}

int main(int count, char **arguments)
{
    int first_program = getpid() == 1, failed = 0, repeat = 1;

    program_path = arguments[0];
    if (count == 2 && !strcmp(arguments[1], JUST_END))
        return 0;
    if (first_program) {
        klogctl(6 /* console off, but for emergencies: no message of the kernel's amid a line of ours */, NULL, 0);
        printf("uptime %.9f\n", seconds(CLOCK_BOOTTIME));
        fflush(stdout);
    }
    for (int i = 1; i < count; i++)
        if (isdigit(arguments[i][0]))
            repeat = atoi(arguments[i]);
        else
            for (int n = 0; n < repeat; n++)
                failed |= run_kernel(arguments[i]);
    if (first_program)
        reboot(RB_POWER_OFF);
    return failed ? 1 : 0;
}
