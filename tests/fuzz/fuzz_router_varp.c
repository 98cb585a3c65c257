// Any bytes as a frame that may ask for an address: read and written within its room; what is answered goes to the one who asked,
// from the one who was asked for.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "router/ethernet/varp.h"
#include "router/ip/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct varp *table;
    static const struct varp_entry entries[] = {
        {.family = IP4, .address = (rib_key)0x0a000002 << 96, .mac = {2, 0, 0, 0, 0, 2}},
        {.family = IP6, .address = ((rib_key)0xfd << 120) | 2, .mac = {2, 0, 0, 0, 0, 2}},
    };
    if (!table)
        table = varp_create(entries, 2, 7);
    if (!size)
        return 0;
    const size_t len = size - 1, room = len + *data; // of just this size, so that a byte too many is noticed
    uint8_t *frame = malloc(room ? room : 1);
    memcpy(frame, data + 1, len);
    const size_t answer = varp_answer(table, 7, frame, len, room);
    if (!answer) {
        assert(!memcmp(frame, data + 1, len));
    } else {
        assert(answer >= 42 && answer <= room);
        assert(!memcmp(frame, data + 7, 6) && !memcmp(frame + 6, entries[0].mac, 6));
        if (frame[12] == 0x86)
            assert(!ip6_check((void *)(frame + 14), answer - 14));
    }
    free(frame);
    return 0;
}
