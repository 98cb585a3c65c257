// One NBD request, checked whole before anything is done with it. Pure logic.
#pragma once

#include "store/nbd/wire.h"

// What an export lets its client do.
struct nbd_terms {
    uint64_t size_bytes;
    uint32_t block_bytes;
    bool read_only, can_trim;
    bool structured, has_context; // negotiated: structured replies, base:allocation
};

// NBD_OK, or the error to answer with ("Error values"), *why in words. Nothing that covers no byte is refused for where it lies.
uint32_t nbd_request_check(const struct nbd_request *request, const struct nbd_terms *terms, const char **why);
uint16_t nbd_terms_flags(const struct nbd_terms *terms); // transmission flags
