// Frames of FPM: see fpm.h.
#include "router/ip/fpm.h"

#include <errno.h>

enum { VERSION = 1, TYPE_NETLINK = 1, HEADER_BYTES = 4 };

int fpm_read(const uint8_t **at, size_t *len_bytes, const uint8_t **messages, size_t *messages_bytes)
{
    const uint8_t *h = *at;
    if (*len_bytes < HEADER_BYTES)
        return -EAGAIN;
    const size_t whole = (size_t)h[2] << 8 | h[3];
    if (h[0] != VERSION || h[1] != TYPE_NETLINK || whole < HEADER_BYTES)
        return -EBADMSG;
    if (*len_bytes < whole)
        return -EAGAIN;
    *messages = h + HEADER_BYTES;
    *messages_bytes = whole - HEADER_BYTES;
    *at += whole;
    *len_bytes -= whole;
    return 0;
}
