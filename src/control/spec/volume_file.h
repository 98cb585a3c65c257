// A volume file and what lies beside it, for commands that change which files a disk consists of: of the disk x.volume these are
// the files that overlays write to, x.overlay and x.1.overlay, x.2.overlay, ..., and its snapshots x@NAME.volume, which are volume
// files themselves; if it is encrypted, x.luks is its header. Errors name the path. Any thread; blocking.
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <limits.h>
#include <stdint.h>

int volume_file_snapshot(const char *path, const char *name, char snapshot[static PATH_MAX], struct tv_error *err);
// Of "x@NAME.volume" that is a snapshot of the disk at `path`: where NAME begins, and its length; NULL: it is none.
const char *volume_file_snapshot_name(const char *path, const char *file, int *len);

// Whoever changes it holds this; the file's text may be another one afterwards. The descriptor, for close(), or -errno.
int volume_file_lock(const char *path, struct tv_error *err);
// As it is written, names as they are.
int volume_file_read(const char *path, json_t **volume, struct tv_error *err);
// Its text changes at once, or not at all, and durably. `volume` is borrowed.
int volume_file_replace(const char *path, const json_t *volume, struct tv_error *err);
int volume_file_make(const char *path, const json_t *volume, struct tv_error *err); // -EEXIST: it is there

// A new file for an overlay, the next of the disk's: overlay[] is its path. Returns a descriptor.
int volume_file_make_overlay(const char *path, uint64_t size_bytes, char overlay[static PATH_MAX], struct tv_error *err);
// An overlay in the file `data` over what the file `base` is; names without a folder are of the volume file's own. Of a base that
// is a disk encrypted, of which `volume` tells, over its ciphertext, and encrypted with its key. NULL: a name is not UTF-8, or
// memory.
json_t *volume_file_overlay(const char *data, const char *base, const json_t *volume);
json_t *volume_file_overlay_of_nothing(const char *data, uint64_t size_bytes);
// What is read or written of a disk by its overlays, without encryption above them. Borrowed.
json_t *volume_file_root(json_t *volume);
