// The grammar of promises: see promise.h. Foreign text: any bytes are refused or read, nothing is written but the set.
#include "promise/unit.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

// A piece of the text that is read; not terminated.
struct piece {
    const char *at;
    size_t len;
};

enum { SHOWN_MAX = 64, FRACTION_DIGITS_MAX = 9 };

static int shown(struct piece p)
{
    return (int)(p.len < SHOWN_MAX ? p.len : SHOWN_MAX);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void skip(struct piece *p, size_t n)
{
    p->at += n;
    p->len -= n;
}

static void skip_blanks(struct piece *p)
{
    while (p->len && is_blank(*p->at))
        skip(p, 1);
}

static struct piece trimmed(struct piece p)
{
    skip_blanks(&p);
    while (p.len && is_blank(p.at[p.len - 1]))
        p.len--;
    return p;
}

// Takes what stands before the first of `separators`, and the separator.
static struct piece take_until(struct piece *p, const char *separators)
{
    size_t n = 0;
    while (n < p->len && !strchr(separators, p->at[n]))
        n++;
    const struct piece taken = {p->at, n};
    skip(p, n < p->len ? n + 1 : n);
    return taken;
}

static bool is(struct piece p, const char *word)
{
    return p.len == strlen(word) && memcmp(p.at, word, p.len) == 0;
}

static bool starts_with_digit(struct piece p)
{
    return p.len && isdigit((unsigned char)*p.at);
}

// ---- numbers and units

// (whole + numerator / denominator); denominator is a power of ten. `whole` stays beyond all that is possible
// once it is there.
struct number {
    uint64_t whole, numerator, denominator;
};

static bool take_number(struct piece *p, struct number *number)
{
    *number = (struct number){.denominator = 1};
    if (!starts_with_digit(*p))
        return false;
    for (; starts_with_digit(*p); skip(p, 1))
        if (__builtin_mul_overflow(number->whole, 10, &number->whole) ||
            __builtin_add_overflow(number->whole, (uint64_t)(*p->at - '0'), &number->whole))
            number->whole = UINT64_MAX / 10 + 1; // overflows again with each digit
    if (p->len < 2 || *p->at != '.' || !isdigit((unsigned char)p->at[1]))
        return true;
    skip(p, 1);
    for (unsigned n = 0; starts_with_digit(*p); skip(p, 1), n++) // digits beyond the ninth change nothing that is meant
        if (n < FRACTION_DIGITS_MAX) {
            number->numerator = number->numerator * 10 + (uint64_t)(*p->at - '0');
            number->denominator *= 10;
        }
    return true;
}

// Rounded down to a whole base unit; saturated.
static uint64_t scale(const struct number *number, uint64_t factor)
{
    const unsigned __int128 value =
        (unsigned __int128)number->whole * factor + (unsigned __int128)number->numerator * factor / number->denominator;
    return value > UINT64_MAX ? UINT64_MAX : (uint64_t)value;
}

static bool match_unit(struct piece text, const struct unit *unit, const struct prefix *prefix)
{
    const size_t n = strlen(prefix->text);
    if (n && (unit->prefixes == PREFIX_NONE || (prefix->binary && unit->prefixes != PREFIX_BINARY)))
        return false;
    if (text.len < n || memcmp(text.at, prefix->text, n) != 0)
        return false;
    skip(&text, n);
    skip_blanks(&text);
    return is(text, unit->text);
}

static const struct unit *find_unit(struct piece text, uint64_t *factor)
{
    for (size_t i = 0; i < promise_n_units; i++)
        for (size_t j = 0; j < promise_n_prefixes; j++)
            if (match_unit(text, &promise_units[i], &promise_prefixes[j])) {
                *factor = promise_units[i].factor * promise_prefixes[j].factor;
                return &promise_units[i];
            }
    return NULL;
}

static bool ends_with(struct piece p, const char *end)
{
    const size_t n = strlen(end);
    return p.len >= n && memcmp(p.at + p.len - n, end, n) == 0;
}

static int no_unit(struct piece text, enum promise_resource resource, struct tv_error *err)
{
    if (text.len == 0)
        return tv_error_set(err, -EINVAL, "it has no unit: write %s", promise_resource_units[resource]);
    if (ends_with(text, "bps") || ends_with(text, "b/s"))
        return tv_error_set(err, -EINVAL, "'%.*s' may be bits or bytes: write kB/s, MB/s, GB/s, or kbit/s, Mbit/s, Gbit/s",
                            shown(text), text.at);
    return tv_error_set(err, -EINVAL, "the unit '%.*s' is unknown: write %s", shown(text), text.at,
                        promise_resource_units[resource]);
}

static int read_value(struct piece text, enum promise_resource resource, struct promise *p, struct tv_error *err)
{
    struct number number;
    uint64_t factor;
    if (!take_number(&text, &number))
        return tv_error_set(err, -EINVAL, "it is not a number with a unit: write %s", promise_resource_units[resource]);
    skip_blanks(&text);
    const struct unit *unit = find_unit(text, &factor);
    if (!unit)
        return no_unit(text, resource, err);
    p->metric = unit->metric;
    p->value = scale(&number, factor);
    return 0;
}

// ---- what stands behind each key

static int read_rate(struct piece text, const struct promise_set *set, struct promise *p, struct tv_error *err)
{
    if (starts_with_digit(text)) {
        const int rc = read_value(text, set->resource, p, err);
        if (rc || p->metric != PROMISE_LATENCY || p->kind == PROMISE_LIMIT)
            return rc;
    } else if (text.len < 2 || *text.at != 'p' || !isdigit((unsigned char)text.at[1])) {
        return read_value(text, set->resource, p, err); // says what is wrong
    } else if (p->kind == PROMISE_LIMIT) {
        p->metric = PROMISE_LATENCY; // refused with its reason when it is put into the set
        return 0;
    }
    return tv_error_set(err, -EINVAL, "a latency has a key of its own: write 'latency: p99 < 5ms'");
}

static int read_weight(struct piece text, const struct promise_set *set, struct promise *p, struct tv_error *err)
{
    struct number number;
    if (!take_number(&text, &number) || number.denominator != 1)
        return tv_error_set(err, -EINVAL, "a weight is a whole number, 1 to %u", PROMISE_WEIGHT_MAX);
    if (text.len)
        return tv_error_set(err, -EINVAL, "a weight shares the time of %s, whatever it is used for: write it without a unit",
                            promise_resource_names[set->resource]);
    p->kind = PROMISE_WEIGHT;
    p->metric = PROMISE_UTILIZATION;
    p->value = number.whole;
    return 0;
}

// "p99.9": how many of 1000.
static bool take_percentile(struct piece *text, uint32_t *per_mille)
{
    struct number number;
    if (!text->len || *text->at != 'p')
        return false;
    skip(text, 1);
    if (!take_number(text, &number) || number.whole >= 100 || number.denominator > 10)
        return false;
    *per_mille = (uint32_t)scale(&number, 10);
    return *per_mille > 0;
}

static int read_latency(struct piece text, const struct promise_set *set, struct promise *p, struct tv_error *err)
{
    if (!promise_resource_has(set->resource, PROMISE_LATENCY))
        return tv_error_set(err, -EINVAL, "%s has no latency that could be promised: write %s",
                            promise_resource_names[set->resource], promise_resource_units[set->resource]);
    if (!take_percentile(&text, &p->per_mille))
        return tv_error_set(err, -EINVAL, "say of how many requests, p0.1 to p99.9: 'latency: p99 < 5ms' is 99 of 100");
    skip_blanks(&text);
    if (!text.len || *text.at != '<')
        return tv_error_set(err, -EINVAL, "'<' is missing: write 'latency: p99 < 5ms'");
    skip(&text, 1);
    const int rc = read_value(trimmed(text), set->resource, p, NULL);
    if (rc || p->metric != PROMISE_LATENCY)
        return tv_error_set(err, -EINVAL, "'%.*s' is no time: write a number with ns, us, ms or s, as in 5ms", shown(text),
                            text.at);
    return 0;
}

static int read_utilization(struct piece text, const struct promise_set *set, struct promise *p, struct tv_error *err)
{
    const int rc = read_value(text, set->resource, p, err);
    if (rc == 0 && p->metric != PROMISE_UTILIZATION)
        return tv_error_set(err, -EINVAL, "a utilization is so many %% of %s: write 'utilization: 25%%'",
                            promise_resource_names[set->resource]);
    return rc;
}

static const struct key {
    const char *name;
    enum promise_kind kind;
    int (*read)(struct piece text, const struct promise_set *set, struct promise *p, struct tv_error *err);
} keys[] = {
    {"reserve", PROMISE_RESERVE, read_rate},
    {"limit", PROMISE_LIMIT, read_rate},
    {"weight", PROMISE_WEIGHT, read_weight},
    {"latency", PROMISE_RESERVE, read_latency},
    {"utilization", PROMISE_RESERVE, read_utilization},
};

// ---- entries

static const struct key *find_key(struct piece name)
{
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (is(name, keys[i].name))
            return &keys[i];
    return NULL;
}

// Takes the next of the values between which "and" stands.
static struct piece take_value(struct piece *rest)
{
    struct piece all = *rest;
    for (size_t i = 1; i + 3 < all.len; i++)
        if (is_blank(all.at[i - 1]) && memcmp(all.at + i, "and", 3) == 0 && is_blank(all.at[i + 3])) {
            skip(rest, i + 3);
            return trimmed((struct piece){all.at, i});
        }
    skip(rest, all.len);
    return trimmed(all);
}

static int add_entry(struct promise_set *set, struct piece name, struct piece values, struct tv_error *err)
{
    const struct key *key = find_key(name);
    if (!key)
        return tv_error_set(err, -EINVAL,
                            "'%.*s' is no promise: write reserve, limit, weight, latency or utilization, as in 'reserve: %s'",
                            shown(name), name.at, promise_resource_examples[set->resource]);
    do {
        const struct piece value = take_value(&values);
        struct promise p = {.kind = key->kind};
        int rc = key->read(value, set, &p, err);
        if (rc == 0)
            rc = promise_set_insert(set, &p, err);
        if (rc) {
            tv_error_prefix(err, "'%s: %.*s'", key->name, shown(value), value.at);
            return rc;
        }
    } while (values.len);
    return 0;
}

int promise_set_add(struct promise_set *set, const char *key, const char *value, struct tv_error *err)
{
    struct promise_set with = *set;
    const int rc = add_entry(&with, trimmed((struct piece){key, strlen(key)}), (struct piece){value, strlen(value)}, err);
    if (rc == 0)
        *set = with;
    return rc;
}

int promise_set_parse(struct promise_set *set, enum promise_resource resource, const char *text, struct tv_error *err)
{
    struct promise_set read = {.resource = resource};
    struct piece rest = {text, strlen(text)};
    while (rest.len) {
        struct piece entry = take_until(&rest, ",;\n");
        const struct piece whole = trimmed(entry);
        if (!whole.len)
            continue;
        const struct piece name = trimmed(take_until(&entry, ":"));
        if (name.len == whole.len)
            return tv_error_set(err, -EINVAL, "'%.*s' does not say what is promised: write it as in 'reserve: %s'", shown(whole),
                                whole.at, promise_resource_examples[resource]);
        const int rc = add_entry(&read, name, entry, err);
        if (rc)
            return rc;
    }
    *set = read;
    return 0;
}
