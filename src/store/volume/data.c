// Pieces of scattered memory: see data.h.
#include "store/volume/data.h"

#include <assert.h>
#include <string.h>

struct volume_data volume_data_from(struct volume_data data, size_t len_bytes)
{
    data.skip_bytes += len_bytes;
    while (data.n_iov && data.skip_bytes >= data.iov->iov_len) {
        data.skip_bytes -= data.iov->iov_len;
        data.iov++;
        data.n_iov--;
    }
    return data;
}

// The contiguous start of a piece that is at most len_bytes long.
static struct iovec first_of(struct volume_data data, size_t len_bytes)
{
    assert(data.n_iov);
    size_t there = data.iov->iov_len - data.skip_bytes;
    return (struct iovec){(uint8_t *)data.iov->iov_base + data.skip_bytes, there < len_bytes ? there : len_bytes};
}

void volume_data_read(struct volume_data data, void *to, size_t len_bytes)
{
    for (uint8_t *at = to; len_bytes;) {
        struct iovec piece = first_of(data, len_bytes);
        memcpy(at, piece.iov_base, piece.iov_len);
        at += piece.iov_len;
        len_bytes -= piece.iov_len;
        data = volume_data_from(data, piece.iov_len);
    }
}

void volume_data_write(struct volume_data data, const void *from, size_t len_bytes)
{
    for (const uint8_t *at = from; len_bytes;) {
        struct iovec piece = first_of(data, len_bytes);
        memcpy(piece.iov_base, at, piece.iov_len);
        at += piece.iov_len;
        len_bytes -= piece.iov_len;
        data = volume_data_from(data, piece.iov_len);
    }
}

void volume_data_zero(struct volume_data data, size_t len_bytes)
{
    while (len_bytes) {
        struct iovec piece = first_of(data, len_bytes);
        memset(piece.iov_base, 0, piece.iov_len);
        len_bytes -= piece.iov_len;
        data = volume_data_from(data, piece.iov_len);
    }
}

unsigned volume_data_vector(struct volume_data data, size_t len_bytes, struct iovec *iov, unsigned most)
{
    unsigned n = 0;
    while (len_bytes) {
        assert(n < most);
        iov[n] = first_of(data, len_bytes);
        len_bytes -= iov[n].iov_len;
        data = volume_data_from(data, iov[n].iov_len);
        n++;
    }
    return n;
}
