// A verdict as JSON, for who asks for it. Private to the store; its thread.
#pragma once

#include "promise/watch.h"

#include <jansson.h>

json_t *verdict_describe(const struct promise_verdict *verdict, uint64_t now_ns);
