// Any bytes as a frame of a machine's, held to its addresses: read within the frame, and what passes carries the machine's own
// source.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "router/ethernet/guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct guard guard = {
    .mac = {2, 0, 0, 0, 0, 1},
    .n_ip4 = 1,
    .n_ip6 = 1,
    .ip4 = {{10, 0, 0, 1}},
    .ip6 = {{0xfd, [15] = 1}},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *frame = malloc(size ? size : 1); // of just this size, so that a byte too many is noticed
    if (!frame)
        return 0;
    memcpy(frame, data, size);
    const enum drop drop = guard_check(&guard, frame, size, size);
    assert(drop == DROP_NONE || drop == DROP_SPOOFED || drop == DROP_MALFORMED);
    if (drop == DROP_NONE) {
        assert(size >= 14 && !memcmp(frame + 6, guard.mac, 6));
        if (frame[12] == 0x08 && frame[13] == 0x06)
            assert(size >= 42 && !memcmp(frame + 22, guard.mac, 6));
        if (frame[12] == 0x08 && frame[13] == 0x00 && memcmp(frame + 26, "\0\0\0\0", 4))
            assert(!memcmp(frame + 26, guard.ip4[0], 4));
    }
    struct guard router = guard;
    router.is_router = true; // it may send what anybody may
    const enum drop as_router = guard_check(&router, frame, size, size);
    assert(as_router == DROP_NONE || (drop != DROP_NONE && (as_router == DROP_SPOOFED || as_router == DROP_MALFORMED)));
    free(frame);
    return 0;
}
