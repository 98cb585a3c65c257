// Sizes as people write them: "512", "256M", "10GiB", "1.5G".
//
// A number, with a fraction if a unit follows, then K, M, G, T, P or E, alone, with "iB" or with "B". All of them are powers of
// 1024 (the field's habit for memory and disks; 'MB' of a rate is another thing and not read here). Capitals do not matter.
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define SIZE_TEXT_MAX 32

// 0 with *bytes, or -EINVAL (no size), -ERANGE (above 2^64 - 1); the message tells what a size looks like.
int size_parse(const char *text, uint64_t *bytes, struct tv_error *err);

// The shortest of what size_parse() reads back to the same number: "256 MiB" is "256M", 1536 MiB is "1536M", 1000 is "1000".
// Returns buf.
const char *size_format(uint64_t bytes, char buf[static SIZE_TEXT_MAX]);

// For reading: at most one decimal, rounded to nearest: "1.5 GiB", "256 MiB", "17 B". Returns buf.
const char *size_format_about(uint64_t bytes, char buf[static SIZE_TEXT_MAX]);
