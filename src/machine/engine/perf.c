// See perf.h. In the jitdump all numbers are the host's: its reader tells their order by the magic.
#include "machine/engine/perf.h"
#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define JITDUMP_MAGIC 0x4a695444u
#define JITDUMP_VERSION 1u
#define PAGE_BYTES 4096u
enum { JIT_CODE_LOAD = 0, JIT_CODE_CLOSE = 3 };

#if defined(__x86_64__)
#define ELF_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define ELF_MACHINE EM_AARCH64
#else
#define ELF_MACHINE EM_NONE
#endif

struct jitdump_header {
    uint32_t magic, version, total_size, elf_mach, pad1, pid;
    uint64_t timestamp, flags;
};

struct jitdump_record {
    uint32_t id, total_size;
    uint64_t timestamp;
};

struct jitdump_load { // behind it the name with its NUL, and the code
    struct jitdump_record record;
    uint32_t pid, tid;
    uint64_t vma, code_addr, code_size, code_index;
};
_Static_assert(sizeof(struct jitdump_header) == 40 && sizeof(struct jitdump_load) == 56, "as the specification lays them out");

struct perf {
    int map_fd, jitdump_fd;
    int failed; // errno of the first write that failed
    uint32_t pid;
    uint64_t index;   // of the next piece of code in the jitdump
    off_t kept_bytes; // of the map: what is never forgotten
    void *marker;
};

static void put(struct perf *p, int *fd, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (*fd >= 0 && len > 0) {
        ssize_t n = write(*fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            p->failed = errno;
            close(*fd);
            *fd = -1;
            return;
        }
        at += n;
        len -= (size_t)n;
    }
}

static int begin_jitdump(struct perf *p, struct tv_error *err)
{
    struct jitdump_header header = {.magic = JITDUMP_MAGIC,
                                    .version = JITDUMP_VERSION,
                                    .total_size = sizeof(header),
                                    .elf_mach = ELF_MACHINE,
                                    .pid = p->pid,
                                    .timestamp = clock_now_ns()};
    put(p, &p->jitdump_fd, &header, sizeof(header));
    if (p->failed)
        return tv_error_set(err, -p->failed, "jitdump: %s", strerror(p->failed));
    void *marker = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_EXEC, MAP_PRIVATE, p->jitdump_fd, 0);
    if (marker == MAP_FAILED)
        return tv_error_set(err, -errno, "jitdump: cannot be mapped executable: %s; its file system may be mounted noexec",
                            strerror(errno));
    p->marker = marker;
    return 0;
}

int perf_create(struct perf **out, int map_fd, int jitdump_fd, struct tv_error *err)
{
    struct perf *p = calloc(1, sizeof(*p));
    if (!p) {
        if (map_fd >= 0)
            close(map_fd);
        if (jitdump_fd >= 0)
            close(jitdump_fd);
        return tv_error_set(err, -ENOMEM, "perf map: no memory");
    }
    *p = (struct perf){.map_fd = map_fd, .jitdump_fd = jitdump_fd, .pid = (uint32_t)getpid()};
    int rc = jitdump_fd >= 0 ? begin_jitdump(p, err) : 0;
    if (rc < 0) {
        perf_destroy(p);
        return rc;
    }
    *out = p;
    return 0;
}

void perf_destroy(struct perf *p)
{
    if (!p)
        return;
    const struct jitdump_record end = {.id = JIT_CODE_CLOSE, .total_size = sizeof(end), .timestamp = clock_now_ns()};
    put(p, &p->jitdump_fd, &end, sizeof(end));
    if (p->failed)
        log_event(LOG_WARN, "engine", "perf map or jitdump is not complete", LOG_STR("error", strerror(p->failed)));
    if (p->map_fd >= 0)
        close(p->map_fd);
    if (p->jitdump_fd >= 0)
        close(p->jitdump_fd);
    if (p->marker)
        munmap(p->marker, PAGE_BYTES);
    free(p);
}

static void add_to_map(struct perf *p, uint64_t start, size_t bytes, const char *name)
{
    char line[PERF_NAME_MAX + 40];
    int len = snprintf(line, sizeof(line), "%" PRIx64 " %zx %s\n", start, bytes, name);
    put(p, &p->map_fd, line, (size_t)len);
}

static void add_to_jitdump(struct perf *p, const void *code, size_t bytes, const char *name, size_t name_len)
{
    uint64_t addr = (uint64_t)(uintptr_t)code;
    const struct jitdump_load load = {
        .record = {.id = JIT_CODE_LOAD, .total_size = (uint32_t)(sizeof(load) + name_len + 1 + bytes), .timestamp = clock_now_ns()},
        .pid = p->pid,
        .tid = (uint32_t)gettid(),
        .vma = addr,
        .code_addr = addr,
        .code_size = bytes,
        .code_index = p->index++};
    put(p, &p->jitdump_fd, &load, sizeof(load));
    put(p, &p->jitdump_fd, name, name_len + 1);
    put(p, &p->jitdump_fd, code, bytes);
}

void perf_add(struct perf *p, const void *code, size_t bytes, const char *name, bool kept)
{
    size_t len = strlen(name);
    assert(len < PERF_NAME_MAX);
    if (p->map_fd >= 0)
        add_to_map(p, (uint64_t)(uintptr_t)code, bytes, name);
    if (p->jitdump_fd >= 0)
        add_to_jitdump(p, code, bytes, name, len);
    if (kept && p->map_fd >= 0)
        p->kept_bytes = lseek(p->map_fd, 0, SEEK_CUR);
}

// The map names what is there; the jitdump's reader goes by time.
void perf_forget(struct perf *p)
{
    if (p->map_fd < 0)
        return;
    if (ftruncate(p->map_fd, p->kept_bytes) < 0 || lseek(p->map_fd, p->kept_bytes, SEEK_SET) < 0)
        p->failed = errno;
}
