// The routes of a network by prefix: see rib.h.
#include "router/ip/rib.h"

#include <errno.h>
#include <stdlib.h>

static unsigned bit_at(rib_key key, unsigned i)
{
    return (unsigned)(key >> (RIB_KEY_BITS - 1 - i)) & 1;
}

// How many bits from the first on two keys share.
static unsigned n_common(rib_key a, rib_key b)
{
    const rib_key differ = a ^ b;
    const uint64_t high = (uint64_t)(differ >> 64), low = (uint64_t)differ;
    if (high)
        return (unsigned)__builtin_clzll(high);
    return low ? 64 + (unsigned)__builtin_clzll(low) : RIB_KEY_BITS;
}

static bool covers(const struct rib_node *node, rib_key key, unsigned len)
{
    return node->len <= len && n_common(rib_node_key(node), key) >= node->len;
}

// ---- nodes ----

static struct rib_node *take_node(struct rib *rib)
{
    struct rib_node *node = rib->spare;
    if (node)
        rib->spare = node->child[0];
    else
        node = malloc(sizeof(*node));
    if (node)
        rib->bytes += sizeof(*node);
    return node;
}

static void keep_spare(struct rib *rib, struct rib_node *node)
{
    rib->bytes -= sizeof(*node);
    node->child[0] = rib->spare;
    rib->spare = node;
}

static void free_spare(struct rib *rib)
{
    while (rib->spare) {
        struct rib_node *node = rib->spare;
        rib->spare = node->child[0];
        free(node);
    }
}

static void free_tree(struct rib_node *node)
{
    if (!node)
        return;
    free_tree(node->child[0]);
    free_tree(node->child[1]);
    free(node);
}

void rib_fini(struct rib *rib)
{
    free_tree(rib->root);
    free_spare(rib);
    *rib = (struct rib){0};
}

static struct rib_node *make_node(struct rib *rib, rib_key key, unsigned len, uint16_t value)
{
    struct rib_node *node = take_node(rib);
    if (node)
        *node = (struct rib_node){.high = (uint64_t)(key >> 64), .low = (uint64_t)key, .len = (uint8_t)len, .value = value};
    return node;
}

// ---- setting ----

// Where the prefix's node is, or the place it would take.
static struct rib_node **find_place(struct rib *rib, rib_key key, unsigned len)
{
    struct rib_node **at = &rib->root;
    while (*at && (*at)->len < len && covers(*at, key, len))
        at = &(*at)->child[bit_at(key, (*at)->len)];
    return at;
}

static bool is_exact(const struct rib_node *node, rib_key key, unsigned len)
{
    return node && node->len == len && rib_node_key(node) == key;
}

uint16_t rib_get(const struct rib *rib, rib_key key, unsigned len)
{
    const struct rib_node *node = *find_place((struct rib *)rib, key, len);
    return is_exact(node, key, len) ? node->value : RIB_NONE;
}

static int insert(struct rib *rib, struct rib_node **at, rib_key key, unsigned len, uint16_t value)
{
    struct rib_node *there = *at, *node = make_node(rib, key, len, value);
    if (!node)
        return -ENOMEM;
    const unsigned common = there ? n_common(rib_node_key(there), key) : len;
    if (!there) {
        *at = node;
    } else if (common >= len) { // above it
        node->child[bit_at(rib_node_key(there), len)] = there;
        *at = node;
    } else {
        struct rib_node *joint = make_node(rib, rib_mask(key, common), common, RIB_NONE);
        if (!joint) {
            keep_spare(rib, node);
            return -ENOMEM;
        }
        joint->child[bit_at(key, common)] = node;
        joint->child[!bit_at(key, common)] = there;
        *at = joint;
    }
    return 0;
}

// A node without a route has two children, or goes.
static void prune(struct rib *rib, struct rib_node **at)
{
    struct rib_node *node = *at;
    if (node->value != RIB_NONE || (node->child[0] && node->child[1]))
        return;
    *at = node->child[0] ? node->child[0] : node->child[1];
    keep_spare(rib, node);
}

static void remove_route(struct rib *rib, rib_key key, unsigned len)
{
    struct rib_node **above = NULL, **at = &rib->root;
    while ((*at)->len < len) {
        above = at;
        at = &(*at)->child[bit_at(key, (*at)->len)];
    }
    (*at)->value = RIB_NONE;
    prune(rib, at);
    if (above)
        prune(rib, above);
}

int rib_set(struct rib *rib, rib_key key, unsigned len, uint16_t value, uint16_t *before)
{
    struct rib_node **at = find_place(rib, key, len);
    const bool exact = is_exact(*at, key, len);
    *before = exact ? (*at)->value : RIB_NONE;
    if (value == *before)
        return 0;
    if (value == RIB_NONE) {
        free_spare(rib);
        remove_route(rib, key, len);
    } else if (exact) {
        (*at)->value = value;
    } else if (insert(rib, at, key, len, value)) {
        return -ENOMEM;
    }
    rib->n_routes += *before == RIB_NONE;
    rib->n_routes -= value == RIB_NONE;
    return 0;
}

// ---- looking ----

const struct rib_node *rib_locate(const struct rib *rib, rib_key key, unsigned len, uint16_t *value, unsigned *value_len)
{
    const struct rib_node *node = rib->root;
    *value = RIB_NONE;
    *value_len = 0;
    while (node && covers(node, key, len)) {
        if (node->value != RIB_NONE) {
            *value = node->value;
            *value_len = node->len;
        }
        if (node->len == len)
            break;
        node = node->child[bit_at(key, node->len)];
    }
    if (!node)
        return NULL;
    if (node->len == len && covers(node, key, len))
        return rib_below(node);
    return n_common(rib_node_key(node), key) >= len ? node : NULL;
}

static bool walk(const struct rib_node *node, rib_key from, unsigned from_len, rib_visit_fn *fn, void *arg)
{
    if (!node)
        return true;
    const rib_key key = rib_node_key(node), last = node->len < RIB_KEY_BITS ? key | ~(rib_key)0 >> node->len : key;
    if (last < from)
        return true;
    const bool is_due = key > from || (key == from && node->len >= from_len);
    if (is_due && node->value != RIB_NONE && !fn(arg, key, node->len, node->value))
        return false;
    return walk(node->child[0], from, from_len, fn, arg) && walk(node->child[1], from, from_len, fn, arg);
}

void rib_walk(const struct rib *rib, rib_key from, unsigned from_len, rib_visit_fn *fn, void *arg)
{
    walk(rib->root, from, from_len, fn, arg);
}
