// What follows `trivet disk`: verbs, one function each. Private to disk*.c and promise.c.
#pragma once

#include "control/command/command.h"

#include <stdint.h>

struct disk_command {
    char **words; // behind the verb; as many as it takes
    bool json, quiet, encrypt;
    const char *size, *over, *mirror, *format, *key_file; // NULL: not said
};

int disk_failed(const struct disk_command *c, const struct tv_error *err); // says so; the exit status

int disk_promise(const struct disk_command *c); // promise.c
int disk_create(const struct disk_command *c);  // disk_make.c
int disk_clone(const struct disk_command *c);
int disk_snapshot(const struct disk_command *c); // disk_snapshot.c
int disk_snapshots(const struct disk_command *c);
int disk_revert(const struct disk_command *c);
int disk_drop(const struct disk_command *c);
int disk_import(const struct disk_command *c); // disk_convert.c
int disk_export(const struct disk_command *c);

struct disk_access;
// A name without a folder or a dot is of a disk in the state folder, and becomes that of a volume file there; any other must be
// one.
int disk_take_volume_path(const char *word, struct disk_access *disk, struct tv_error *err); // disk_over.c
// Of what disk.stat answers: how large what an overlay would be put over is, the ciphertext of an encrypted disk.
uint64_t disk_overlay_bytes(const json_t *stat);
int disk_create_encrypted(const struct disk_command *c, struct disk_access *disk, struct tv_error *err); // disk_encrypt.c
int disk_create_over(const struct disk_command *c, struct disk_access *disk, struct tv_error *err);      // disk_over.c
int disk_create_mirror(const struct disk_command *c, struct disk_access *disk, uint64_t size_bytes,
                       struct tv_error *err); // disk_mirror.c
// One that is not there yet; the folder for those of the state folder is made.
int disk_find_new(const char *word, struct disk_access *disk, struct tv_error *err); // disk_make.c
// Makes a file under another name, and gives it its own when it is whole. What is there is not replaced: -EEXIST.
int disk_make_whole(const char *path, int (*make)(void *arg, const char *temp, struct tv_error *err), void *arg,
                    struct tv_error *err);
