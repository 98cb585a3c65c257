// Frames of the Forwarding Plane Manager protocol, by which FRR's zebra hands over what it has chosen (FRR, fpm/fpm.h; its module
// dplane_fpm_nl): a header of four bytes and messages of rtnetlink behind it, in the byte order of the host. Pure logic over
// foreign bytes.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define FPM_PORT 2620 // TCP
#define FPM_FRAME_MAX 65535

// Takes the first frame off what lies at *at. 0, with its messages; -EAGAIN: it is not there whole; -EBADMSG: it is none.
int fpm_read(const uint8_t **at, size_t *len_bytes, const uint8_t **messages, size_t *messages_bytes);
