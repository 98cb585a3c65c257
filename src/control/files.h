// Whole files and folders: read, write, copy, make, remove. Errors name the path. Any thread.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

int file_read_all(const char *path, size_t max_bytes, char **data, size_t *len_bytes, struct tv_error *err); // NUL-terminated
int file_write_all(const char *path, const void *data, size_t len_bytes, mode_t mode, struct tv_error *err);

// A new file, all of it a hole. What is there is left: -EEXIST.
int file_make_sparse(const char *path, uint64_t size_bytes, mode_t mode, struct tv_error *err);

// Gives it its name if nothing has it: -EEXIST. 0 or -errno.
int file_name_new(const char *temp, const char *path);

// A private copy: a reflink where the file system can, else the data without the holes. The target must not exist.
int file_copy(const char *from, const char *to, mode_t mode, struct tv_error *err);
// The same into a new file without a name in `dir`, which goes with its last descriptor. Returns the descriptor.
int file_copy_unnamed(const char *from, const char *dir, struct tv_error *err);

// Told now and then how much of the data there is was copied; an answer other than 0 stops it and becomes the result.
struct file_progress {
    int (*tell)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
    void *arg;
};
// The same between open files, the second empty; one thread at a time. `progress` may be NULL. 0 or -errno.
int file_copy_data(int in, int out, const struct file_progress *progress, bool *reflinked);

int dir_make(const char *path, mode_t mode, struct tv_error *err); // with its parents
// The same of a folder that is ours alone, and ours to write; VARIABLE of the environment can name another.
int dir_make_own(const char *path, const char *variable, struct tv_error *err);
int tree_remove(const char *path, struct tv_error *err); // 0 if there is nothing
uint64_t tree_size(const char *path);                    // bytes in regular files
