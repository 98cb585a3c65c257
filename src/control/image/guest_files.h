// The files of guest/, built into the program by tools/embed. Constant; any thread.
#pragma once

#include <stddef.h>

struct guest_file {
    const char *name; // of the file, without its folder
    const unsigned char *data;
    size_t len_bytes;
};

extern const struct guest_file guest_files[]; // ends with a NULL name
