// Fences: what a hart must forget, asked for by itself or by others (SBI RFENCE).
//
// A request is put into the other hart's queue under its lock and waited for only while that hart is in the guest. A hart that
// waits for another has left the guest itself, so that no circle of waiting can close.
#include "machine/engine/rv64/mmu.h"
#include "machine/engine/rv64/translator.h"

// Above this many pages forgetting everything is cheaper.
#define PAGES_MAX 64

static void fence_code(struct rv64_vcpu *v)
{
    rv64_blocks_fence(v->blocks);
    if (v->engine->code)
        rv64_code_fence(v);
}

void rv64_fence_local(struct rv64_vcpu *v, const struct rv64_fence *fence)
{
    if (fence->kind == RV64_FENCE_I) {
        rv64_count(&v->counters.code_fences, 1);
        fence_code(v);
        return;
    }
    rv64_count(&v->counters.memory_fences, 1);
    bool all = (fence->start == 0 && fence->size == 0) || fence->size == ~0ull || fence->size > PAGES_MAX * RV64_PAGE_BYTES;
    if (all && fence->kind == RV64_FENCE_VMA_ASID) {
        rv64_mmu_flush_asid(v, fence->asid);
    } else if (all) {
        rv64_mmu_flush(v);
    } else {
        uint64_t offset = fence->start & (RV64_PAGE_BYTES - 1);
        for (uint64_t done = 0; done < fence->size + offset; done += RV64_PAGE_BYTES)
            rv64_mmu_flush_page(v, fence->start - offset + done);
    }
}

// With the lock held, on the hart's own thread.
static void serve(struct rv64_vcpu *v)
{
    struct rv64_fence_queue *q = &v->fences;
    if (q->overflow) {
        rv64_count(&v->counters.code_fences, 1);
        rv64_count(&v->counters.memory_fences, 1);
        fence_code(v);
        rv64_mmu_flush(v);
    } else {
        for (unsigned i = 0; i < q->n_pending; i++)
            rv64_fence_local(v, &q->pending[i]);
    }
    q->n_pending = 0;
    q->overflow = false;
    q->served = q->requested;
    atomic_fetch_and(&v->attention, ~(uint32_t)RV64_ATTN_FENCE);
    pthread_cond_broadcast(&q->done);
}

void rv64_fence_serve(struct rv64_vcpu *v)
{
    pthread_mutex_lock(&v->lock);
    serve(v);
    pthread_mutex_unlock(&v->lock);
}

void rv64_guest_enter(struct rv64_vcpu *v)
{
    pthread_mutex_lock(&v->lock);
    serve(v);
    v->fences.in_guest = true;
    pthread_mutex_unlock(&v->lock);
}

void rv64_guest_leave(struct rv64_vcpu *v)
{
    pthread_mutex_lock(&v->lock);
    v->fences.in_guest = false;
    pthread_cond_broadcast(&v->fences.done);
    pthread_mutex_unlock(&v->lock);
}

// The ticket to wait for.
static uint64_t request(struct rv64_vcpu *to, const struct rv64_fence *fence)
{
    struct rv64_fence_queue *q = &to->fences;
    pthread_mutex_lock(&to->lock);
    if (q->n_pending < RV64_FENCES_PENDING_MAX)
        q->pending[q->n_pending++] = *fence;
    else
        q->overflow = true;
    uint64_t ticket = ++q->requested;
    atomic_fetch_or(&to->attention, RV64_ATTN_FENCE);
    pthread_mutex_unlock(&to->lock);
    return ticket;
}

static void await(struct rv64_vcpu *to, uint64_t ticket)
{
    struct rv64_fence_queue *q = &to->fences;
    pthread_mutex_lock(&to->lock);
    while (q->in_guest && q->served < ticket)
        pthread_cond_wait(&q->done, &to->lock);
    pthread_mutex_unlock(&to->lock);
}

void rv64_fence_remote(struct rv64_vcpu *from, const uint64_t hart_mask, const struct rv64_fence *fence)
{
    const struct rv64_engine *e = from->engine;
    uint64_t tickets[ENGINE_VCPUS_MAX];
    uint64_t others = hart_mask & ~(1ull << from->id);
    if (e->config.n_vcpus < 64)
        others &= (1ull << e->config.n_vcpus) - 1;
    if (hart_mask & 1ull << from->id)
        rv64_fence_local(from, fence);
    if (!others)
        return;

    for (uint64_t left = others; left; left &= left - 1) {
        unsigned id = (unsigned)__builtin_ctzll(left);
        tickets[id] = request(e->vcpus[id], fence);
    }
    rv64_guest_leave(from);
    for (uint64_t left = others; left; left &= left - 1) {
        unsigned id = (unsigned)__builtin_ctzll(left);
        await(e->vcpus[id], tickets[id]);
    }
    rv64_guest_enter(from);
}
