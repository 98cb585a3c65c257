// Sizes as people write them: see size.h.
#include "base/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char units[] = "KMGTPE"; // unit i is 2^(10 * (i + 1))
enum { FRACTION_DIGITS_MAX = 9 };

static int no_size(const char *text, struct tv_error *err)
{
    return tv_error_set(err, -EINVAL, "'%.64s' is not a size: write bytes, or a number with K, M, G or T, as in 512M or 1.5G",
                        text);
}

static bool read_digits(const char **at, uint64_t *value)
{
    bool fits = true;
    for (; isdigit((unsigned char)**at); ++*at)
        if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, (uint64_t)(**at - '0'), value))
            fits = false;
    return fits;
}

// The fraction as numerator and a power of ten; digits beyond the ninth do not change any size that is meant.
static void read_fraction(const char **at, uint64_t *numerator, uint64_t *denominator)
{
    *numerator = 0;
    *denominator = 1;
    for (unsigned n = 0; isdigit((unsigned char)**at); ++*at, n++)
        if (n < FRACTION_DIGITS_MAX) {
            *numerator = *numerator * 10 + (uint64_t)(**at - '0');
            *denominator *= 10;
        }
}

// How far to shift left; -1 when what follows is no unit.
static int read_unit(const char *at)
{
    if (*at == 0 || strcasecmp(at, "B") == 0)
        return 0;
    const char *unit = strchr(units, toupper((unsigned char)*at));
    if (!unit)
        return -1;
    at++;
    if (*at != 0 && strcasecmp(at, "B") != 0 && strcasecmp(at, "iB") != 0)
        return -1;
    return (int)(unit - units + 1) * 10;
}

int size_parse(const char *text, uint64_t *bytes, struct tv_error *err)
{
    const char *at = text;
    uint64_t whole = 0, numerator = 0, denominator = 1;
    if (!isdigit((unsigned char)*at))
        return no_size(text, err);
    const bool fits = read_digits(&at, &whole);
    const bool has_fraction = *at == '.' && isdigit((unsigned char)at[1]);
    if (has_fraction) {
        at++;
        read_fraction(&at, &numerator, &denominator);
    }
    at += at[0] == ' ' && at[1] != 0;
    const int shift = read_unit(at);
    if (shift < 0 || (has_fraction && shift == 0))
        return no_size(text, err);
    unsigned __int128 total = (unsigned __int128)whole << shift;
    total += ((unsigned __int128)numerator << shift) / denominator;
    if (!fits || total > UINT64_MAX)
        return tv_error_set(err, -ERANGE, "size '%.64s' is too large: it must be below 16E (2^64 bytes)", text);
    *bytes = (uint64_t)total;
    return 0;
}

const char *size_format(uint64_t bytes, char buf[static SIZE_TEXT_MAX])
{
    unsigned n = 0;
    while (n < sizeof(units) - 1 && bytes != 0 && bytes % 1024 == 0) {
        bytes /= 1024;
        n++;
    }
    snprintf(buf, SIZE_TEXT_MAX, "%llu%.1s", (unsigned long long)bytes, n ? &units[n - 1] : "");
    return buf;
}

const char *size_format_about(uint64_t bytes, char buf[static SIZE_TEXT_MAX])
{
    if (bytes < 1024) {
        snprintf(buf, SIZE_TEXT_MAX, "%llu B", (unsigned long long)bytes);
        return buf;
    }
    unsigned n = (63u - (unsigned)__builtin_clzll(bytes)) / 10;
    unsigned __int128 tenths = (((unsigned __int128)bytes * 10) + ((uint64_t)1 << (10 * n - 1))) >> (10 * n);
    if (tenths >= 10240 && n < sizeof(units) - 1) { // rounding has reached the next unit
        n++;
        tenths = 10;
    }
    const unsigned whole = (unsigned)(tenths / 10), tenth = (unsigned)(tenths % 10);
    if (tenth)
        snprintf(buf, SIZE_TEXT_MAX, "%u.%u %ciB", whole, tenth, units[n - 1]);
    else
        snprintf(buf, SIZE_TEXT_MAX, "%u %ciB", whole, units[n - 1]);
    return buf;
}
