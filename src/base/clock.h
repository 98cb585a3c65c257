// Monotonic time, in nanoseconds, from CLOCK_MONOTONIC. Any thread.
#pragma once

#include <stdint.h>

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

uint64_t clock_now_ns(void);
