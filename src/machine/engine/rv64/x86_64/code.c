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

#define NOTES_PER_CODE 4 // of code to one of notes

// Shared anonymous memory: mremap() maps it once more (its old size 0), and perf(1) looks into /tmp/perf-PID.map for it.
static int map(struct rv64_code *c)
{
    void *w = mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (w == MAP_FAILED)
        return -errno;
    c->write = w;
    void *x = mremap(w, 0, c->bytes, MREMAP_MAYMOVE);
    if (x == MAP_FAILED)
        return -errno;
    c->execute = x;
    if (mprotect(x, c->bytes, PROT_READ | PROT_EXEC) < 0)
        return -errno;
    void *notes = mmap(NULL, c->notes_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    c->notes = notes == MAP_FAILED ? NULL : notes;
    return c->notes ? 0 : -ENOMEM;
}

int rv64_code_create(struct rv64_code **out, size_t bytes, struct perf *perf, struct tv_error *err)
{
    struct rv64_code *c = calloc(1, sizeof(*c));
    if (!c)
        return tv_error_set(err, -ENOMEM, "rv64: no memory for the translator");
    c->bytes = bytes & RV64_PAGE_MASK;
    c->notes_bytes = c->bytes / NOTES_PER_CODE & RV64_PAGE_MASK;
    c->chain = true;
    c->perf = perf;
    pthread_mutex_init(&c->lock, NULL);
    pthread_rwlockattr_t writers_first;
    pthread_rwlockattr_init(&writers_first);
    pthread_rwlockattr_setkind_np(&writers_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&c->in_use, &writers_first);
    pthread_rwlockattr_destroy(&writers_first);
    int ret = map(c);
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
        munmap((void *)(uintptr_t)c->execute, c->bytes);
    if (c->notes)
        munmap(c->notes, c->notes_bytes);
    pthread_rwlock_destroy(&c->in_use);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static unsigned hash_of(const uint8_t *guest)
{
    return (unsigned)((uintptr_t)guest / 2 * 0x9e3779b97f4a7c15ull >> 40);
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
    struct code_page **slot = &c->pages[hash_of(guest) % CODE_PAGE_SLOTS];
    for (struct code_page *p = *slot; p; p = p->next)
        if (p->guest == guest)
            return p;
    struct code_page *p = code_note(c, sizeof(*p));
    if (!p)
        return NULL;
    p->guest = guest;
    p->verified = atomic_load(&c->fences);
    p->next = *slot;
    *slot = p;
    return p;
}

struct code_block *code_find(const struct rv64_code *c, const uint8_t *guest, unsigned priv)
{
    struct code_block *b = c->blocks[hash_of(guest) % CODE_BLOCK_SLOTS];
    while (b && (b->guest != guest || b->priv != priv))
        b = b->next;
    return b;
}

void code_add(struct rv64_code *c, struct code_page *page, struct code_block *b)
{
    struct code_block **slot = &c->blocks[hash_of(b->guest) % CODE_BLOCK_SLOTS];
    b->next = *slot;
    *slot = b;
    if (page) {
        b->next_in_page = page->blocks;
        page->blocks = b;
    }
}

static void set_distance(uint8_t *site, const uint8_t *target)
{
    // Others may execute the jump meanwhile: they see the old distance or the new one (translate.c keeps it in one cache line).
    __atomic_store_n((int32_t *)(void *)site, (int32_t)(target - (site + 4)), __ATOMIC_RELAXED);
}

void code_forget(struct rv64_code *c, const struct code_block *b)
{
    struct code_block **at = &c->blocks[hash_of(b->guest) % CODE_BLOCK_SLOTS];
    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    for (const struct code_link *link = b->links; link; link = link->next)
        set_distance(link->site, link->stub);
}

// What other harts write meanwhile is theirs to fence.
static RV64_GUEST_RACES bool agrees(const struct code_block *b)
{
    unsigned i = 0;
    for (; i + 8 <= b->guest_bytes; i += 8)
        if (((const struct rv64_unaligned_uint64_t *)(const void *)(b->guest + i))->value !=
            ((const struct rv64_unaligned_uint64_t *)(const void *)(b->copy + i))->value)
            return false;
    for (; i < b->guest_bytes; i += 2)
        if (((const struct rv64_unaligned_uint16_t *)(const void *)(b->guest + i))->value !=
            ((const struct rv64_unaligned_uint16_t *)(const void *)(b->copy + i))->value)
            return false;
    return true;
}

void code_verify(struct rv64_code *c, struct code_page *page, uint64_t fence)
{
    if (page->verified >= fence)
        return;
    page->verified = atomic_load(&c->fences);
    for (struct code_block **at = &page->blocks; *at;) {
        if (agrees(*at)) {
            at = &(*at)->next_in_page;
        } else {
            code_forget(c, *at);
            *at = (*at)->next_in_page;
        }
    }
}

bool code_link(struct rv64_code *c, struct code_block *b, uint8_t *site)
{
    const uint8_t *body = code_written(c, b->body), *now = site + 4 + *(const int32_t *)(const void *)site;
    if (now == body)
        return true; // another hart was first
    struct code_link *link = code_note(c, sizeof(*link));
    if (!link)
        return false;
    *link = (struct code_link){.next = b->links, .site = site, .stub = now};
    b->links = link;
    set_distance(site, body);
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
    memset(c->blocks, 0, sizeof(c->blocks));
    memset(c->pages, 0, sizeof(c->pages));
    c->used = c->thunk_bytes;
    memset(c->notes, 0, c->notes_used);
    c->notes_used = 0;
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
