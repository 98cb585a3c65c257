// Translated code's memory: see code.h.
#include "machine/engine/rv64/x86_64/code.h"

#include "base/clock.h"
#include "machine/engine/perf.h"
#include "machine/engine/rv64/mmu.h"
#include "machine/engine/rv64/translator.h"
#include "machine/engine/rv64/x86_64/translate.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define CODE_PER_NOTES 3
#define CODE_PER_BLOCK 256 // so many bytes of code to a slot of the hash of blocks; of pages; of runs
#define CODE_PER_PAGE 4096
#define CODE_PER_RUN 64

// Code that runs only a few times, as much of a boot does, is not worth translating.
#define COLD_RUNS 16

// Shared anonymous memory: mremap() maps it once more (its old size 0), and perf(1) looks into /tmp/perf-PID.map for it.
static int map(struct rv64_code *c)
{
    void *w = mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (w == MAP_FAILED)
        return -errno;
    c->write = w;
    uint8_t *x = mmap(NULL, c->bytes + c->notes_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (x == MAP_FAILED)
        return -errno;
    c->execute = x;
    c->notes = x + c->bytes;
    if (mremap(w, 0, c->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, x) == MAP_FAILED)
        return -errno;
    return mprotect(x, c->bytes, PROT_READ | PROT_EXEC) < 0 ? -errno : 0;
}

static unsigned power_of_two(size_t at_least)
{
    unsigned n = 1;
    while (n < at_least)
        n *= 2;
    return n;
}

static size_t tables_bytes(const struct rv64_code *c)
{
    return c->n_blocks * sizeof(*c->blocks) + c->n_pages * sizeof(*c->pages) + c->n_runs * sizeof(*c->runs);
}

// One mapping, of which only what is used costs memory.
static int map_tables(struct rv64_code *c)
{
    c->n_blocks = power_of_two(c->bytes / CODE_PER_BLOCK);
    c->n_pages = power_of_two(c->bytes / CODE_PER_PAGE);
    c->n_runs = power_of_two(c->bytes / CODE_PER_RUN);
    void *at = mmap(NULL, tables_bytes(c), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -errno;
    c->blocks = at;
    c->pages = (uint32_t *)at + c->n_blocks;
    c->runs = (uint8_t *)(c->pages + c->n_pages);
    return 0;
}

int rv64_code_create(struct rv64_code **out, size_t bytes, unsigned n_jumps, struct perf *perf, struct tv_error *err)
{
    struct rv64_code *c = calloc(1, sizeof(*c));
    if (!c)
        return tv_error_set(err, -ENOMEM, "rv64: no memory for the translator");
    c->bytes = bytes & RV64_PAGE_MASK;
    c->notes_bytes = rv64_whole_pages(c->bytes / CODE_PER_NOTES);
    c->notes_used = sizeof(uint64_t); // 0 is none
    c->n_jumps = n_jumps;
    c->chain = true;
    c->perf = perf;
    pthread_mutex_init(&c->lock, NULL);
    pthread_rwlockattr_t writers_first;
    pthread_rwlockattr_init(&writers_first);
    pthread_rwlockattr_setkind_np(&writers_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&c->in_use, &writers_first);
    pthread_rwlockattr_destroy(&writers_first);
    int ret = map(c);
    if (ret == 0)
        ret = map_tables(c);
    if (ret != 0) {
        tv_error_set(err, ret, "rv64: no executable memory for the translator (%zu KiB): %s", c->bytes / 1024, strerror(-ret));
        rv64_code_destroy(c);
        return ret;
    }
    code_make_thunks(c);
    code_name_thunks(c);
    *out = c;
    return 0;
}

void rv64_code_destroy(struct rv64_code *c)
{
    if (!c)
        return;
    if (c->write)
        munmap(c->write, c->bytes);
    if (c->execute)
        munmap((void *)(uintptr_t)c->execute, c->bytes + c->notes_bytes);
    if (c->blocks)
        munmap(c->blocks, tables_bytes(c));
    pthread_rwlock_destroy(&c->in_use);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static uint64_t hash_of(const uint8_t *guest)
{
    return (uintptr_t)guest / 2 * 0x9e3779b97f4a7c15ull >> 32;
}

bool code_is_cold(struct rv64_code *c, const uint8_t *guest)
{
    uint8_t *runs = &c->runs[hash_of(guest) % c->n_runs];
    if (*runs >= COLD_RUNS)
        return false;
    ++*runs;
    return true;
}

void *code_note(struct rv64_code *c, size_t bytes)
{
    bytes = (bytes + 7) & ~7ull;
    if (c->notes_used + bytes > c->notes_bytes)
        return NULL;
    void *note = c->notes + c->notes_used;
    c->notes_used += bytes;
    return note;
}

struct code_page *code_page(struct rv64_code *c, const uint8_t *guest)
{
    guest = (const uint8_t *)((uintptr_t)guest & RV64_PAGE_MASK);
    uint32_t *slot = &c->pages[hash_of(guest) % c->n_pages];
    for (struct code_page *p = code_note_at(c, *slot); p; p = code_note_at(c, p->next))
        if (p->guest == guest)
            return p;
    struct code_page *p = code_note(c, sizeof(*p));
    if (!p)
        return NULL;
    p->guest = guest;
    p->verified = atomic_load(&c->fences);
    p->next = *slot;
    *slot = code_note_of(c, p);
    return p;
}

static _Atomic uint32_t *slot_of(const struct rv64_code *c, const uint8_t *guest)
{
    return &c->blocks[hash_of(guest) % c->n_blocks];
}

struct code_block *code_find(const struct rv64_code *c, const uint8_t *guest, unsigned priv)
{
    struct code_block *b = code_note_at(c, atomic_load_explicit(slot_of(c, guest), memory_order_acquire));
    while (b && (b->guest != guest || (b->priv & ~CODE_SMALL) != priv))
        b = code_note_at(c, atomic_load_explicit(&b->next, memory_order_acquire));
    return b;
}

void code_add(struct rv64_code *c, struct code_page *page, struct code_block *b)
{
    _Atomic uint32_t *slot = slot_of(c, b->guest);
    if (page) {
        b->page = code_note_of(c, page);
        b->next_in_page = page->blocks;
        page->blocks = code_note_of(c, b);
    }
    b->next = *slot;
    atomic_store_explicit(slot, code_note_of(c, b), memory_order_release);
}

static void set_distance(const struct rv64_code *c, uint32_t site, uint32_t target)
{
    // Others may execute the jump meanwhile: they see the old distance or the new one (translate.c keeps it in one cache line).
    __atomic_store_n((int32_t *)(void *)(c->write + site), (int32_t)(target - (site + 4)), __ATOMIC_RELAXED);
}

static void take_out(const struct rv64_code *c, const struct code_block *b)
{
    uint32_t note = code_note_of(c, b);
    _Atomic uint32_t *at = slot_of(c, b->guest);
    while (*at != note)
        at = &((struct code_block *)code_note_at(c, *at))->next;
    atomic_store_explicit(at, b->next, memory_order_release);
}

void code_forget(struct rv64_code *c, struct code_block *b)
{
    take_out(c, b);
    for (const struct code_link *link = code_note_at(c, b->links); link; link = code_note_at(c, link->next))
        set_distance(c, link->site, link->stub);
}

void code_replace(struct rv64_code *c, struct code_page *page, struct code_block *b, struct code_block *by)
{
    uint32_t note = code_note_of(c, b), *at = &page->blocks, *last = &by->links;
    take_out(c, b);
    while (*at != note)
        at = &((struct code_block *)code_note_at(c, *at))->next_in_page;
    *at = b->next_in_page;
    while (*last)
        last = &((struct code_link *)code_note_at(c, *last))->next;
    *last = b->links;
    for (const struct code_link *link = code_note_at(c, b->links); link; link = code_note_at(c, link->next))
        set_distance(c, link->site, by->entry + by->body);
}

// What other harts write meanwhile is theirs to fence.
static RV64_GUEST_RACES bool agrees(const struct code_block *b)
{
    unsigned i = 0, bytes = b->guest_halves * 2u;
    for (; i + 8 <= bytes; i += 8)
        if (((const struct rv64_unaligned_uint64_t *)(const void *)(b->guest + i))->value !=
            ((const struct rv64_unaligned_uint64_t *)(const void *)(b->copy + i))->value)
            return false;
    for (; i < bytes; i += 2)
        if (((const struct rv64_unaligned_uint16_t *)(const void *)(b->guest + i))->value !=
            ((const struct rv64_unaligned_uint16_t *)(const void *)(b->copy + i))->value)
            return false;
    return true;
}

void code_verify(struct rv64_code *c, struct code_page *page, uint64_t fence)
{
    if (page->verified >= fence)
        return;
    uint64_t now = atomic_load(&c->fences);
    for (uint32_t *at = &page->blocks; *at;) {
        struct code_block *b = code_note_at(c, *at);
        if (agrees(b)) {
            at = &b->next_in_page;
        } else {
            code_forget(c, b);
            *at = b->next_in_page;
        }
    }
    atomic_store_explicit(&page->verified, now, memory_order_release); // those that have changed are found no more
}

bool code_link(struct rv64_code *c, struct code_block *b, uint32_t site)
{
    uint32_t body = b->entry + b->body, now = site + 4 + *(const uint32_t *)(const void *)(c->write + site);
    if (now == body)
        return true; // another hart was first
    struct code_link *link = code_note(c, sizeof(*link));
    if (!link)
        return false;
    *link = (struct code_link){.next = b->links, .site = site, .stub = now};
    b->links = code_note_of(c, link);
    set_distance(c, site, body);
    return true;
}

// --- What the vcpus see of it (translator.h)

void rv64_code_fence(struct rv64_vcpu *v)
{
    v->code_fence = atomic_fetch_add(&v->engine->code->fences, 1) + 1;
    rv64_mmu_flush_jumps(v);
}

void rv64_code_measure(struct rv64_code *c, struct engine_code *out)
{
    pthread_mutex_lock(&c->lock);
    *out = (struct engine_code){.room_bytes = c->bytes, .used_bytes = c->used, .thrown_away = atomic_load(&c->epoch)};
    pthread_mutex_unlock(&c->lock);
}

static void throw_away(struct rv64_code *c)
{
    pthread_mutex_lock(&c->lock);
    memset(c->blocks, 0, (size_t)((uint8_t *)c->runs - (uint8_t *)c->blocks)); // and the pages behind it
    for (unsigned i = 0; i < c->n_runs; i++)
        c->runs[i] /= 2; // what ran often soon counts as that again
    c->used = c->thunk_bytes;
    memset(c->notes, 0, c->notes_used);
    c->notes_used = sizeof(uint64_t);
    if (c->perf)
        perf_forget(c->perf);
    atomic_store(&c->full, false);
    atomic_fetch_add(&c->epoch, 1);
    pthread_mutex_unlock(&c->lock);
}

void rv64_code_begin(struct rv64_code *c)
{
    pthread_rwlock_rdlock(&c->in_use);
}

void rv64_code_end(struct rv64_code *c)
{
    pthread_rwlock_unlock(&c->in_use);
}

void rv64_code_make_room(struct rv64_vcpu *v)
{
    struct rv64_engine *e = v->engine;
    struct rv64_code *c = e->code;
    if (!atomic_load(&c->full))
        return;
    // A vcpu may have heeded its attention just before it went in again: so it is asked anew.
    int ret;
    do {
        for (unsigned i = 0; i < e->config.n_vcpus; i++)
            if (e->vcpus[i] != v)
                rv64_attention(e->vcpus[i], RV64_ATTN_INTERRUPT);
        uint64_t until_ns = clock_now_ns() + NS_PER_S / 1000;
        struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_S), .tv_nsec = (long)(until_ns % NS_PER_S)};
        ret = pthread_rwlock_clockwrlock(&c->in_use, CLOCK_MONOTONIC, &until);
    } while (ret != 0);
    if (atomic_load(&c->full))
        throw_away(c);
    pthread_rwlock_unlock(&c->in_use);
}
