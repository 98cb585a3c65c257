// Records of verdicts that outlive the process: of each promise what became of it in the last day, as a file has it.
//
// An archive is the image in memory of such a file (docs/formats/verdicts.md), which is the caller's: it reads the file and loads
// what is in it, and writes what has changed. Saving a holder costs about a microsecond for each of its promises and changes one or
// two sectors of 512 bytes; each sector is good by itself, so there is nothing to be made stable in any order. A promise is found
// again by its holder's name, its kind and its metric. What nobody has saved for a day makes place for others.
//
// What is loaded is foreign: what is damaged is taken as not there. One owner thread.
#pragma once

#include "promise/watch.h"

#include <stddef.h>

#define PROMISE_ARCHIVE_BYTES_MAX ((size_t)4096 * 4096) // so many of a file are used: 4095 promises

struct promise_archive;

// The same moment by two clocks: the watch's, and milliseconds since 1970.
struct promise_moment {
    uint64_t now_ns, unix_ms;
};

struct promise_archive *promise_archive_create(void); // empty; NULL: out of memory
void promise_archive_destroy(struct promise_archive *a);

// What a file holds, into an archive that is empty; an empty file is a good one. -EINVAL: it holds something else, or a version
// that is newer; -ENOMEM. The archive is then as it was.
int promise_archive_load(struct promise_archive *a, const void *bytes, size_t len_bytes, struct tv_error *err);

// The holder's promises go on with the records that the archive has of them; what they have had until now is added.
void promise_archive_resume(struct promise_archive *a, struct promise_watch *w, uint32_t slot, const struct promise_moment *m);
// What became of the holder's promises until now. -ENOSPC: all places are taken by others; -ENOMEM.
int promise_archive_save(struct promise_archive *a, struct promise_watch *w, uint32_t slot, const struct promise_moment *m);

// Copies what is to be written to the file and has not been taken yet: at most `size` bytes (at least 4096) that belong at
// *offset_bytes. How many; 0: there is nothing.
size_t promise_archive_take(struct promise_archive *a, void *bytes, size_t size, uint64_t *offset_bytes);
// What was taken could not be written, and is to be taken again.
void promise_archive_untake(struct promise_archive *a, uint64_t offset_bytes, size_t len_bytes);
