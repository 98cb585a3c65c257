// Frames as text: see frame_text.h.
#include "router/frame_text.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int frame_read(const json_t *member, uint8_t frame[static PORT_FRAME_MAX], size_t *len, struct tv_error *err)
{
    const char *text = json_string_value(member);
    const size_t n = text ? strlen(text) / 2 : 0;
    bool ok = text && n && n <= PORT_FRAME_MAX && !text[2 * n];
    for (size_t i = 0; ok && i < n; i++) {
        const int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        ok = high >= 0 && low >= 0;
        frame[i] = (uint8_t)(ok ? high << 4 | low : 0);
    }
    *len = n;
    return ok ? 0
              : tv_error_set(err, -EINVAL, "\"frames\" must be strings of 1 to %d bytes, two digits of 0-9a-f each",
                             PORT_FRAME_MAX);
}

json_t *frame_write(const uint8_t *frame, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * PORT_FRAME_MAX];
    for (size_t i = 0; i < len; i++) {
        text[2 * i] = digits[frame[i] >> 4];
        text[2 * i + 1] = digits[frame[i] & 15];
    }
    return json_stringn(text, 2 * len);
}
