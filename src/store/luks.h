// LUKS2 headers, by libcryptsetup: from a passphrase the key of what is encrypted, and new ones. For whoever opens volumes
// (open.h), so that the process that serves disks sees no header and no passphrase. Any thread; blocks for as long as the header's
// key derivation takes, a second or two by default.
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

// All bytes of the file, a newline at its end as well, as cryptsetup has it of a key file. -EINVAL: none, or more than
// LUKS_PASSPHRASE_MOST. The caller wipes what is in `passphrase`.
int luks_read_passphrase(const char *path, char passphrase[static LUKS_PASSPHRASE_MOST + 1], size_t *n, struct tv_error *err);

// fd: of the image, or of a header that lies apart from its data, borrowed. -EPERM: no key slot takes the passphrase. -EOPNOTSUPP:
// another cipher than aes-xts-plain64, or integrity. -E2BIG: a key slot asks for more memory or time than is given. *key is the
// caller's to wipe.
int luks_unlock(int fd, const char *name, const char *passphrase, size_t passphrase_bytes, struct luks_key *key,
                struct tv_error *err);

// A header that lies apart from what it is for (LUKS2 On-Disk Format Specification, 1.1.2, "detached"), with a new random key in
// one key slot. header_fd: an empty file, in which all that the header can ever need is allocated; data_fd: of what will be
// encrypted, from its first byte on, a multiple of LUKS_SECTOR_BYTES; only its size is looked at. Both borrowed. -ENOSPC.
#define LUKS_SECTOR_BYTES 512u // of those made here: a guest's file system may want to write less than 4096 bytes
int luks_format(int header_fd, int data_fd, const char *name, const char *passphrase, size_t passphrase_bytes,
                struct tv_error *err);
