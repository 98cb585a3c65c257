// In the manner of CoreMark: a linked list that is searched, reversed and merge-sorted, small integer matrices, a state machine
// that reads numbers, and a CRC over all results. Not CoreMark itself: its figures are not comparable.
#include "kernels.h"

#include <stdlib.h>

static uint16_t crc16(uint16_t crc, uint32_t value)
{
    for (int i = 0; i < 32; i++, value >>= 1)
        crc = (uint16_t)((crc >> 1) ^ ((crc ^ value) & 1 ? 0xa001 : 0));
    return crc;
}

struct item {
    struct item *next;
    int16_t key, place;
};

static struct item *reversed(struct item *list)
{
    struct item *result = NULL;

    while (list) {
        struct item *next = list->next;

        list->next = result;
        result = list;
        list = next;
    }
    return result;
}

static const struct item *found(const struct item *list, int16_t key)
{
    while (list && list->key != key)
        list = list->next;
    return list;
}

static int before_by_key(const struct item *a, const struct item *b)
{
    return a->key != b->key ? a->key < b->key : a->place < b->place;
}

static int before_by_place(const struct item *a, const struct item *b)
{
    return a->place < b->place;
}

typedef int before_fn(const struct item *a, const struct item *b);

static struct item *merged(struct item *a, struct item *b, before_fn *before)
{
    struct item *result = NULL, **end = &result;

    while (a && b) {
        struct item **least = before(b, a) ? &b : &a;

        *end = *least;
        end = &(*least)->next;
        *least = *end;
    }
    *end = a ? a : b;
    return result;
}

static struct item *sorted(struct item *list, size_t count, before_fn *before)
{
    struct item *half = list, *last = list;

    if (count < 2)
        return list;
    for (size_t i = 0; i < count / 2; i++) {
        last = half;
        half = half->next;
    }
    last->next = NULL;
    return merged(sorted(list, count / 2, before), sorted(half, count - count / 2, before), before);
}

static uint16_t lists(struct item *items, size_t count, uint16_t crc, uint64_t *state)
{
    struct item *list = items;

    for (size_t i = 0; i < count; i++)
        items[i] = (struct item){
            .next = i + 1 < count ? items + i + 1 : NULL, .key = (int16_t)(next_random(state) & 0x7f), .place = (int16_t)i};
    for (int16_t key = 0; key < 20; key++) {
        const struct item *item = found(list, key);

        crc = crc16(crc, item ? (uint32_t)item->place : 0xffff);
        list = reversed(list);
    }
    list = sorted(list, count, before_by_key);
    crc = crc16(crc, (uint32_t)list->place);
    list = sorted(list, count, before_by_place);
    return crc16(crc, (uint32_t)list->next->key);
}

enum { SIDE = 12 };

static uint16_t matrices(uint16_t crc, uint64_t *state)
{
    int16_t a[SIDE][SIDE], b[SIDE][SIDE];
    int32_t c[SIDE][SIDE];

    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            a[i][j] = (int16_t)(next_random(state) & 0xff);
            b[i][j] = (int16_t)(next_random(state) & 0xff);
        }
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            c[i][j] = 0;
            for (int k = 0; k < SIDE; k++)
                c[i][j] += ((a[i][k] * b[k][j]) >> 2 & 0xf) * ((a[i][k] * b[k][j]) >> 5 & 0x7f);
        }
    for (int i = 0; i < SIDE; i++)
        crc = crc16(crc, (uint32_t)c[i][SIDE - 1 - i]);
    return crc;
}

enum number { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, SCIENTIFIC, INVALID, STATES };

static enum number after(enum number state, char c)
{
    int digit = c >= '0' && c <= '9';

    switch (state) {
    case START:
        return digit ? INTEGER : c == '+' || c == '-' ? SIGN : c == '.' ? POINT : INVALID;
    case SIGN:
        return digit ? INTEGER : c == '.' ? POINT : INVALID;
    case INTEGER:
        return digit ? INTEGER : c == '.' ? FRACTION : c == 'e' ? EXPONENT : INVALID;
    case POINT:
    case FRACTION:
        return digit ? FRACTION : c == 'e' && state == FRACTION ? EXPONENT : INVALID;
    case EXPONENT:
        return digit || c == '-' || c == '+' ? SCIENTIFIC : INVALID;
    case SCIENTIFIC:
        return digit ? SCIENTIFIC : INVALID;
    default:
        return INVALID;
    }
}

static uint16_t numbers(uint16_t crc, uint64_t *state)
{
    static const char *const texts[] = {"5012,",     "-874,",     "+122,",     "35.54400,", ".1234500,", "-110.700,", "+0.64400,",
                                        "5.500e+3,", "-.123e-2,", "-87e+832,", "T0.3e-1F,", "-T.T++Tq,", "1T3.4e4z,", "34.0e-T^,"};
    uint32_t ended[STATES] = {0}, seen[STATES] = {0};

    for (int i = 0; i < 60; i++) {
        const char *text = texts[next_random(state) % (sizeof texts / sizeof texts[0])];
        enum number at = START;

        for (; *text != ','; text++) {
            at = after(at, *text);
            seen[at]++;
        }
        ended[at]++;
    }
    for (int i = 0; i < STATES; i++)
        crc = crc16(crc16(crc, ended[i]), seen[i]);
    return crc;
}

uint64_t coremark(void)
{
    enum { ITEMS = 200, ROUNDS = 3000 };
    struct item *items = need_memory(ITEMS * sizeof *items);
    uint64_t state = 11;
    uint16_t crc = 0;

    for (int round = 0; round < ROUNDS; round++) {
        crc = lists(items, ITEMS, crc, &state);
        crc = matrices(crc, &state);
        crc = numbers(crc, &state);
    }
    free(items);
    return crc;
}
