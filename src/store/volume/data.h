// A piece of scattered memory: len_bytes (which the owner knows) from skip_bytes on into a vector. Pieces of pieces cost nothing.
// Pure logic; any thread.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct volume_data {
    const struct iovec *iov;
    unsigned n_iov;
    size_t skip_bytes; // within the first segment, always
};

// What is left after the first len_bytes.
struct volume_data volume_data_from(struct volume_data data, size_t len_bytes);
void volume_data_read(struct volume_data data, void *to, size_t len_bytes);          // memory -> to
void volume_data_write(struct volume_data data, const void *from, size_t len_bytes); // from -> memory
void volume_data_zero(struct volume_data data, size_t len_bytes);
// As a vector for the kernel: exactly len_bytes, in at most `most` segments. Returns how many.
unsigned volume_data_vector(struct volume_data data, size_t len_bytes, struct iovec *iov, unsigned most);
