// Structured log: one line an event on standard error, `time level module: message key=value ...`, or one JSON object a line when
// log_configure() asks for it. Values with blanks are quoted. Thread-safe; never allocates; never blocks for long.
//
//   log_event(LOG_INFO, "store", "disk attached", LOG_STR("disk", name), LOG_U64("size_bytes", size));
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log_field {
    const char *key;
    enum { LOG_FIELD_STR, LOG_FIELD_U64, LOG_FIELD_I64, LOG_FIELD_HEX } kind;
    union {
        const char *str;
        uint64_t u64;
        int64_t i64;
    };
};

#define LOG_STR(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_STR, .str = (v)})
#define LOG_U64(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_U64, .u64 = (uint64_t)(v)})
#define LOG_I64(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_I64, .i64 = (int64_t)(v)})
#define LOG_HEX(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_HEX, .u64 = (uint64_t)(v)})

void log_configure(enum log_level most, bool json);
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *module, const char *message, const struct log_field *fields, size_t n_fields);

#define log_event(level, module, message, ...)                                                                                     \
    do {                                                                                                                           \
        if (log_enabled(level)) {                                                                                                  \
            const struct log_field log_fields_[] = {{.key = NULL}, ##__VA_ARGS__};                                                 \
            log_write((level), (module), (message), log_fields_ + 1, sizeof(log_fields_) / sizeof(log_fields_[0]) - 1);            \
        }                                                                                                                          \
    } while (0)

// For what a guest or a peer can cause as often as it likes: so many lines at once, and then one more each LOG_LIMIT_EVERY_NS.
// Zeroed when new; the owner's lock guards it.
#define LOG_LIMIT_BURST 10u
#define LOG_LIMIT_EVERY_NS 10000000000ull
struct log_limit {
    uint64_t whole_ns;  // when all of the burst may be logged again
    uint64_t held_back; // lines, since the last that was let through
};

// True: the line may be logged now. How many were held back before it is logged first, for `module`.
bool log_limit_pass(struct log_limit *limit, const char *module, uint64_t now_ns);
