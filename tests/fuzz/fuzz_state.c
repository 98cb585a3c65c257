// Any bytes as a saved state: a device's walk over them ends, every array stays within its bounds, and what was refused reads
// zeroes. What is accepted is saved again and comes out the same.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/state.h"

enum { N_MAX = 8 };

struct device {
    bool on;
    uint8_t a;
    uint16_t b;
    uint32_t c, n;
    uint64_t d, ring[N_MAX];
    char name[6];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void device_state(struct device *v, struct state *s)
{
    state_section_begin(s, "device", 1);
    state_bool(s, "on", &v->on);
    state_u8(s, "a", &v->a);
    state_u16(s, "b", &v->b);
    state_section_begin(s, "queue", 1);
    state_count(s, "n", &v->n, N_MAX);
    for (uint32_t i = 0; i < v->n; i++)
        state_u64(s, "slot", &v->ring[i]);
    state_section_end(s);
    state_u32(s, "c", &v->c);
    state_bytes(s, "name", v->name, sizeof(v->name));
    state_u64_array(s, "d", &v->d, 1);
    state_section_end(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct device v;
    struct tv_error err = {0};
    memset(&v, 0, sizeof(v));
    struct state *load = state_create_load(data, size);
    device_state(&v, load);
    assert(v.n <= N_MAX);
    const int rc = state_finish(load, NULL, NULL, &err);
    assert((rc != 0) == state_failed(load) && (rc == 0) == (err.text[0] == 0));
    uint64_t later = 5;
    if (rc) {
        state_u64(load, "later", &later);
        assert(later == 0);
    }
    state_destroy(load);
    if (rc)
        return 0;

    void *again;
    size_t len;
    struct state *save = state_create_save();
    device_state(&v, save);
    assert(state_finish(save, &again, &len, NULL) == 0);
    assert(len == size && memcmp(again, data, len) == 0);
    state_destroy(save);
    free(again);
    return 0;
}
