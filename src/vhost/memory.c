// Guest memory: sealed memfds, mapped regions, checked views, and the SIGBUS guard for regions whose file may be cut.
//
// The guard's table is the only thing that is shared by threads; its slots are taken and given back without a lock, because the
// signal handler reads it.
#include "vhost/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define GUARD_SLOTS 1024

// start is written last and cleared first: a slot is in use while it is not 0.
struct guard_slot {
    _Atomic uintptr_t start;
    _Atomic uintptr_t len_bytes;
    atomic_bool lost;
};

static struct guard_slot guard_slots[GUARD_SLOTS];
static struct sigaction guard_previous;

// Replaces the whole region by zero pages, so that a hostile file costs one fault and not one for each page. mmap() is a bare
// system call here; a fault comes from an access of ours, never from within mmap().
static bool guard_rescue(uintptr_t addr)
{
    for (unsigned i = 0; i < GUARD_SLOTS; i++) {
        struct guard_slot *slot = &guard_slots[i];
        uintptr_t start = atomic_load_explicit(&slot->start, memory_order_acquire);
        uintptr_t len = atomic_load_explicit(&slot->len_bytes, memory_order_relaxed);
        if (start == 0 || addr < start || addr - start >= len)
            continue;
        void *map =
            mmap((void *)start, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED)
            return false;
        atomic_store_explicit(&slot->lost, true, memory_order_release);
        return true;
    }
    return false;
}

static void guard_handler(int signo, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    if (info->si_code > 0 && guard_rescue((uintptr_t)info->si_addr)) {
        errno = saved_errno;
        return;
    }
    errno = saved_errno;
    if (guard_previous.sa_flags & SA_SIGINFO) {
        guard_previous.sa_sigaction(signo, info, context);
    } else if (guard_previous.sa_handler != SIG_DFL && guard_previous.sa_handler != SIG_IGN) {
        guard_previous.sa_handler(signo);
    } else {
        // Back to what was there: the access faults again and ends the process as it would have without us.
        sigaction(signo, &guard_previous, NULL);
        if (info->si_code <= 0)
            raise(signo);
    }
}

int guest_memory_guard_install(struct tv_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct sigaction action = {.sa_sigaction = guard_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK}, there;
    sigemptyset(&action.sa_mask);
    pthread_mutex_lock(&lock);
    int ret = sigaction(SIGBUS, NULL, &there);
    bool installed = ret == 0 && (there.sa_flags & SA_SIGINFO) && there.sa_sigaction == guard_handler;
    if (ret == 0 && !installed) { // for the first time, or somebody took our place
        guard_previous = there;
        ret = sigaction(SIGBUS, &action, NULL);
    }
    ret = ret < 0 ? -errno : 0;
    pthread_mutex_unlock(&lock);
    return ret == 0 ? 0 : tv_error_set(err, ret, "guest memory: cannot install the SIGBUS guard: %s", strerror(-ret));
}

static int guard_add(uintptr_t start, uintptr_t len_bytes)
{
    for (int i = 0; i < GUARD_SLOTS; i++) {
        // A slot is claimed by its length, which nobody looks at while start is 0.
        uintptr_t expected = 0;
        if (!atomic_compare_exchange_strong(&guard_slots[i].len_bytes, &expected, len_bytes))
            continue;
        atomic_store_explicit(&guard_slots[i].lost, false, memory_order_relaxed);
        atomic_store_explicit(&guard_slots[i].start, start, memory_order_release); // pairs with guard_rescue()
        return i;
    }
    return -ENOSPC;
}

static void guard_remove(int slot)
{
    if (slot < 0)
        return;
    atomic_store_explicit(&guard_slots[slot].start, 0, memory_order_release);
    atomic_store_explicit(&guard_slots[slot].len_bytes, 0, memory_order_release);
}

static int ram_create(const char *name, uint64_t size_bytes, unsigned flags, struct tv_error *err)
{
    if (size_bytes == 0 || size_bytes > INT64_MAX)
        return tv_error_set(err, -EINVAL, "guest memory '%s': size of %llu bytes", name, (unsigned long long)size_bytes);
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
    if (fd < 0)
        return tv_error_set(err, -errno, "guest memory '%s': memfd_create: %s", name, strerror(errno));
    if (ftruncate(fd, (off_t)size_bytes) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int code = -errno;
        close(fd);
        return tv_error_set(err, code, "guest memory '%s': cannot have %llu bytes: %s", name, (unsigned long long)size_bytes,
                            strerror(-code));
    }
    return fd;
}

int guest_ram_create(const char *name, uint64_t size_bytes, struct tv_error *err)
{
    return ram_create(name, size_bytes, 0, err);
}

int guest_ram_create_huge(const char *name, uint64_t size_bytes, struct tv_error *err)
{
    int fd = ram_create(name, size_bytes, MFD_HUGETLB | MFD_HUGE_2MB, err);
    if (fd < 0 || fallocate(fd, 0, 0, (off_t)size_bytes) == 0)
        return fd;
    int code = errno == ENOSPC ? -ENOMEM : -errno; // what hugetlbfs says when none are left
    close(fd);
    return tv_error_set(
        err, code,
        "guest memory '%s': cannot have %llu huge pages of 2 MiB: %s; make more (sysctl vm.nr_hugepages) or leave out hugepages",
        name, (unsigned long long)(size_bytes / GUEST_HUGE_PAGE_BYTES), strerror(-code));
}

void guest_memory_init(struct guest_memory *mem)
{
    mem->n_regions = 0;
}

static void region_unmap(struct guest_region *region)
{
    guard_remove(region->guard_slot);
    munmap(region->map, region->map_bytes);
    close(region->fd);
}

void guest_memory_fini(struct guest_memory *mem)
{
    for (unsigned i = 0; i < mem->n_regions; i++)
        region_unmap(&mem->regions[i]);
    mem->n_regions = 0;
}

static bool ranges_overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b ? b - a < a_bytes : a - b < b_bytes;
}

// All that can be said before the descriptor is looked at. No range may reach the last byte of the address space, so that
// start + size never wraps.
static int region_check(const struct guest_memory *mem, const struct guest_region *region, struct tv_error *err)
{
    uint64_t size = region->size_bytes;
    if (size == 0 || size > INT64_MAX || region->guest_addr > UINT64_MAX - size || region->user_addr > UINT64_MAX - size ||
        region->fd_offset > (uint64_t)INT64_MAX - size)
        return tv_error_set(err, -EINVAL, "memory region at 0x%llx: it is empty or wraps around",
                            (unsigned long long)region->guest_addr);
    for (unsigned i = 0; i < mem->n_regions; i++) {
        const struct guest_region *other = &mem->regions[i];
        if (ranges_overlap(region->guest_addr, size, other->guest_addr, other->size_bytes) ||
            (region->user_addr && ranges_overlap(region->user_addr, size, other->user_addr, other->size_bytes)))
            return tv_error_set(err, -EINVAL, "memory region at 0x%llx: it overlaps the one at 0x%llx",
                                (unsigned long long)region->guest_addr, (unsigned long long)other->guest_addr);
    }
    if (mem->n_regions == GUEST_REGIONS_MAX)
        return tv_error_set(err, -ENOSPC, "memory region at 0x%llx: there are %d already", (unsigned long long)region->guest_addr,
                            GUEST_REGIONS_MAX);
    return 0;
}

// Maps whole pages of the file's own page size (hugetlbfs tells it as the block size), from the one that holds fd_offset on.
static int region_map(struct guest_region *region, struct tv_error *err)
{
    struct stat st;
    if (fstat(region->fd, &st) < 0)
        return tv_error_set(err, -errno, "memory region at 0x%llx: %s", (unsigned long long)region->guest_addr, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size < region->fd_offset + region->size_bytes)
        return tv_error_set(err, -EINVAL, "memory region at 0x%llx: its descriptor is no file of at least %llu bytes",
                            (unsigned long long)region->guest_addr, (unsigned long long)(region->fd_offset + region->size_bytes));
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t block = (uint64_t)st.st_blksize;
    if (block > page && block <= (1ull << 30) && (block & (block - 1)) == 0 && (uint64_t)st.st_size % block == 0)
        page = block;
    uint64_t head = region->fd_offset & (page - 1);
    uint64_t bytes = (head + region->size_bytes + page - 1) & ~(page - 1);
    void *map =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, region->fd, (off_t)(region->fd_offset - head));
    if (map == MAP_FAILED)
        return tv_error_set(err, -errno, "memory region at 0x%llx: cannot map %llu bytes: %s%s",
                            (unsigned long long)region->guest_addr, (unsigned long long)bytes, strerror(errno),
                            errno == ENOMEM ? "; give the machine less memory" : "");
    region->map = map;
    region->map_bytes = bytes;
    region->host = region->map + head;
    region->guard_slot = -1;
    int seals = fcntl(region->fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK)) {
        region->guard_slot = guard_add((uintptr_t)map, bytes);
        if (region->guard_slot < 0) {
            munmap(map, bytes);
            return tv_error_set(err, -ENOSPC, "memory region at 0x%llx: over %d regions without F_SEAL_SHRINK",
                                (unsigned long long)region->guest_addr, GUARD_SLOTS);
        }
    }
    return 0;
}

int guest_memory_add(struct guest_memory *mem, uint64_t guest_addr, uint64_t size_bytes, int fd, uint64_t fd_offset,
                     uint64_t user_addr, struct tv_error *err)
{
    struct guest_region region = {
        .guest_addr = guest_addr, .size_bytes = size_bytes, .user_addr = user_addr, .fd = fd, .fd_offset = fd_offset};
    int ret = region_check(mem, &region, err);
    if (ret == 0)
        ret = region_map(&region, err);
    if (ret < 0) {
        close(fd);
        return ret;
    }
    if (user_addr == 0)
        region.user_addr = (uint64_t)(uintptr_t)region.host;
    mem->regions[mem->n_regions++] = region;
    return 0;
}

int guest_memory_remove(struct guest_memory *mem, uint64_t guest_addr, uint64_t size_bytes)
{
    for (unsigned i = 0; i < mem->n_regions; i++) {
        if (mem->regions[i].guest_addr != guest_addr || mem->regions[i].size_bytes != size_bytes)
            continue;
        region_unmap(&mem->regions[i]);
        mem->n_regions--;
        memmove(&mem->regions[i], &mem->regions[i + 1], (mem->n_regions - i) * sizeof(mem->regions[0]));
        return 0;
    }
    return -ENOENT;
}

void *guest_memory_view_part(const struct guest_memory *mem, uint64_t guest_addr, uint64_t len_bytes, uint64_t *got_bytes)
{
    for (unsigned i = 0; i < mem->n_regions; i++) {
        const struct guest_region *region = &mem->regions[i];
        uint64_t offset = guest_addr - region->guest_addr; // wraps to something large when it is below
        if (offset >= region->size_bytes)
            continue;
        uint64_t rest = region->size_bytes - offset;
        *got_bytes = len_bytes < rest ? len_bytes : rest;
        return region->host + offset;
    }
    return NULL;
}

void *guest_memory_view(const struct guest_memory *mem, uint64_t guest_addr, uint64_t len_bytes)
{
    uint64_t got = 0;
    void *view = guest_memory_view_part(mem, guest_addr, len_bytes, &got);
    return got == len_bytes ? view : NULL;
}

void *guest_memory_view_user(const struct guest_memory *mem, uint64_t user_addr, uint64_t len_bytes, uint64_t *guest_addr)
{
    for (unsigned i = 0; i < mem->n_regions; i++) {
        const struct guest_region *region = &mem->regions[i];
        uint64_t offset = user_addr - region->user_addr;
        if (offset >= region->size_bytes || region->size_bytes - offset < len_bytes)
            continue;
        if (guest_addr)
            *guest_addr = region->guest_addr + offset;
        return region->host + offset;
    }
    return NULL;
}

bool guest_memory_find(const struct guest_memory *mem, const void *byte, uint64_t *guest_addr)
{
    for (unsigned i = 0; i < mem->n_regions; i++) {
        const struct guest_region *region = &mem->regions[i];
        const uint64_t offset = (uintptr_t)byte - (uintptr_t)region->host;
        if (offset >= region->size_bytes)
            continue;
        *guest_addr = region->guest_addr + offset;
        return true;
    }
    return false;
}

bool guest_memory_is_lost(const struct guest_memory *mem)
{
    for (unsigned i = 0; i < mem->n_regions; i++) {
        int slot = mem->regions[i].guard_slot;
        if (slot >= 0 && atomic_load_explicit(&guard_slots[slot].lost, memory_order_acquire))
            return true;
    }
    return false;
}
