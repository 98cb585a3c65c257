// Which pages the guest wrote: see kvm.h.
//
// With the dirty ring (8.29) each vcpu shares a ring with the kernel, which puts a page there when the guest first writes to it;
// harvesting costs what was written and not how much memory there is, and a guest that writes faster than is asked stops until its
// ring was emptied. A kernel without it (before 5.11) has a bitmap of each region (4.8, the dirty log). A VM has one or the other,
// from before its first vcpu.
//
// What was harvested and not yet asked for is in a bitmap for each region, guarded by dirty.lock: a vcpu whose ring is full
// harvests on its own thread, all others in kvm_dirty_log().
#include "machine/engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES 4096ull
#define RING_ENTRIES 4096u // a vcpu; 64 KiB, which the kernel takes for each

static size_t words_of(const struct guest_region *r)
{
    return ((r->size_bytes + PAGE_BYTES - 1) / PAGE_BYTES + 63) / 64;
}

void kvm_dirty_prepare(struct kvm_engine *e)
{
    int max_bytes = ioctl(e->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING);
    uint64_t bytes = RING_ENTRIES * sizeof(struct kvm_dirty_gfn);
    struct kvm_enable_cap ring = {.cap = KVM_CAP_DIRTY_LOG_RING, .args = {bytes}};
    if (max_bytes >= (int)bytes && ioctl(e->vm_fd, KVM_ENABLE_CAP, &ring) == 0)
        e->dirty.ring_entries = RING_ENTRIES;
}

int kvm_dirty_add_vcpu(struct kvm_vcpu *v)
{
    if (!v->engine->dirty.ring_entries)
        return 0;
    size_t bytes = v->engine->dirty.ring_entries * sizeof(*v->dirty_ring);
    off_t offset = (off_t)(KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_BYTES);
    void *ring = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, offset);
    if (ring == MAP_FAILED)
        return -errno;
    v->dirty_ring = ring;
    return 0;
}

void kvm_dirty_remove_vcpu(struct kvm_vcpu *v)
{
    if (v->dirty_ring)
        munmap(v->dirty_ring, v->engine->dirty.ring_entries * sizeof(*v->dirty_ring));
}

void kvm_dirty_fini(struct kvm_engine *e)
{
    for (unsigned i = 0; i < GUEST_REGIONS_MAX; i++)
        free(e->dirty.pages[i]);
}

// Under the lock. Slots are regions. The kernel sets DIRTY behind what the entry says, and takes an entry back once RESET is set.
static void harvest_vcpu(struct kvm_engine *e, struct kvm_vcpu *v)
{
    for (;; v->dirty_next++) {
        struct kvm_dirty_gfn *entry = &v->dirty_ring[v->dirty_next % e->dirty.ring_entries];
        if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
            return;
        uint32_t region = entry->slot;
        if (region < e->config.mem->n_regions && e->dirty.pages[region] &&
            entry->offset / 64 < words_of(&e->config.mem->regions[region]))
            e->dirty.pages[region][entry->offset / 64] |= 1ull << entry->offset % 64;
        __atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
    }
}

// Pages are protected again when their entries are taken back: what is written from then on is told anew.
static int harvest(struct kvm_engine *e)
{
    for (unsigned i = 0; i < e->n_vcpus; i++)
        harvest_vcpu(e, &e->vcpus[i]);
    return ioctl(e->vm_fd, KVM_RESET_DIRTY_RINGS, 0) < 0 ? -errno : 0;
}

int kvm_dirty_ring_full(struct kvm_vcpu *v)
{
    struct kvm_engine *e = v->engine;
    pthread_mutex_lock(&e->dirty.lock);
    int rc = harvest(e);
    pthread_mutex_unlock(&e->dirty.lock);
    if (rc < 0)
        kvm_fail(e, "vcpu %u: its dirty ring cannot be emptied: %s", v->id, strerror(-rc));
    return rc;
}

// The first call: nothing has been written since then.
static int start_log(struct kvm_engine *e, unsigned region)
{
    uint64_t *pages = NULL;
    if (e->dirty.ring_entries && !(pages = calloc(words_of(&e->config.mem->regions[region]), sizeof(*pages))))
        return -ENOMEM;
    int rc = kvm_put_memory(e, region, KVM_MEM_LOG_DIRTY_PAGES);
    if (rc < 0) {
        free(pages);
        return rc;
    }
    e->dirty.pages[region] = pages;
    e->dirty.runs[region] = true;
    return 0;
}

static int take_harvest(struct kvm_engine *e, unsigned region, uint64_t *bitmap)
{
    size_t bytes = words_of(&e->config.mem->regions[region]) * sizeof(*bitmap);
    int rc = harvest(e);
    if (rc < 0)
        return rc;
    memcpy(bitmap, e->dirty.pages[region], bytes);
    memset(e->dirty.pages[region], 0, bytes);
    return 0;
}

int kvm_dirty_log(struct engine *engine, unsigned region, uint64_t *bitmap, size_t n_words)
{
    struct kvm_engine *e = kvm_engine_of(engine);
    struct kvm_dirty_log log = {.slot = region, .dirty_bitmap = bitmap};
    if (region >= e->config.mem->n_regions || n_words < words_of(&e->config.mem->regions[region]))
        return -EINVAL;
    memset(bitmap, 0, n_words * sizeof(*bitmap));
    pthread_mutex_lock(&e->dirty.lock);
    int rc = !e->dirty.runs[region]                         ? start_log(e, region)
             : e->dirty.ring_entries                        ? take_harvest(e, region, bitmap)
             : ioctl(e->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0 ? -errno
                                                            : 0;
    pthread_mutex_unlock(&e->dirty.lock);
    return rc;
}
