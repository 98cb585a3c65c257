// Errors that a person will read.
//
// Every function that can fail for a reason worth telling returns 0 or -errno and takes a `struct tv_error *` last, which may be
// NULL. Only main() prints it. A message names the thing, what was wrong and what would be right.
#pragma once

#include <stdarg.h>

struct tv_error {
    int code; // 0, or a negative errno
    char text[512];
};

// Sets code (a negative errno) and text; returns code, so that `return tv_error_set(err, -EINVAL, ...)` reads well.
int tv_error_set(struct tv_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

// Puts "context: " before the text that is there; returns the code that is there.
int tv_error_prefix(struct tv_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
