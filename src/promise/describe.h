// A verdict as JSON, for who asks for it. Any thread.
#pragma once

#include "promise/watch.h"

#include <jansson.h>

// {"promise", "kept", "owed", "for_ms", "unit", "goal", "achieved", "lack_ppm", "held_by", "held_ppm", "last_broken", "hour", "day",
// "all"}; the caller's.
json_t *promise_describe_verdict(const struct promise_verdict *verdict, uint64_t now_ns);
