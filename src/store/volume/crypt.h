// Encryption at rest over any volume: AES-XTS, as LUKS2 and dm-crypt have it with aes-xts-plain64. What lies below is ciphertext in
// sectors of 512 or 4096 bytes, from offset_bytes on. The store's thread, which does the arithmetic.
//
// Data go by buffers of the volume's own, both ways: a guest's memory is not changed by a write, and a guest never sees ciphertext.
// What was never written, and what was discarded, reads as noise. Zeroes are written, encrypted.
#pragma once

#include "store/volume/env.h"

#define CRYPT_KEY_MOST 64u

struct crypt_options {
    uint8_t key[CRYPT_KEY_MOST];
    size_t key_bytes;      // 32 or 64: two keys of AES, of 128 or 256 bits
    uint32_t sector_bytes; // 512 or 4096
    uint64_t offset_bytes; // where the ciphertext begins: a multiple of 4096
    uint64_t first_iv;     // of the sector there, counted in sectors of 512 bytes whatever sector_bytes is
    bool discards;         // discards are handed on: what is free can be seen below then
};

// Takes `over`, also on failure. -EINVAL: what the options say cannot be.
struct volume *crypt_volume_create(struct volume_env *env, struct volume *over, const struct crypt_options *options,
                                   struct tv_error *err);
