// The cache of decoded blocks. See blocks.h.
#include "machine/engine/rv64/blocks.h"
#include "machine/engine/rv64/mmu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// An engine's arenas together; memory comes with use. A small machine is to cost little beyond its guest's memory, however many
// vcpus it has; one vcpu's arena holds a kernel's working set, and an eighth of it still most of it.
#define ARENAS_BYTES (3u << 20)
#define ARENA_BYTES_MAX (1536u * 1024)
#define ARENA_BYTES_MIN (128u * 1024)
#define HASH_SLOTS 8192u
#define BLOCK_BYTES_MAX (sizeof(struct rv64_block) + (RV64_BLOCK_INSNS_MAX + 1) * sizeof(struct rv64_insn))

struct rv64_block_cache *rv64_blocks_create(unsigned n_vcpus, size_t arena_bytes)
{
    struct rv64_block_cache *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->arena_bytes = ARENAS_BYTES / n_vcpus & ~(RV64_PAGE_BYTES - 1);
    if (c->arena_bytes > ARENA_BYTES_MAX)
        c->arena_bytes = ARENA_BYTES_MAX;
    else if (c->arena_bytes < ARENA_BYTES_MIN)
        c->arena_bytes = ARENA_BYTES_MIN;
    if (arena_bytes)
        c->arena_bytes = arena_bytes;
    c->arena = mmap(NULL, c->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c->arena == MAP_FAILED)
        c->arena = NULL;
    c->crossing = calloc(1, sizeof(struct rv64_block) + 2 * sizeof(struct rv64_insn));
    c->hash = calloc(HASH_SLOTS, sizeof(struct rv64_block *));
    if (!c->arena || !c->crossing || !c->hash) {
        rv64_blocks_destroy(c);
        return NULL;
    }
    return c;
}

void rv64_blocks_destroy(struct rv64_block_cache *c)
{
    if (!c)
        return;
    if (c->arena)
        munmap(c->arena, c->arena_bytes);
    free(c->hash);
    free(c->crossing);
    free(c);
}

void rv64_blocks_fence(struct rv64_block_cache *c)
{
    c->generation++;
}

void rv64_blocks_flush(struct rv64_block_cache *c)
{
    if (c->used_bytes > 0) { // else they are zero, and untouched memory costs nothing
        memset(c->hash, 0, HASH_SLOTS * sizeof(struct rv64_block *));
        memset(c->lookup, 0, sizeof(c->lookup));
    }
    c->used_bytes = 0;
    c->flushes++;
}

static unsigned hash_of(const uint8_t *code)
{
    uint64_t h = (uint64_t)(uintptr_t)code >> 1;
    return (unsigned)((h ^ h >> 13) % HASH_SLOTS);
}

static uint32_t read_half(const uint8_t *code)
{
    uint16_t half;
    memcpy(&half, code, sizeof(half));
    return half;
}

static void decode_at(uint32_t raw, uint32_t offset, struct rv64_insn *insn)
{
    rv64_decode(raw, insn);
    insn->offset = (uint16_t)offset;
    // Writes to x0 go to a place of their own; operands of floating-point registers keep their numbers.
    bool to_x = insn->op < RV64_OPS && rv64_insn_table[insn->op].operands[0] == 'd';
    if (to_x && insn->rd == 0)
        insn->rd = 32;
}

static bool ends_block(const struct rv64_insn *insn)
{
    return insn->op >= RV64_OPS || rv64_insn_table[insn->op].properties & RV64_P_ENDS_BLOCK;
}

static void build(struct rv64_block *b, const uint8_t *code, uint32_t room)
{
    uint32_t offset = 0;
    unsigned n = 0;
    while (n < RV64_BLOCK_INSNS_MAX && offset < room) {
        uint32_t raw = read_half(code + offset);
        unsigned length = rv64_length(raw);
        if (offset + length > room)
            break; // crosses the page's end: a block of its own
        if (length == 4)
            raw |= read_half(code + offset + 2) << 16;
        struct rv64_insn *insn = &b->insns[n++];
        decode_at(raw, offset, insn);
        offset += length;
        if (ends_block(insn))
            break;
    }
    b->n_insns = n;
    b->bytes = offset;
    if (!ends_block(&b->insns[n - 1]))
        b->insns[n++] = (struct rv64_insn){.op = RV64_OP_end, .offset = (uint16_t)offset};
}

static bool agrees(const struct rv64_block *b)
{
    for (unsigned i = 0; i < b->n_insns; i++) {
        const struct rv64_insn *insn = &b->insns[i];
        const uint8_t *code = b->code + insn->offset;
        if (read_half(code) != (insn->raw & 0xffff))
            return false;
        if (rv64_length(insn->raw) == 4 && read_half(code + 2) != insn->raw >> 16)
            return false;
    }
    return true;
}

static struct rv64_block *find(struct rv64_block_cache *c, const uint8_t *code)
{
    struct rv64_block **at = &c->hash[hash_of(code)];
    for (struct rv64_block *b; (b = *at); at = &b->next) {
        if (b->code != code)
            continue;
        if (b->generation == c->generation)
            return b;
        if (agrees(b)) {
            b->generation = c->generation;
            return b;
        }
        *at = b->next; // changed; its links from others die with its generation, which stays behind for good
        return NULL;
    }
    return NULL;
}

static struct rv64_block *add(struct rv64_vcpu *v, const uint8_t *code, uint32_t room)
{
    struct rv64_block_cache *c = v->blocks;
    if (c->used_bytes + BLOCK_BYTES_MAX > c->arena_bytes)
        rv64_blocks_flush(c);
    struct rv64_block *b = (struct rv64_block *)(void *)(c->arena + c->used_bytes);
    *b = (struct rv64_block){.code = code, .generation = c->generation};
    build(b, code, room);
    size_t size = sizeof(*b) + (b->n_insns + 1) * sizeof(struct rv64_insn);
    c->used_bytes += (size + 15) & ~15ull;
    b->next = c->hash[hash_of(code)];
    c->hash[hash_of(code)] = b;
    if (!v->engine->code) { // else what is translated counts
        rv64_count(&v->counters.blocks_decoded, 1);
        rv64_count(&v->counters.insns_decoded, b->n_insns);
    }
    return b;
}

// The instruction's second half is fetched, and may fault, at the next page.
static struct rv64_block *cross(struct rv64_vcpu *v, uint64_t pc, uint32_t low)
{
    const uint8_t *code = rv64_fetch(v, pc + 2);
    if (!code)
        return NULL;
    struct rv64_block *b = v->blocks->crossing;
    uint32_t raw = low | read_half(code) << 16;
    if (b->n_insns == 0 || b->insns[0].raw != raw) {
        b->n_insns = 1;
        b->bytes = 4;
        decode_at(raw, 0, &b->insns[0]);
        b->insns[1] = (struct rv64_insn){.op = RV64_OP_end, .offset = 4};
    }
    b->generation = v->blocks->generation;
    b->link[0] = b->link[1] = NULL;
    return b;
}

struct rv64_block *rv64_block_find(struct rv64_vcpu *v, uint64_t pc)
{
    struct rv64_block_cache *c = v->blocks;
    struct rv64_block_lookup *l = &c->lookup[(pc >> 1 ^ pc >> 12) % RV64_LOOKUP_SLOTS];
    if (l->pc == pc && l->context == v->context->serial && l->block->generation == c->generation)
        return l->block;

    const uint8_t *code = rv64_fetch(v, pc);
    if (!code)
        return NULL;
    uint32_t room = (uint32_t)(RV64_PAGE_BYTES - (pc & (RV64_PAGE_BYTES - 1)));
    if (room == 2 && rv64_length(read_half(code)) == 4)
        return cross(v, pc, read_half(code));
    struct rv64_block *b = find(c, code);
    if (!b)
        b = add(v, code, room);
    *l = (struct rv64_block_lookup){.pc = pc, .context = v->context->serial, .block = b};
    return b;
}

struct rv64_block *rv64_block_find_next(struct rv64_vcpu *v, uint64_t from_pc, struct rv64_block *from, unsigned link)
{
    const struct rv64_block_cache *c = v->blocks;
    uint64_t flushes = c->flushes;
    struct rv64_block *b = rv64_block_find(v, v->pc);
    bool both_stay = b && flushes == c->flushes && from != c->crossing && b != c->crossing;
    // Within a page the link holds whatever the page is mapped to.
    if (both_stay && ((v->pc ^ from_pc) & RV64_PAGE_MASK) == 0)
        from->link[link] = b;
    return b;
}
