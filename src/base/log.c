// Structured log: see log.h.
//
// A line is put together in a buffer on the stack and leaves in one write(2) of at most PIPE_BUF bytes, so lines of several threads
// and processes never mix. When standard error takes nothing for a tenth of a second the line is dropped and counted; the next
// line that gets through says how many were lost.
#include "base/log.h"

#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = PIPE_BUF, TAIL_BYTES = 64, VALUE_BYTES = 1024, WAIT_MS = 100 };

// Relaxed everywhere: these are settings and a counter that order nothing else.
static _Atomic int most_level = LOG_INFO;
static _Atomic bool as_json = false;
static _Atomic uint64_t dropped_lines = 0;

static const char *const level_names[] = {[LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};

// Invariant: len <= room. A put that does not fit sets full and writes nothing more.
struct line {
    char text[LINE_BYTES];
    size_t len, room;
    bool full;
};

void log_configure(enum log_level most, bool json)
{
    atomic_store_explicit(&most_level, (int)most, memory_order_relaxed);
    atomic_store_explicit(&as_json, json, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&most_level, memory_order_relaxed);
}

static void put_bytes(struct line *line, const char *bytes, size_t len)
{
    if (len > line->room - line->len)
        line->full = true;
    if (line->full)
        return;
    memcpy(line->text + line->len, bytes, len);
    line->len += len;
}

static void put_format(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put_format(struct line *line, const char *format, ...)
{
    char text[64];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    put_bytes(line, text, len < 0 ? 0 : (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1);
}

// Length of the well-formed UTF-8 sequence at s (Unicode 15, table 3-7), 0 if there is none. Stops at the terminating NUL by
// itself.
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    const size_t n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    const unsigned low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    const unsigned high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    return n;
}

// One character in a quoted string, valid in JSON as in our own form. A byte that is no UTF-8 becomes U+FFFD.
static size_t put_quoted_char(struct line *line, const unsigned char *s)
{
    const size_t n = utf8_length(s);
    if (n == 0) {
        put_bytes(line, "\xef\xbf\xbd", 3);
        return 1;
    }
    if (*s == '"' || *s == '\\')
        put_format(line, "\\%c", *s);
    else if (*s == '\n')
        put_bytes(line, "\\n", 2);
    else if (*s == '\t')
        put_bytes(line, "\\t", 2);
    else if (*s < ' ' || *s == 0x7f)
        put_format(line, "\\u%04x", *s);
    else
        put_bytes(line, (const char *)s, n);
    return n;
}

static void put_quoted(struct line *line, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t done = 0;
    put_bytes(line, "\"", 1);
    while (done < VALUE_BYTES && s[done])
        done += put_quoted_char(line, s + done);
    if (s[done])
        put_bytes(line, "...", 3);
    put_bytes(line, "\"", 1);
}

static bool is_plain(const char *text)
{
    size_t n = 0;
    for (const unsigned char *s = (const unsigned char *)text; *s; s++, n++)
        if (*s <= ' ' || *s >= 0x7f || *s == '"' || *s == '\\' || *s == '=' || n == VALUE_BYTES)
            return false;
    return n > 0;
}

static void put_value(struct line *line, bool json, const struct log_field *field)
{
    switch (field->kind) {
    case LOG_FIELD_STR:
        if (!json && field->str && is_plain(field->str))
            put_bytes(line, field->str, strlen(field->str));
        else
            put_quoted(line, field->str ? field->str : "");
        break;
    case LOG_FIELD_U64:
        put_format(line, "%llu", (unsigned long long)field->u64);
        break;
    case LOG_FIELD_I64:
        put_format(line, "%lld", (long long)field->i64);
        break;
    case LOG_FIELD_HEX: // JSON has no hexadecimal numbers
        put_format(line, json ? "\"0x%llx\"" : "0x%llx", (unsigned long long)field->u64);
        break;
    }
}

// All of a field or nothing of it, so that a line that is too long is still a line of whole fields.
static bool put_field(struct line *line, bool json, const struct log_field *field)
{
    const size_t before = line->len;
    if (json) {
        put_bytes(line, ",", 1);
        put_quoted(line, field->key);
        put_bytes(line, ":", 1);
    } else {
        put_bytes(line, " ", 1);
        put_bytes(line, field->key, strlen(field->key));
        put_bytes(line, "=", 1);
    }
    put_value(line, json, field);
    if (!line->full)
        return true;
    line->len = before;
    line->full = false;
    return false;
}

// UTC, RFC 3339. Not gmtime_r(), which may read the time zone's file: a worker opens nothing. The calendar is Howard Hinnant's
// civil_from_days: years begin in March, so that the day that comes and goes is the last one.
static void put_time(struct line *line)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const long day_seconds = 86400;
    const long seconds = (long)(now.tv_sec % day_seconds);
    const long days = (long)(now.tv_sec / day_seconds) + 719468; // since 1 March of year 0
    const long era = days / 146097, day_of_era = days % 146097;
    const long year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const long day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const long month_from_march = (5 * day_of_year + 2) / 153;
    const long day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    const long month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    const long year = year_of_era + era * 400 + (month <= 2);
    put_format(line, "%04ld-%02ld-%02ldT%02ld:%02ld:%02ld.%06ldZ", year, month, day, seconds / 3600, seconds / 60 % 60,
               seconds % 60, now.tv_nsec / 1000);
}

static void put_head(struct line *line, bool json, enum log_level level, const char *module, const char *message)
{
    if (json) {
        put_bytes(line, "{\"time\":\"", 9);
        put_time(line);
        put_format(line, "\",\"level\":\"%s\",\"module\":", level_names[level]);
        put_quoted(line, module);
        put_bytes(line, ",\"message\":", 11);
        put_quoted(line, message);
        return;
    }
    put_time(line);
    put_format(line, " %-5s ", level_names[level]);
    put_bytes(line, module, strnlen(module, VALUE_BYTES));
    put_bytes(line, ": ", 2);
    for (size_t done = 0; done < VALUE_BYTES && message[done];)
        done += put_quoted_char(line, (const unsigned char *)message + done);
}

static bool send_line(const struct line *line)
{
    struct pollfd waiting = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&waiting, 1, WAIT_MS) != 1 || !(waiting.revents & POLLOUT))
        return false;
    return write(STDERR_FILENO, line->text, line->len) == (ssize_t)line->len;
}

void log_write(enum log_level level, const char *module, const char *message, const struct log_field *fields, size_t n_fields)
{
    const bool json = atomic_load_explicit(&as_json, memory_order_relaxed);
    struct line line;
    line.len = 0;
    line.full = false;
    line.room = sizeof(line.text) - TAIL_BYTES;
    put_head(&line, json, level, module, message);
    bool whole = true;
    for (size_t i = 0; i < n_fields && whole; i++)
        whole = put_field(&line, json, &fields[i]);

    line.room = sizeof(line.text); // what follows fits in the tail
    if (!whole)
        put_format(&line, json ? ",\"cut\":true" : " cut=true");
    const uint64_t dropped = atomic_exchange_explicit(&dropped_lines, 0, memory_order_relaxed);
    if (dropped)
        put_format(&line, json ? ",\"dropped\":%llu" : " dropped=%llu", (unsigned long long)dropped);
    put_format(&line, json ? "}\n" : "\n");
    if (!send_line(&line))
        atomic_fetch_add_explicit(&dropped_lines, dropped + 1, memory_order_relaxed);
}

bool log_limit_pass(struct log_limit *limit, const char *module, uint64_t now_ns)
{
    if (limit->whole_ns < now_ns)
        limit->whole_ns = now_ns;
    if (limit->whole_ns - now_ns > (LOG_LIMIT_BURST - 1) * LOG_LIMIT_EVERY_NS) {
        limit->held_back++;
        return false;
    }
    limit->whole_ns += LOG_LIMIT_EVERY_NS;
    if (limit->held_back)
        log_event(LOG_WARN, module, "lines held back: too many of the like", LOG_U64("lines", limit->held_back));
    limit->held_back = 0;
    return true;
}
