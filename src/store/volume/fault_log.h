// What a volume of type "fault" was asked to change, and when it was done, in a file: enough to make every state that a power cut
// could have left. Form: docs/formats/fault-log.md. The store's thread, which it holds up: it is for tests.
#pragma once

#include "store/volume/volume.h"

struct fault_log {
    int fd; // owned; -1: there is none
    uint64_t next_number;
    bool has_failed; // the file ends where it could not be written to any more
    struct iovec iov[VOLUME_SEGMENTS_MAX + 1];
};

// Takes fd, -1 for none. What is in the file stays: this is appended to it.
int fault_log_init(struct fault_log *log, int fd, uint64_t size_bytes, struct tv_error *err);
void fault_log_fini(struct fault_log *log);
// A change or a flush is handed down. Its number, for its end.
uint64_t fault_log_begin(struct fault_log *log, const struct volume_request *request);
void fault_log_end(struct fault_log *log, const struct volume_request *request, uint64_t number, int result);
