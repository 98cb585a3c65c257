// Longest prefix match: see poptrie.h.
#include "router/ip/poptrie.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 64
#define PIECES_LEAST 64

// What becomes of the routes that a node tells apart.
struct slot {
    const struct rib_node *below; // NULL: a leaf
    uint16_t value;               // the longest route that covers it all
    uint8_t value_len;
};

struct change {
    struct poptrie *trie;
    rib_key key; // of the route that changed
    unsigned len;
    bool has_failed;
};

// ---- memory ----

static bool add_piece(struct poptrie_pieces *pieces, void *at, size_t len_bytes)
{
    if (pieces->n == pieces->room) {
        const size_t room = pieces->room ? 2 * pieces->room : PIECES_LEAST;
        struct poptrie_piece *grown = reallocarray(pieces->at, room, sizeof(*grown));
        if (!grown)
            return false;
        pieces->at = grown;
        pieces->room = room;
    }
    pieces->at[pieces->n++] = (struct poptrie_piece){at, len_bytes};
    return true;
}

static void free_pieces(struct poptrie *trie, struct poptrie_pieces *pieces)
{
    for (size_t i = 0; i < pieces->n; i++) {
        trie->bytes -= pieces->at[i].len_bytes;
        free(pieces->at[i].at);
    }
    pieces->n = 0;
}

static void *take_memory(struct change *c, size_t len_bytes)
{
    void *at = malloc(len_bytes);
    if (at && add_piece(&c->trie->fresh, at, len_bytes)) {
        c->trie->bytes += len_bytes;
        return at;
    }
    free(at);
    c->has_failed = true;
    return NULL;
}

static void retire(struct change *c, void *at, size_t len_bytes)
{
    if (!add_piece(&c->trie->retired, at, len_bytes)) {
        c->has_failed = true;
        return;
    }
    c->trie->retired_bytes += len_bytes;
}

void poptrie_reclaim(struct poptrie *trie)
{
    free_pieces(trie, &trie->retired);
    trie->retired_bytes = 0;
    if (trie->retired.room > 1024) { // a table that was loaded once need not keep the list
        free(trie->retired.at);
        trie->retired = (struct poptrie_pieces){0};
    }
}

// ---- nodes ----

static size_t leaves_bytes(uint64_t leaves)
{
    return ((size_t)__builtin_popcountll(leaves) * sizeof(uint16_t) + 7) & ~(size_t)7;
}

static size_t block_bytes(const struct poptrie_node *node)
{
    return leaves_bytes(node->leaves) + (size_t)__builtin_popcountll(node->children) * sizeof(*node);
}

// `head` bytes before the block are the caller's.
static void *block_memory(const struct poptrie_node *node, size_t head)
{
    return (char *)node->block - leaves_bytes(node->leaves) - head;
}

static void retire_node(struct change *c, const struct poptrie_node *node, size_t head)
{
    const unsigned n = (unsigned)__builtin_popcountll(node->children);
    for (unsigned i = 0; i < n; i++)
        retire_node(c, &node->block[i], 0);
    retire(c, block_memory(node, head), block_bytes(node) + head);
}

static void retire_entry(struct change *c, uintptr_t entry)
{
    if (!(entry & 1))
        retire_node(c, (const struct poptrie_node *)entry, sizeof(struct poptrie_node));
}

static unsigned slot_of(rib_key key, unsigned depth)
{
    return (unsigned)(key << depth >> (RIB_KEY_BITS - POPTRIE_STRIDE));
}

static rib_key slot_key(rib_key at, unsigned i, unsigned depth)
{
    const rib_key number = (rib_key)i << (RIB_KEY_BITS - POPTRIE_STRIDE);
    return at | number >> depth;
}

// The routes within a node's range, shorter ones first, each over the slots that it covers.
static void expand(const struct rib_node *node, unsigned depth, struct slot slots[static SLOTS])
{
    if (!node)
        return;
    const unsigned first = slot_of(rib_node_key(node), depth), end = depth + POPTRIE_STRIDE;
    if (node->len > end) {
        slots[first].below = node;
        return;
    }
    for (unsigned i = 0; node->value != RIB_NONE && i < 1u << (end - node->len); i++) {
        slots[first + i].value = node->value;
        slots[first + i].value_len = node->len;
    }
    if (node->len == end) { // what is below it, if anything, is all in its slot
        slots[first].below = rib_below(node);
        return;
    }
    expand(node->child[0], depth, slots);
    expand(node->child[1], depth, slots);
}

// Whether the change is seen from this slot downwards.
static bool concerns(const struct change *c, const struct slot *slot, rib_key at, unsigned len)
{
    const unsigned shared = len < c->len ? len : c->len;
    if (rib_mask(at ^ c->key, shared < RIB_KEY_BITS ? shared : RIB_KEY_BITS))
        return false;
    return c->len > len || slot->value_len <= c->len; // a longer route hides it
}

static void mark_slots(const struct slot slots[static SLOTS], struct poptrie_node *node)
{
    int last = -1;
    for (unsigned i = 0; i < SLOTS; i++) {
        if (slots[i].below) {
            node->children |= 1ull << i;
        } else if (slots[i].value != last) {
            node->leaves |= 1ull << i;
            last = slots[i].value;
        }
    }
}

static void fill_leaves(const struct slot slots[static SLOTS], const struct poptrie_node *node)
{
    uint16_t *leaf = (uint16_t *)node->block;
    for (unsigned i = 0; i < SLOTS; i++)
        if (node->leaves >> i & 1)
            *--leaf = slots[i].value;
}

// A node for the bits from `depth` on of the keys that begin with `at`, with `head` bytes before its block. Of `old`, which may be
// NULL, what does not change is taken over, and the rest retired, but for its block. inherited: the longest route that covers all
// of it.
static struct poptrie_node make_node(struct change *c, const struct poptrie_node *old, const struct rib_node *routes,
                                     struct slot inherited, rib_key at, unsigned depth, size_t head)
{
    struct slot slots[SLOTS];
    struct poptrie_node node = {0};
    const struct poptrie_node *before = old ? old->block : NULL;
    for (unsigned i = 0; i < SLOTS; i++)
        slots[i] = inherited;
    expand(routes, depth, slots);
    mark_slots(slots, &node);
    char *memory = take_memory(c, head + block_bytes(&node));
    if (!memory)
        return node;
    node.block = (struct poptrie_node *)(memory + head + leaves_bytes(node.leaves));
    fill_leaves(slots, &node);
    struct poptrie_node *child = node.block;
    for (unsigned i = 0; i < SLOTS && !c->has_failed; i++) {
        const struct poptrie_node *old_child = old && old->children >> i & 1 ? before++ : NULL;
        const rib_key key = slot_key(at, i, depth);
        if (!slots[i].below) {
            if (old_child)
                retire_node(c, old_child, 0);
        } else if (old_child && !concerns(c, &slots[i], key, depth + POPTRIE_STRIDE)) {
            *child++ = *old_child;
        } else {
            const struct slot covering = {.value = slots[i].value, .value_len = slots[i].value_len};
            *child++ = make_node(c, old_child, slots[i].below, covering, key, depth + POPTRIE_STRIDE, 0);
            if (old_child)
                retire(c, block_memory(old_child, 0), block_bytes(old_child));
        }
    }
    return node;
}

// ---- entries ----

// What an entry of the root becomes; `entry` if the change is not seen there.
static uintptr_t make_entry(struct change *c, const struct rib *rib, uintptr_t entry, size_t index, unsigned direct_bits)
{
    const rib_key at = direct_bits ? (rib_key)index << (RIB_KEY_BITS - direct_bits) : 0;
    struct slot covering = {0};
    unsigned value_len;
    const struct rib_node *routes = rib_locate(rib, at, direct_bits, &covering.value, &value_len);
    covering.value_len = (uint8_t)value_len;
    if (entry && !concerns(c, &covering, at, direct_bits))
        return entry;
    const struct poptrie_node *old = entry & 1 ? NULL : (const struct poptrie_node *)entry;
    if (!routes) {
        if (old)
            retire_entry(c, entry);
        return (uintptr_t)covering.value << 1 | 1;
    }
    const struct poptrie_node node = make_node(c, old, routes, covering, at, direct_bits, sizeof(node));
    if (c->has_failed)
        return 0;
    if (old)
        retire(c, block_memory(old, sizeof(*old)), block_bytes(old) + sizeof(*old));
    struct poptrie_node *head = block_memory(&node, sizeof(node));
    *head = node;
    return (uintptr_t)head;
}

static struct poptrie_root *make_root(unsigned direct_bits, size_t *len_bytes)
{
    const size_t n = (size_t)1 << direct_bits;
    *len_bytes = sizeof(struct poptrie_root) + n * sizeof(uintptr_t);
    struct poptrie_root *root = malloc(*len_bytes);
    if (!root)
        return NULL;
    root->direct_bits = direct_bits;
    for (size_t i = 0; i < n; i++)
        atomic_init(&root->entries[i], (uintptr_t)RIB_NONE << 1 | 1);
    return root;
}

int poptrie_init(struct poptrie *trie, unsigned direct_bits)
{
    memset(trie, 0, sizeof(*trie));
    struct poptrie_root *root = make_root(direct_bits, &trie->bytes);
    atomic_init(&trie->root, root);
    return root ? 0 : -ENOMEM;
}

static void free_tree(const struct poptrie_node *node, size_t head)
{
    const unsigned n = (unsigned)__builtin_popcountll(node->children);
    for (unsigned i = 0; i < n; i++)
        free_tree(&node->block[i], 0);
    free(block_memory(node, head));
}

void poptrie_fini(struct poptrie *trie)
{
    struct poptrie_root *root = poptrie_root(trie);
    poptrie_reclaim(trie);
    for (size_t i = 0; root && i < (size_t)1 << root->direct_bits; i++) {
        const uintptr_t entry = atomic_load_explicit(&root->entries[i], memory_order_relaxed);
        if (!(entry & 1))
            free_tree((const struct poptrie_node *)entry, sizeof(struct poptrie_node));
    }
    free(root);
    free(trie->fresh.at);
    free(trie->retired.at);
    memset(trie, 0, sizeof(*trie));
}

// What was made is in use now, or goes; what was retired is, or is not.
static int conclude(struct change *c, size_t n_retired, size_t retired_bytes)
{
    if (!c->has_failed) {
        c->trie->fresh.n = 0;
        return 0;
    }
    free_pieces(c->trie, &c->trie->fresh);
    c->trie->retired.n = n_retired;
    c->trie->retired_bytes = retired_bytes;
    return -ENOMEM;
}

int poptrie_update(struct poptrie *trie, const struct rib *rib, rib_key key, unsigned len)
{
    struct poptrie_root *root = poptrie_root(trie);
    struct change c = {.trie = trie, .key = key, .len = len};
    const unsigned bits = root->direct_bits;
    const size_t first = (size_t)((uint64_t)(key >> 64) >> 1 >> (63 - bits)), n = len < bits ? (size_t)1 << (bits - len) : 1;
    const size_t n_retired = trie->retired.n, retired_bytes = trie->retired_bytes;
    uintptr_t single = 0, *entries = n == 1 ? &single : malloc(n * sizeof(*entries));
    if (!entries)
        return -ENOMEM;
    for (size_t i = 0; i < n && !c.has_failed; i++)
        entries[i] = make_entry(&c, rib, atomic_load_explicit(&root->entries[first + i], memory_order_relaxed), first + i, bits);
    const int r = conclude(&c, n_retired, retired_bytes);
    for (size_t i = 0; !r && i < n; i++)
        atomic_store_explicit(&root->entries[first + i], entries[i], memory_order_release); // acquired by the readers
    if (entries != &single)
        free(entries);
    return r;
}

int poptrie_rebuild(struct poptrie *trie, const struct rib *rib, unsigned direct_bits)
{
    struct change c = {.trie = trie};
    struct poptrie_root *old = poptrie_root(trie);
    const size_t n_retired = trie->retired.n, retired_bytes = trie->retired_bytes;
    size_t len_bytes, n_old = (size_t)1 << old->direct_bits;
    struct poptrie_root *root = make_root(direct_bits, &len_bytes);
    if (!root)
        return -ENOMEM;
    for (size_t i = 0; i < (size_t)1 << direct_bits && !c.has_failed; i++)
        atomic_init(&root->entries[i], make_entry(&c, rib, 0, i, direct_bits));
    for (size_t i = 0; i < n_old && !c.has_failed; i++)
        retire_entry(&c, atomic_load_explicit(&old->entries[i], memory_order_relaxed));
    if (!c.has_failed)
        retire(&c, old, sizeof(*old) + n_old * sizeof(uintptr_t));
    if (conclude(&c, n_retired, retired_bytes)) {
        free(root);
        return -ENOMEM;
    }
    trie->bytes += len_bytes;
    atomic_store_explicit(&trie->root, root, memory_order_release);
    return 0;
}
