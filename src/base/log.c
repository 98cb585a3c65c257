// Structured log: see log.h.
#include "base/log.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Atomic int most_verbose = LOG_INFO;
static _Atomic bool as_json;

struct line {
    char text[2048];
    size_t len;
};

void log_configure(enum log_level most, bool json)
{
    atomic_store(&most_verbose, (int)most);
    atomic_store(&as_json, json);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&most_verbose, memory_order_relaxed);
}

static void put_char(struct line *l, char c)
{
    if (l->len < sizeof(l->text) - 8) // leaves room for the end of a JSON line
        l->text[l->len++] = c;
}

static void put(struct line *l, const char *s)
{
    while (*s)
        put_char(l, *s++);
}

static void put_quoted(struct line *l, const char *s)
{
    char code[8];
    put_char(l, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            put_char(l, '\\');
            put_char(l, (char)c);
        } else if (c < 0x20) {
            snprintf(code, sizeof(code), "\\u%04x", c);
            put(l, code);
        } else {
            put_char(l, (char)c);
        }
    }
    put_char(l, '"');
}

static bool is_plain(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++)
        if ((unsigned char)*s <= ' ' || *s == '"' || *s == '=' || *s == '\\')
            return false;
    return true;
}

static void put_value(struct line *l, const struct log_field *f, bool json)
{
    char number[32];
    switch (f->kind) {
    case LOG_FIELD_STR: {
        const char *s = f->str ? f->str : "";
        if (!json && is_plain(s))
            put(l, s);
        else
            put_quoted(l, s);
        return;
    }
    case LOG_FIELD_U64:
        snprintf(number, sizeof(number), "%" PRIu64, f->u64);
        break;
    case LOG_FIELD_I64:
        snprintf(number, sizeof(number), "%" PRId64, f->i64);
        break;
    case LOG_FIELD_HEX:
        snprintf(number, sizeof(number), json ? "\"0x%" PRIx64 "\"" : "0x%" PRIx64, f->u64);
        break;
    }
    put(l, number);
}

static void format_time(char *buf, size_t len)
{
    struct timespec now;
    struct tm utc;
    char day[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(buf, len, "%s.%03ldZ", day, now.tv_nsec / 1000000);
}

void log_write(enum log_level level, const char *module, const char *message, const struct log_field *fields, size_t n_fields)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    bool json = atomic_load_explicit(&as_json, memory_order_relaxed);
    struct line l = {.len = 0};
    char when[48];
    format_time(when, sizeof(when));
    if (json) {
        const char *keys[] = {"{\"time\":", ",\"level\":", ",\"module\":", ",\"message\":"};
        const char *values[] = {when, names[level], module, message};
        for (unsigned i = 0; i < 4; i++) {
            put(&l, keys[i]);
            put_quoted(&l, values[i]);
        }
    } else {
        const char *words[] = {when, " ", names[level], " ", module, ": ", message};
        for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
            put(&l, words[i]);
    }
    for (size_t i = 0; i < n_fields; i++) {
        put_char(&l, json ? ',' : ' ');
        if (json)
            put_quoted(&l, fields[i].key);
        else
            put(&l, fields[i].key);
        put_char(&l, json ? ':' : '=');
        put_value(&l, &fields[i], json);
    }
    if (json)
        l.text[l.len++] = '}';
    l.text[l.len++] = '\n';
    ssize_t written = write(STDERR_FILENO, l.text, l.len); // one write: lines of several threads do not mix
    (void)written;
}
