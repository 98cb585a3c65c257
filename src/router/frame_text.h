// Frames as text, for control: two digits of 0-9a-f a byte.
#pragma once

#include "base/error.h"
#include "router/port/port.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

// 1 to PORT_FRAME_MAX bytes; -EINVAL with err, which calls it "frames".
int frame_read(const json_t *member, uint8_t frame[static PORT_FRAME_MAX], size_t *len, struct tv_error *err);
json_t *frame_write(const uint8_t *frame, size_t len); // len: at most PORT_FRAME_MAX
