// What the NBD server needs from outside, for whoever may open things: a listening socket by its address, and texts of files.
#pragma once

#include "base/error.h"

#define LISTEN_TEXT_MAX (1u << 20)

// "unix:PATH" or "tcp:HOST:PORT", an IPv6 host in brackets: a listening socket, or -errno. *path: of a Unix socket, inside of
// `address`, for who removes it in the end; else NULL.
int listen_at(const char *address, const char **path, struct tv_error *err);

// All of a regular file: the caller's to free. `label` for messages.
int listen_read_text(int fd, const char *label, char **text, struct tv_error *err);
int listen_load_text(const char *path, char **text, struct tv_error *err);
