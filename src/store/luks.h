// LUKS2 images: from a passphrase the key of what is in them, by libcryptsetup. For whoever opens volumes (open.h), so that the
// process that serves disks sees no header and no passphrase. Any thread; blocks for as long as the header's key derivation takes,
// a second or two by default.
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define LUKS_KEY_MOST 64u
#define LUKS_PASSPHRASE_MOST 4096u

// What a header may ask of this host.
#define LUKS_MEMORY_KIB_MOST (1u << 20) // the most that cryptsetup itself chooses
#define LUKS_PASSES_MOST 64u            // of Argon2 over its memory
#define LUKS_ITERATIONS_MOST 50000000u  // of PBKDF2

struct luks_key {
    uint8_t key[LUKS_KEY_MOST];
    size_t key_bytes;
    uint32_t sector_bytes;
    uint64_t offset_bytes, first_iv;
};

// fd: of the image, borrowed. -EPERM: no key slot takes the passphrase. -EOPNOTSUPP: another cipher than aes-xts-plain64, or
// integrity. -E2BIG: a key slot asks for more memory or time than is given. *key is the caller's to wipe.
int luks_unlock(int fd, const char *name, const char *passphrase, size_t passphrase_bytes, struct luks_key *key,
                struct tv_error *err);
