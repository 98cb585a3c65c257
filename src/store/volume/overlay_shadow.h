// The map of an overlay in memory that outlives the store: a small file of the store's folder for such files, mapped and shared. A
// guest goes on when its store is killed, and what it was told is written must be there for the next one, flushed or not; the map
// on the disk tells of what was flushed alone. After a power cut the file means nothing: its name has the boot it belongs to. The
// store's thread.
//
// It belongs to one opening of the overlay, its *session*, a number at random that is in the overlay's header as well. Whoever
// opens the overlay for writing and has no file of this session begins another one.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OVERLAY_SHADOW_NAME 128

struct overlay_shadow {
    int folder_fd, fd; // fd -1: there is none
    char name[OVERLAY_SHADOW_NAME];
    void *memory;
    size_t bytes;
};

// The folder where such files are kept, made if need be, for the user alone. -1 with err.
int overlay_shadow_open_folder(struct tv_error *err);

struct overlay_shadow_config {
    int folder_fd;            // borrowed
    const char *name;         // says which overlay
    uint64_t n_words, n_used; // that it can have, and of which those at the front have to have their memory now
    uint64_t session;         // the last one; 0: there was none
    bool read_only;           // nothing is made, and what is of no use is left alone
};

// *kept: it is of this session, and has its words; else they are zeroes.
int overlay_shadow_open(struct overlay_shadow *shadow, const struct overlay_shadow_config *config, bool *kept,
                        struct tv_error *err);
uint64_t *overlay_shadow_words(const struct overlay_shadow *shadow);
int overlay_shadow_grow(struct overlay_shadow *shadow, uint64_t n_used);    // 0 or -errno
void overlay_shadow_begin(struct overlay_shadow *shadow, uint64_t session); // from now on it is of this one
void overlay_shadow_close(struct overlay_shadow *shadow, bool keep);        // not: all of it is on the disk
