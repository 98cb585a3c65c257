// Any bytes as a saved machine: refused, or read without touching what is not there. Checksums are put right first, or nothing
// behind them would ever be reached.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "machine/snapshot/snapshot.h"
#include "machine/snapshot/snapshot_format.h"

#define RAM_BYTES (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Walks the file as the reader will, as far as it makes sense, and corrects each checksum.
static void correct_checksums(uint8_t *file, size_t size)
{
    struct snapshot_header h;
    if (size < sizeof(h))
        return;
    memcpy(&h, file, sizeof(h));
    memcpy(h.magic, SNAPSHOT_MAGIC, sizeof(h.magic));
    uint64_t config_len = h.config_len_bytes, state_len = h.state_len_bytes;
    size_t left = size - sizeof(h);
    if (config_len <= left)
        h.config_crc = snapshot_crc(0, file + sizeof(h), config_len);
    if (config_len <= left && state_len <= left - config_len)
        h.state_crc = snapshot_crc(0, file + sizeof(h) + config_len, state_len);
    h.crc = snapshot_crc(0, &h, offsetof(struct snapshot_header, crc));
    memcpy(file, &h, sizeof(h));
    if (config_len > left || state_len > left - config_len)
        return;
    uint32_t records_crc = 0;
    for (size_t at = sizeof(h) + config_len + state_len; size - at >= sizeof(struct snapshot_record);) {
        struct snapshot_record r;
        memcpy(&r, file + at, sizeof(r));
        if (r.offset == SNAPSHOT_END)
            r.crc = records_crc;
        else if (r.len_bytes <= size - at - sizeof(r))
            r.crc = snapshot_crc(0, file + at + sizeof(r), r.len_bytes);
        else
            return;
        memcpy(file + at, &r, sizeof(r));
        if (r.offset == SNAPSHOT_END)
            return;
        records_crc = snapshot_crc(records_crc, &r, sizeof(r));
        at += sizeof(r) + r.len_bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t ram[RAM_BYTES];
    uint8_t *file = malloc(size + 1);
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || !file)
        abort();
    memcpy(file, data, size);
    correct_checksums(file, size);
    if (write(fd, file, size) != (ssize_t)size)
        abort();
    struct tv_error err = {0};
    struct snapshot_reader *r = snapshot_reader_create(fd, &err);
    if (r)
        snapshot_reader_load_ram(r, ram, RAM_BYTES, &err);
    snapshot_reader_destroy(r);
    close(fd);
    free(file);
    return 0;
}
