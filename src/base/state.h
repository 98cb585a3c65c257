// Saved state: one walk over a device's fields, for saving and for loading alike.
//
// A device has a single function `int x_state(struct x *, struct state *)` that names each field once. While saving, each call
// appends the field; while loading, it fills it. So the two directions cannot drift apart.
//
// The stream is self-describing: sections and fields carry their names and sizes, and a load checks them. Errors are sticky: after
// the first one every load leaves zeroes and state_finish() tells what was wrong and where. Contents that were loaded are foreign:
// the device checks them (indices, lengths) before it uses them, and reports with state_fail().
//
// Guest RAM is not in this stream; see machine/snapshot. Not thread-safe; the owner of the stream calls.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct state;

struct state *state_create_save(void);
// Borrows buf until state_destroy().
struct state *state_create_load(const void *buf, size_t len_bytes);
void state_destroy(struct state *s);

bool state_is_loading(const struct state *s);
bool state_failed(const struct state *s);

// Opens a nested section. `version`, from 1 on, is what this program writes; what is returned is the version in the stream when
// loading (never greater than `version`: a newer one is an error) and `version` when saving.
uint32_t state_section_begin(struct state *s, const char *name, uint32_t version);
void state_section_end(struct state *s);

void state_bool(struct state *s, const char *name, bool *value);
void state_u8(struct state *s, const char *name, uint8_t *value);
void state_u16(struct state *s, const char *name, uint16_t *value);
void state_u32(struct state *s, const char *name, uint32_t *value);
void state_u64(struct state *s, const char *name, uint64_t *value);
void state_bytes(struct state *s, const char *name, void *buf, size_t len_bytes);    // exactly len_bytes, both ways
void state_u64_array(struct state *s, const char *name, uint64_t *values, size_t n); // exactly n, both ways
// A length that is data: at most `max` when loading, else the stream is refused.
void state_count(struct state *s, const char *name, uint32_t *count, uint32_t max);

// Marks the stream as unusable; the first mark stays.
void state_fail(struct state *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Saving: hands over the bytes (the caller frees *buf). Loading: checks that all was read; buf and len_bytes may be NULL.
int state_finish(struct state *s, void **buf, size_t *len_bytes, struct tv_error *err);
