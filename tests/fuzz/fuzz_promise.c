// Any bytes as promises of a disk, a CPU or a network: refused by one line of text, or a set that holds what promise.h says of sets
// and is printed, read back and printed again the same.
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "promise/promise.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_promise(const struct promise_set *set, unsigned index)
{
    const struct promise *p = &set->list[index];
    assert(p->value >= 1 && p->value <= PROMISE_VALUE_MAX);
    assert((p->metric == PROMISE_LATENCY) == (p->per_mille != 0) && p->per_mille < 1000);
    assert(p->metric != PROMISE_LATENCY || p->kind == PROMISE_RESERVE);
    assert(promise_set_find(set, p->kind, p->metric) == p); // the first, so the only one
    const struct promise *limit = promise_set_find(set, PROMISE_LIMIT, p->metric);
    assert(p->kind != PROMISE_RESERVE || !limit || p->value <= limit->value);
}

static void check(enum promise_resource resource, const char *text)
{
    struct promise_set set = {.n = 77}, again;
    struct tv_error err = {0};
    const int rc = promise_set_parse(&set, resource, text, &err);
    assert(rc == err.code && (rc == 0 || rc == -EINVAL || rc == -ERANGE));
    if (rc) {
        assert(err.text[0] && !strchr(err.text, '\n') && set.n == 77);
        return;
    }
    assert(set.resource == resource && set.n <= PROMISE_SET_MAX);
    for (unsigned i = 0; i < set.n; i++)
        check_promise(&set, i);
    char once[PROMISE_SET_TEXT_MAX], twice[PROMISE_SET_TEXT_MAX];
    assert(promise_set_parse(&again, resource, promise_set_format(&set, once), &err) == 0);
    assert(again.n == set.n && memcmp(again.list, set.list, set.n * sizeof(set.list[0])) == 0);
    assert(strcmp(promise_set_format(&again, twice), once) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1); // of its exact size, so that a byte too far is seen
    assert(text);
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    for (int resource = 0; resource < PROMISE_RESOURCES; resource++)
        check((enum promise_resource)resource, text);
    free(text);
    return 0;
}
