// A verdict as JSON, for who asks for it. Private to the store; its thread.
#pragma once

#include "promise/watch.h"

#include <jansson.h>

// held_by: NULL for nobody.
json_t *verdict_describe(const struct promise_verdict *verdict, const char *held_by, uint64_t now_ns);
