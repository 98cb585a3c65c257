// DPDK's environment: see eal.h.
#include "router/eal.h"

#include "base/log.h"

#include <dlfcn.h>
#include <errno.h>
#include <getopt.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ARGUMENTS_MAX 24

// ---- what DPDK logs ----

// Lines come in pieces or several at once; each becomes an event.
static ssize_t take_log(void *cookie, const char *text, size_t len)
{
    char line[256];
    (void)cookie;
    const int level = rte_log_cur_msg_loglevel();
    const enum log_level ours = level <= (int)RTE_LOG_ERR ? LOG_ERROR : level <= (int)RTE_LOG_WARNING ? LOG_WARN : LOG_INFO;
    for (size_t begin = 0; begin < len;) {
        const char *end = memchr(text + begin, '\n', len - begin);
        const size_t n = end ? (size_t)(end - text) - begin : len - begin;
        snprintf(line, sizeof(line), "%.*s", (int)n, text + begin);
        if (n)
            log_event(ours, "dpdk", line);
        begin += n + 1;
    }
    return (ssize_t)len;
}

static int redirect_log(struct tv_error *err)
{
    FILE *stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = take_log});
    if (!stream)
        return tv_error_set(err, -ENOMEM, "out of memory");
    setvbuf(stream, NULL, _IOLBF, 512);
    return rte_openlog_stream(stream);
}

// ---- its drivers ----

static _Thread_local bool is_starting, loads_all;

// As it starts DPDK would load each driver that there is, 130 libraries, but when it is linked statically, and that it finds out by
// asking whether its own library is loaded. The question comes here, as the program's symbols go before a library's, and is
// answered with no.
void *dlopen(const char *path, int flags) // NOLINT(readability-inconsistent-declaration-parameter-name)
{
    static void *(*load)(const char *path, int flags);
    if (is_starting && !loads_all && path && flags & RTLD_NOLOAD && !strncmp(path, "librte_eal.so", strlen("librte_eal.so")))
        return NULL;
    if (!load)
        *(void **)&load = dlsym(RTLD_NEXT, "dlopen");
    return load(path, flags);
}

int eal_load_driver(const char *driver, struct tv_error *err)
{
    char path[sizeof(RTE_EAL_PMD_PATH) + 64];
    snprintf(path, sizeof(path), RTE_EAL_PMD_PATH "/librte_%s.so", driver);
    // It stays: once more is no more.
    return dlopen(path, RTLD_NOW) ? 0 : tv_error_set(err, -ENOENT, "DPDK's driver %s cannot be loaded: %s", driver, dlerror());
}

// ---- its clock ----

// Where the CPU does not tell how fast its time-stamp counter is DPDK sleeps a tenth of a second to find out, during which a router
// that was killed carries nothing. It rounds to 10 MHz, for which a hundredth is enough. Its call of nanosleep() comes here as
// well.
#define CALIBRATE_NS 10000000

int nanosleep(const struct timespec *wanted, struct timespec *left) // NOLINT(readability-inconsistent-declaration-parameter-name)
{
    static const struct timespec most = {.tv_nsec = CALIBRATE_NS};
    const bool is_long = wanted->tv_sec || wanted->tv_nsec > most.tv_nsec;
    const int r = clock_nanosleep(CLOCK_REALTIME, 0, is_starting && is_long ? &most : wanted, left);
    errno = r ? r : errno;
    return r ? -1 : 0;
}

// ---- its arguments ----

// Whether pages of 2 MiB for that much are free (Documentation/admin-guide/mm/hugetlbpage.rst).
static bool are_huge_free(unsigned memory_mb)
{
    unsigned long n = 0;
    FILE *f = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
    if (!f)
        return false;
    const int got = fscanf(f, "%lu", &n);
    fclose(f);
    return got == 1 && n >= memory_mb / 2;
}

// "0@(0-1),1@1": this thread where it may run already, the workers one on each CPU.
static void write_lcores(const struct eal_config *config, char *text, size_t size)
{
    cpu_set_t own;
    CPU_ZERO(&own);
    sched_getaffinity(0, sizeof(own), &own);
    size_t at = (size_t)snprintf(text, size, "0@(");
    const char *comma = "";
    for (unsigned cpu = 0; cpu < CPU_SETSIZE && at < size; cpu++)
        if (CPU_ISSET(cpu, &own)) {
            at += (size_t)snprintf(text + at, size - at, "%s%u", comma, cpu);
            comma = ",";
        }
    if (at < size)
        at += (size_t)snprintf(text + at, size - at, ")");
    for (unsigned i = 0; i < config->n_workers && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, ",%u@%u", i + 1, config->cpus[i]);
}

int eal_start(const struct eal_config *config, bool *has_huge, struct tv_error *err)
{
    char lcores[4096], memory[16];
    char *arguments[ARGUMENTS_MAX] = {"trivet-router", "--no-telemetry", "--log-level=*:warning", "--lcores",
                                      lcores,          "--file-prefix",  "trivet-router",         "-m",
                                      memory};
    int n = 9;
    write_lcores(config, lcores, sizeof(lcores));
    snprintf(memory, sizeof(memory), "%u", config->memory_mb);
    *has_huge = !config->no_huge && are_huge_free(config->memory_mb);
    arguments[n++] = *has_huge ? "--in-memory" : "--no-huge"; // the one has no files, the other with --no-shconf
    arguments[n++] = "--no-shconf";
    if (config->pci) {
        // Without a list of what is allowed DPDK would look into, and could take, every function of the host's. On the list is the
        // host bridge, for which there is no driver; a port's function is added to it.
        arguments[n++] = "-a";
        arguments[n++] = "0000:00:00.0";
    } else {
        arguments[n++] = "--no-pci";
        arguments[n++] = "--iova-mode=va"; // nothing here has addresses of its own
    }
    int r = redirect_log(err);
    if (r)
        return r;
    optind = 1;
    is_starting = true;
    loads_all = config->pci;
    r = rte_eal_init(n, arguments);
    is_starting = false;
    if (r < 0)
        return tv_error_set(err, -rte_errno, "DPDK does not start with %s MB of memory (--memory) on the CPUs of --workers: %s",
                            memory, rte_strerror(rte_errno));
    return eal_load_driver("mempool_ring", err); // a pool has that kind of store until it is given ours
}

// Only the directory, which is made whether or not there is something to put into it. rte_eal_cleanup() would take the memory away
// under DPDK's own threads, which do not end; it goes with the process.
void eal_stop(void)
{
    rmdir(rte_eal_get_runtime_dir());
}
