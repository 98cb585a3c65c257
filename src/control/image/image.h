// Images: bootable templates made from the distribution's archive, in STATE/images/NAME/{kernel,initrd,disk.raw,image.json},
// and packages.raw for those with a Debian root.
//
// Building needs no root. An image is made in a temporary folder beside its place and renamed into it, under a lock, so that there
// is a whole image or none. For programs with one thread.
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#define IMAGE_BUSYBOX "busybox" // Debian's kernel and busybox; at home in its initrd as well as on its disk
#define IMAGE_DEBIAN "debian"   // a Debian root on its disk, and a disk of packages for it
#define IMAGE_AMD64 "-amd64"    // behind a name: for x86-64; without it, for riscv64
#define IMAGE_NAMES "'busybox', 'busybox-amd64', 'debian', 'debian-amd64'"

struct image_request {
    const char *name;   // one of IMAGE_NAMES
    const char *suite;  // NULL: the one that is usual for its architecture
    const char *mirror; // NULL: what the host's own apt uses
    bool rebuild;       // even if it is there and current
    bool quiet;         // no progress on standard error
};

struct image_paths {
    char dir[PATH_MAX], kernel[PATH_MAX], initrd[PATH_MAX], disk[PATH_MAX], packages[PATH_MAX], json[PATH_MAX];
};

bool image_is_known(const char *name);
bool image_is_amd64(const char *name);
bool image_is_debian(const char *name); // for either architecture: its root is on its disk and nowhere else

int image_paths(struct image_paths *paths, const char *name, struct tv_error *err);

// Where the image's files are; -ENOENT with the command that builds it when there is none.
int image_find(struct image_paths *paths, const char *name, struct tv_error *err);

// Its image.json; the caller frees it.
int image_describe(const char *name, json_t **json, struct tv_error *err);

// Builds it unless it is there, of the same suite and made by the same recipe. *built says which.
int image_build(const struct image_request *request, bool *built, struct tv_error *err);
