// What the scheduler is told of a disk's promises. Pure logic; any thread.
#pragma once

#include "promise/promise.h"
#include "store/sched/dispatch.h"

struct dispatch_terms terms_of_promises(const struct promise_set *set); // of a disk
