// A volume in a person's words, with paths, made into one with descriptors, which is what a store takes: for whoever
// may open things, the store's own command line and trivetd. Any thread; blocks.
//
// In each object of the tree, "path" of an image becomes "fd"; "socket" becomes "fd", of its folder, and "name"; "host" becomes
// "address", in numbers. A "base" is opened read-only, and all that is in it. Everything else
// is left as it is.
//
// A volume that stays is kept in a *volume file*, a text of JSON. Which files are one is told by their names and never by what is
// in them: a raw image holds what its guest wants. A file of a tree may be one as well: the volume that it tells of is there.
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

#define STORE_FDS_MAX 62 // beside one request

struct store_fds {
    unsigned n;
    int fd[STORE_FDS_MAX + 1]; // with room for a socket that is not part of a volume
};

struct store_open_options {
    bool read_only;        // images that do not say otherwise by "read_only"
    bool without_keys;     // only looks whether all is there: what is encrypted is not unlocked, and the volume is of no use
    unsigned lock_wait_ms; // for a process that has an image and is about to end; 0: what the store waits for anyway
};

#define STORE_VOLUME_SUFFIX ".volume"
bool store_is_volume_file(const char *path);
// What is at a path: what a volume file says, or else the image there. Relative paths in a volume file are of its own folder, and
// absolute in *volume, which is the caller's. What is named is not looked at.
int store_load_volume(const char *path, json_t **volume, struct tv_error *err);

// Appends to `fds` and changes `volume`; on failure some of both may have happened. The message names the path.
int store_open_volume(json_t *volume, const struct store_open_options *options, struct store_fds *fds, struct tv_error *err);
void store_close_fds(struct store_fds *fds); // those that are left; -1 is none
