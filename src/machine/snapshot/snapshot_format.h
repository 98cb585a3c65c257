// The bytes of a saved machine, shared by writer.c and reader.c: see snapshot.h. Private to this folder.
#pragma once

#include <endian.h>
#include <stdint.h>
#include <zlib.h>

#define SNAPSHOT_MAGIC "TRIVETSV"
#define SNAPSHOT_VERSION 1u
#define SNAPSHOT_PAGE_BYTES 4096u
#define SNAPSHOT_RECORD_MAX (1u << 20) // bytes of RAM in one record
#define SNAPSHOT_END UINT64_MAX

struct snapshot_header {
    char magic[8];
    uint32_t version;
    uint32_t config_crc, state_crc;
    uint32_t config_len_bytes;
    uint64_t state_len_bytes;
    uint64_t ram_size_bytes;
    uint8_t reserved[20]; // zero
    uint32_t crc;         // of all that is before it
};

struct snapshot_record {
    uint64_t offset; // in RAM, in whole pages; SNAPSHOT_END in the last record
    uint32_t len_bytes;
    uint32_t crc; // of the bytes; in the last record, of all records' headers before it
};

_Static_assert(sizeof(struct snapshot_header) == 64, "the header is 64 bytes on disk");
_Static_assert(sizeof(struct snapshot_record) == 16, "a record's head is 16 bytes on disk");

static inline uint32_t snapshot_crc(uint32_t crc, const void *buf, uint64_t len_bytes)
{
    return (uint32_t)crc32_z(crc, buf, (z_size_t)len_bytes);
}
