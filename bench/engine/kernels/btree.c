// A B-tree of 4 KiB pages in the manner of a database's table: cells with varint lengths that grow from the end of the page, a
// sorted array of their offsets at its beginning, keys compared as bytes, pages split in the middle.
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096, MOST_PAGES = 4096, LONGEST_KEY = 24, LONGEST_VALUE = 100 };

struct page {
    uint16_t count, free_end; // cells; where the cells begin
    uint32_t leaf, right;     // right: the child for keys above all others, in an inner page
    uint16_t offsets[];
};

static struct page *pages[MOST_PAGES];
static uint32_t page_count;

struct cell { // read from a page, or about to be written: key, then value (leaf) or the number of a child (inner)
    const uint8_t *key, *value;
    size_t key_bytes, value_bytes;
};

static uint32_t new_page(uint32_t leaf)
{
    need(page_count < MOST_PAGES, "pages");
    pages[page_count] = need_memory(PAGE);
    *pages[page_count] = (struct page){.free_end = PAGE, .leaf = leaf};
    return page_count++;
}

static const uint8_t *read_varint(const uint8_t *at, size_t *value)
{
    *value = 0;
    do
        *value = *value << 7 | (*at & 0x7f);
    while (*at++ & 0x80);
    return at;
}

static uint8_t *write_varint(uint8_t *at, size_t value)
{
    if (value >= 0x80)
        *at++ = (uint8_t)(value >> 7 | 0x80);
    *at++ = value & 0x7f;
    return at;
}

static size_t bytes_of(const struct cell *cell)
{
    return 2u + (cell->key_bytes >= 0x80) + (cell->value_bytes >= 0x80) + cell->key_bytes + cell->value_bytes;
}

static struct cell cell_at(const struct page *page, size_t n)
{
    const uint8_t *at = (const uint8_t *)page + page->offsets[n];
    struct cell cell;

    at = read_varint(at, &cell.key_bytes);
    cell.key = read_varint(at, &cell.value_bytes);
    cell.value = cell.key + cell.key_bytes;
    return cell;
}

static int compare(const struct cell *a, const struct cell *b)
{
    size_t least = a->key_bytes < b->key_bytes ? a->key_bytes : b->key_bytes;
    int order = memcmp(a->key, b->key, least);

    return order ? order : (a->key_bytes > b->key_bytes) - (a->key_bytes < b->key_bytes);
}

// The first cell whose key is not below; *same when it is the same key.
static size_t lower_bound(const struct page *page, const struct cell *key, int *same)
{
    size_t low = 0, high = page->count;

    *same = 0;
    while (low < high) {
        size_t middle = (low + high) / 2;
        struct cell cell = cell_at(page, middle);
        int order = compare(&cell, key);

        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
            *same |= order == 0;
        }
    }
    return low;
}

static uint32_t child_at(const struct page *page, size_t n)
{
    uint32_t child = page->right;

    if (n < page->count)
        memcpy(&child, cell_at(page, n).value, sizeof child);
    return child;
}

// Whether the largest cell there can be might not fit any more.
static int is_full(const struct page *page)
{
    return sizeof *page + (page->count + 1u) * sizeof page->offsets[0] + 2 + LONGEST_KEY + LONGEST_VALUE > page->free_end;
}

static void put(struct page *page, size_t n, const struct cell *cell)
{
    uint8_t *at = (uint8_t *)page + page->free_end - bytes_of(cell);

    page->free_end = (uint16_t)(at - (uint8_t *)page);
    memmove(page->offsets + n + 1, page->offsets + n, (page->count - n) * sizeof page->offsets[0]);
    page->offsets[n] = page->free_end;
    page->count++;
    at = write_varint(write_varint(at, cell->key_bytes), cell->value_bytes);
    memcpy(at, cell->key, cell->key_bytes);
    memcpy(at + cell->key_bytes, cell->value, cell->value_bytes);
}

// Moves the lower half of the page's cells to a new page and gives that one's number; *middle is the greatest key there, in `room`.
static uint32_t split(uint32_t number, struct cell *middle, uint8_t room[static LONGEST_KEY])
{
    uint8_t old[PAGE] __attribute__((aligned(8)));
    const struct page *source;
    uint32_t lower = new_page(pages[number]->leaf);
    size_t half;

    memcpy(old, pages[number], PAGE);
    source = (const struct page *)old;
    half = source->count / 2u;
    *pages[number] = (struct page){.free_end = PAGE, .leaf = source->leaf, .right = source->right};
    for (size_t i = 0; i < source->count; i++) {
        struct cell cell = cell_at(source, i);

        if (i >= half)
            put(pages[number], i - half, &cell);
        else if (source->leaf || i < half - 1)
            put(pages[lower], i, &cell);
        else
            pages[lower]->right = child_at(source, i); // an inner page's last key goes up
    }
    *middle = cell_at(source, half - 1);
    memcpy(room, middle->key, middle->key_bytes);
    middle->key = room;
    return lower;
}

static uint32_t root;

// Splits the child before cell n of an inner page that has room for one cell more.
static void split_child(uint32_t parent, size_t n)
{
    struct cell middle;
    uint8_t room[LONGEST_KEY];
    uint32_t lower = split(child_at(pages[parent], n), &middle, room);

    middle.value = (const uint8_t *)&lower;
    middle.value_bytes = sizeof lower;
    put(pages[parent], n, &middle);
}

// Whether the key was new. Full pages are split on the way down, so that none has to be split on a way back up.
static int insert(const struct cell *cell)
{
    uint32_t at;
    size_t n;
    int same;

    if (is_full(pages[root])) {
        uint32_t old = root;

        root = new_page(0);
        pages[root]->right = old;
        split_child(root, 0);
    }
    for (at = root; !pages[at]->leaf;) {
        uint32_t child;

        n = lower_bound(pages[at], cell, &same);
        child = child_at(pages[at], n);
        if (is_full(pages[child]))
            split_child(at, n);
        else
            at = child;
    }
    n = lower_bound(pages[at], cell, &same);
    if (!same)
        put(pages[at], n, cell);
    return !same;
}

static int find(struct cell *cell)
{
    uint32_t at = root;
    size_t n;
    int same;

    while (!pages[at]->leaf)
        at = child_at(pages[at], lower_bound(pages[at], cell, &same));
    n = lower_bound(pages[at], cell, &same);
    if (same)
        *cell = cell_at(pages[at], n);
    return same;
}

static uint64_t scan(uint32_t number, uint64_t sum)
{
    const struct page *page = pages[number];

    for (size_t n = 0; n < page->count + (page->leaf ? 0u : 1u); n++) {
        if (page->leaf) {
            struct cell cell = cell_at(page, n);

            sum = mix(mix(sum, cell.key[cell.key_bytes - 1]), cell.value_bytes);
        } else {
            sum = scan(child_at(page, n), sum);
        }
    }
    return sum;
}

// A key of 8 to LONGEST_KEY bytes.
static size_t make_key(uint8_t key[static LONGEST_KEY], uint64_t *state)
{
    uint64_t number = next_random(state);

    for (int i = 0; i < LONGEST_KEY; i++)
        key[i] = (uint8_t)('a' + (number >> (i % 8 * 8) & 0xff) % 26);
    return 8 + number % (LONGEST_KEY - 7);
}

uint64_t btree(void)
{
    enum { KEYS = 60000, LOOKUPS = 150000 };
    uint8_t key[LONGEST_KEY], value[LONGEST_VALUE] = {0};
    uint64_t state = 12, sum = 0;

    root = new_page(1);
    for (int i = 0; i < KEYS; i++) {
        struct cell cell = {.key = key, .key_bytes = make_key(key, &state), .value = value};

        cell.value_bytes = 8 + (size_t)i % (LONGEST_VALUE - 8);
        memcpy(value, &i, sizeof i);
        sum += (uint64_t)insert(&cell);
    }
    state = 12;
    for (int i = 0; i < LOOKUPS; i++) { // the first KEYS are there, the others are not
        struct cell cell = {.key = key, .key_bytes = make_key(key, &state)};

        if (find(&cell))
            sum = mix(sum, cell.value[0]);
    }
    sum = scan(root, sum);
    while (page_count)
        free(pages[--page_count]);
    return sum;
}
