// The files of guest/busybox, built into the program by tools/embed. Constant; any thread.
#pragma once

#include <stddef.h>

struct guest_file {
    const char *name; // as in guest/busybox
    const unsigned char *data;
    size_t len_bytes;
};

extern const struct guest_file guest_files[]; // ends with a NULL name
