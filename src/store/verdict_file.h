// The file in which verdicts outlive the store. Private to the store; its thread.
//
// What became of promises goes to it as it happens: each disk's records every VERDICT_FILE_EVERY_NS, by the I/O engine, so nothing
// here waits for a file system. A store that is killed loses no more than that. Nothing is made stable: what a power cut takes is
// what the kernel had not written yet, half a minute as a rule. A file that is damaged, foreign, full or taken away costs the
// records and nothing else. Two stores do not write to one file: it is locked, and while another one has it (the last writes of a
// killed store, as a rule) it is tried again; then what it holds is put before what was judged meanwhile.
#pragma once

#include "promise/watch.h"
#include "store/io.h"

#define VERDICT_FILE_EVERY_NS 2000000000u
#define VERDICT_FILE_TURNS 10u // ticks in that time; in each some of the disks have their turn

struct verdict_file;

// What is at the path, made if need be: a descriptor, or -errno with err, also where it is something that we would not write to.
int verdict_file_open(const char *path, struct tv_error *err);

// Borrows fd. The engine outlives it.
struct verdict_file *verdict_file_create(struct io_engine *io, int fd, struct tv_error *err);
void verdict_file_destroy(struct verdict_file *f); // writes what has changed; NULL is nothing

// A disk has joined the watch, or has other promises; and is about to leave it. f may be NULL, here and below.
void verdict_file_resume(struct verdict_file *f, struct promise_watch *w, uint32_t slot);
void verdict_file_save(struct verdict_file *f, struct promise_watch *w, uint32_t slot);
// VERDICT_FILE_TURNS times in VERDICT_FILE_EVERY_NS; the slots of the watch are below n_slots.
void verdict_file_tick(struct verdict_file *f, struct promise_watch *w, uint32_t n_slots);
