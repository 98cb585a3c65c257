// A record of verdicts as a block of 4096 bytes: docs/formats/verdicts.md. Private to the folder: archive_block.c is the form,
// archive.c the file.
#pragma once

#include "promise/archive.h"
#include "promise/watch_parts.h"

#define ARCHIVE_SECTOR_BYTES 512u
#define ARCHIVE_BLOCK_BYTES 4096u
#define ARCHIVE_SECTORS (ARCHIVE_BLOCK_BYTES / ARCHIVE_SECTOR_BYTES)

// Whose record a block is.
struct archive_key {
    char name[PROMISE_NAME_MAX]; // with zeroes behind its end
    enum promise_kind kind;
    enum promise_metric metric;
};

// Of a block that was read: false: it is empty or damaged. All other functions take blocks of zeroes and good ones.
bool archive_block_is_good(const uint8_t block[static ARCHIVE_BLOCK_BYTES]);
// False: it is empty.
bool archive_block_key(const uint8_t block[static ARCHIVE_BLOCK_BYTES], struct archive_key *key);
// When its newest slot began, in milliseconds since 1970; of a block that has a key.
uint64_t archive_block_time_ms(const uint8_t block[static ARCHIVE_BLOCK_BYTES]);

// Into a block that is zeroes or has this key. `m` as in archive.h, `block` changes only where the record did.
void archive_block_encode(uint8_t block[static ARCHIVE_BLOCK_BYTES], const struct archive_key *key, const struct track *t,
                          const struct promise_moment *m);
// Of a block that has this key. All of the track but its promise and its place in the archive.
void archive_block_decode(const uint8_t block[static ARCHIVE_BLOCK_BYTES], const struct archive_key *key, struct track *t,
                          const struct promise_moment *m);

// The file's first block, which says what it is. Decoding: 0 or -EINVAL with err.
void archive_head_encode(uint8_t block[static ARCHIVE_BLOCK_BYTES]);
int archive_head_decode(const uint8_t block[static ARCHIVE_BLOCK_BYTES], struct tv_error *err);
