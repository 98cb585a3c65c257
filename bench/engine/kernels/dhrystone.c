// In the manner of Dhrystone: records assigned and followed by pointers, small procedures with pointers to their results, string
// comparison, enumerations, two-dimensional arrays. Not Dhrystone itself: its figures are not comparable.
#include "kernels.h"

#include <string.h>

// Too large or too small for the compiler to see through: each of these is called.
#define CALLED __attribute__((noinline))

enum ident { FIRST, SECOND, THIRD, FOURTH };

struct record {
    struct record *other;
    enum ident kind, component;
    int32_t number;
    char text[31];
};

static struct record here, there;
static int32_t global, one_dimension[50], two_dimensions[50][50];
static char character = 'A';

CALLED static int same_ident(enum ident a, enum ident b)
{
    return a == b;
}

CALLED static void next_ident(enum ident value, enum ident *result)
{
    *result = value;
    if (!same_ident(value, THIRD))
        *result = FOURTH;
    switch (value) {
    case FIRST:
        *result = FIRST;
        break;
    case SECOND:
        *result = global > 100 ? FIRST : FOURTH;
        break;
    case THIRD:
        *result = SECOND;
        break;
    default:
        break;
    }
}

CALLED static void add(int32_t a, int32_t b, int32_t *result)
{
    *result = b + a + 2;
}

CALLED static void fill(int32_t *one, int32_t two[50][50], int32_t index, int32_t value)
{
    int32_t at = index + 5;

    one[at] = value;
    one[at + 1] = one[at];
    one[at + 30] = at;
    for (int32_t i = at; i <= at + 1; i++)
        two[at][i] = at;
    two[at][at - 1] += 1;
    two[at + 20 < 50 ? at + 20 : 49][at] = one[at];
    global = 5;
}

CALLED static int greater_text(const char *a, const char *b, int32_t *number)
{
    int32_t at = 2;

    while (at <= 2 && a[at] != b[at + 1])
        at++;
    if (strcmp(a, b) > 0) {
        *number += at + 7;
        return 1;
    }
    return 0;
}

CALLED static void follow(struct record *record)
{
    struct record *next = record->other;

    *next = here;
    record->number = 5;
    next->number = record->number;
    next->other = record->other;
    if (next->kind == FIRST) {
        next->number = 6;
        next_ident(record->component, &next->component);
        add(next->number, 10, &next->number);
    } else {
        *record = *next;
    }
}

CALLED static void letters(char last, int32_t *number)
{
    for (char c = 'A'; c <= last; c++)
        if (same_ident(c == 'C' ? SECOND : FIRST, SECOND))
            *number += c;
}

uint64_t dhrystone(void)
{
    enum { ROUNDS = 2000000 };
    char text[31] = "DHRYSTONE PROGRAM, 1'ST STRING";
    uint64_t sum = 0;

    there = (struct record){.kind = FIRST, .component = THIRD, .number = 40, .text = "DHRYSTONE PROGRAM, SOME STRING"};
    here = (struct record){.other = &there, .kind = FIRST, .component = THIRD, .number = 40};
    memcpy(here.text, there.text, sizeof here.text);
    for (int32_t round = 1; round <= ROUNDS; round++) {
        char other[31] = "DHRYSTONE PROGRAM, 2'ND STRING";
        int32_t a = 2, b = 3, c = 0;
        enum ident kind = SECOND;

        other[19] = (char)('0' + round % 4);
        global = round & 0xff;
        if (greater_text(text, other, &a))
            kind = FIRST;
        while (a < b) {
            c = 5 * a - b;
            add(a, b, &c);
            a++;
        }
        fill(one_dimension, two_dimensions, a, c);
        here.other = &there;
        here.component = kind;
        follow(&here);
        letters(character, &b);
        character = (char)('A' + round % 4);
        b = b * a;
        a = b / (c + 1);
        b = 7 * (b - c) - a;
        sum = mix(sum, (uint64_t)(uint32_t)(a + b + there.number + one_dimension[a & 31]));
    }
    return sum;
}
