// A piece of scattered memory: len_bytes (which the owner knows) from skip_bytes on into a vector. Pieces of pieces cost nothing.
// Pure logic; any thread.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define VOLUME_SEGMENTS_MAX 256u // of a request's data

struct volume_data {
    const struct iovec *iov;
    unsigned n_iov;
    size_t skip_bytes; // within the first segment, always
};

// What is left after the first len_bytes. Empty segments are fine everywhere.
struct volume_data volume_data_from(struct volume_data data, size_t len_bytes);
void volume_data_read(struct volume_data data, void *to, size_t len_bytes);          // memory -> to
void volume_data_write(struct volume_data data, const void *from, size_t len_bytes); // from -> memory
void volume_data_zero(struct volume_data data, size_t len_bytes);
// As a vector for the kernel: exactly len_bytes, none of the segments empty but that of an empty first one. Returns how many; there
// must be room for them.
unsigned volume_data_vector(struct volume_data data, size_t len_bytes, struct iovec *iov, unsigned most);
