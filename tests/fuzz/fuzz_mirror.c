// Any bytes as headers of a mirror's legs: what is taken makes sense, and legs that are put together make a mirror in which
// somebody has everything. Input: a byte (1: checksums and what must be the same are made good first), then 512 bytes for each of
// up to 4 legs.
#include <assert.h>
#include <string.h>
#include <zlib.h>

#include "store/volume/mirror_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LEGS 4u
#define LEG_BYTES (64u << 20)

static void make_good(uint8_t bytes[static 512], const uint8_t first[static 512])
{
    memcpy(bytes, "TVMIRROR\1\0\0", 12);
    memset(bytes + 12, 0, 4);
    memcpy(bytes + 16, first + 16, 24); // set, size
    bytes[48] = bytes[49] = bytes[51] = 0;
    bytes[50] = 16;
    memcpy(bytes + 52, first + 52, 4);
    const uint32_t check = (uint32_t)crc32_z(0, bytes, 512);
    memcpy(bytes + 12, &check, sizeof(check));
}

static void check_header(const uint8_t bytes[static 512], struct mirror_found *found)
{
    struct mirror_header *h = &found->header, again;
    uint8_t back[512];
    found->leg_bytes = LEG_BYTES;
    found->has_header = !mirror_header_decode(bytes, LEG_BYTES, h, NULL);
    if (!found->has_header)
        return;
    assert(h->size_bytes && h->size_bytes <= mirror_meta_offset(LEG_BYTES) && h->size_bytes % 512 == 0);
    assert(h->n_legs && h->n_legs <= MIRROR_LEGS_MAX && h->in_sync >> h->index & 1 && mirror_regions(h) <= MIRROR_REGIONS_MAX);
    mirror_header_encode(h, back);
    assert(!mirror_header_decode(back, LEG_BYTES, &again, NULL) && !memcmp(h, &again, sizeof(again)));
}

static void check_plan(const struct mirror_plan *plan, unsigned n)
{
    unsigned seen = 0, in_sync = 0;
    for (unsigned i = 0; i < n; i++) {
        assert(plan->legs[i].index < plan->header.n_legs && !(seen >> plan->legs[i].index & 1));
        seen |= 1u << plan->legs[i].index;
        in_sync += plan->legs[i].state == MIRROR_IN_SYNC;
    }
    assert(in_sync);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mirror_found found[LEGS] = {0};
    struct mirror_plan plan;
    uint8_t headers[LEGS][512] = {0};
    const unsigned n = size < 1 ? 0 : (unsigned)((size - 1) / 512 < LEGS ? (size - 1) / 512 : LEGS);
    for (unsigned i = 0; i < n; i++) {
        memcpy(headers[i], data + 1 + 512 * i, 512);
        if (data[0] & 1)
            make_good(headers[i], headers[0]);
        check_header(headers[i], &found[i]);
    }
    const struct mirror_options options = {
        .degraded = n && data[0] & 2, .has_rebuild = n && data[0] & 4, .rebuild = n ? data[0] / 8 % n : 0};
    if (n && !mirror_assemble(found, n, &options, &plan, NULL))
        check_plan(&plan, n);
    return 0;
}
