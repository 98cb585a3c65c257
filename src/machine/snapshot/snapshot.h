// A saved machine in a file: what it was (a JSON object), the state stream of its engine and board, and its RAM without the pages
// that are zero.
//
//   header  64 bytes: magic, version, lengths, checksums        (snapshot_format.h)
//   config  JSON text
//   state   the stream of base/state.h
//   RAM     records {offset, length, checksum} each followed by its bytes, ascending; one with offset ~0 ends them
//
// All numbers are little-endian, checksums are CRC-32 (zlib's). A file is read as what it is: foreign. Reading never trusts a
// length it has not compared with the file's size.
//
// On the machine's thread. No vcpu and no device may touch RAM meanwhile.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SNAPSHOT_CONFIG_MAX (1u << 20)
#define SNAPSHOT_STATE_MAX (256u << 20)

struct snapshot_contents {
    const char *config; // JSON text
    size_t config_len_bytes;
    const void *state;
    size_t state_len_bytes;
    int ram_fd;         // a memfd: its holes are not read, so that saving costs no memory
    const uint8_t *ram; // its mapping
    uint64_t ram_size_bytes;
};

// Saving goes step by step, so that the owner can tell how far it is and serve others between two steps.
struct snapshot_writer;

// Borrows fd, a regular file, which is emptied, and what contents point to. NULL with err on failure.
struct snapshot_writer *snapshot_writer_create(int fd, const struct snapshot_contents *contents, struct tv_error *err);
// Writes some MiB. 1: there is more; 0: all is on the disk; else an error (-ENOSPC and the like): the file is emptied again.
int snapshot_writer_step(struct snapshot_writer *w, struct tv_error *err);
void snapshot_writer_progress(const struct snapshot_writer *w, uint64_t *done_bytes, uint64_t *total_bytes);
void snapshot_writer_destroy(struct snapshot_writer *w);

struct snapshot_reader;

// What it was, alone, checked: JSON text with a NUL, which the caller frees.
int snapshot_read_config(int fd, char **config, struct tv_error *err);

// Reads and checks header, config and state. Borrows fd.
struct snapshot_reader *snapshot_reader_create(int fd, struct tv_error *err);
const char *snapshot_reader_config(const struct snapshot_reader *r, size_t *len_bytes);
const void *snapshot_reader_state(const struct snapshot_reader *r, size_t *len_bytes);
uint64_t snapshot_reader_ram_size(const struct snapshot_reader *r);
// Fills ram, whose size must be the saved one and which must read as zeroes. Once.
int snapshot_reader_load_ram(struct snapshot_reader *r, uint8_t *ram, uint64_t ram_size_bytes, struct tv_error *err);
void snapshot_reader_destroy(struct snapshot_reader *r);
