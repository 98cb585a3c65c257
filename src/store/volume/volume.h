// A volume: blocks that can be read and written, whoever keeps them. The seam between a disk and what is below it: a file, another
// service, memory, or a layer over other volumes. Volumes form a tree; a disk has its root.
//
// Everything happens on the store's thread. A request belongs to the volume from volume_start() until its `done`, which is never
// called from inside of volume_start(). Nothing here allocates once a volume is made: what a volume needs for one request, its
// children's needs included, are the `context_bytes` that the caller lends with it.
//
// Requests under way at the same time may be carried out in any order. A flush that succeeds makes stable what was *done* before it
// was started, and nothing else. A flush that failed has failed for good: what was written since the last good one may be lost, and
// the volume says so (-EIO) to each flush and durable write from then on, until it is opened anew.
#pragma once

#include "base/error.h"
#include "store/volume/data.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct volume;

enum volume_op {
    VOLUME_READ,
    VOLUME_WRITE,
    VOLUME_FLUSH,
    VOLUME_DISCARD, // the range is not needed any more: what it reads as is not said
    VOLUME_ZERO,    // the range reads as zeroes
    VOLUME_STATUS,  // what is known of the range's first bytes, into `extent`
    VOLUME_ABSORB,  // what an overlay's base has in the range of its own is taken over: only where volume_overlay() finds one
};

// Of VOLUME_STATUS: the first len_bytes of the range, not 0, are all alike.
struct volume_extent {
    uint64_t len_bytes;
    bool hole; // takes no place below
    bool zero; // reads as zeroes
};

struct volume_request {
    enum volume_op op;
    bool durable;                     // WRITE, DISCARD, ZERO: on stable storage before it is done
    bool may_unmap;                   // ZERO: the range may become a hole
    bool only_fast;                   // ZERO: -EOPNOTSUPP rather than writing zeroes
    uint64_t offset_bytes, len_bytes; // multiples of block_bytes, in the volume, len_bytes not 0; of FLUSH both are 0
    struct volume_data data;          // READ, WRITE: len_bytes of it; the vector must stay as it is
    struct volume_extent extent;      // STATUS
    // 0, or -errno: -ENOSPC no room to grow, -ENODATA what is below has become shorter, -EOPNOTSUPP not to be had here, else -EIO
    // or the system's.
    void (*done)(struct volume_request *request, int result);
    void *context; // context_bytes of memory, aligned for anything, of any content

    // the volume's
    struct volume_request *link;
    int result;
};

#define VOLUME_IDENTITY 64

struct volume_ops {
    const char *kind; // as specifications name it: "file", "mirror"
    bool absorbs;     // it is an overlay, whose base can be absorbed
    void (*start)(struct volume *volume, struct volume_request *request);
    // Of layers above which an overlay must not lie, so that it comes below: their child, and to have another one of the same size
    // and blocks in its place, with nothing in flight. NULL: an overlay lies above.
    struct volume *(*child)(const struct volume *volume);
    void (*set_child)(struct volume *volume, struct volume *child);
    // With nothing in flight. NULL: the size is what it is.
    int (*resize)(struct volume *volume, uint64_t size_bytes, struct tv_error *err);
    // With nothing in flight: it becomes read-only, its children as well, and whoever wants to read it elsewhere can from now on.
    // NULL: there is nothing to it.
    void (*freeze)(struct volume *volume);
    // Blocks for at most timeout_ms until something was done that does not go by the I/O engine (see io.h), its own and its
    // children's; NULL: there is no such thing. For draining: what cannot be done soon fails then.
    void (*wait)(struct volume *volume, unsigned timeout_ms);
    // A name that the storage has whenever it is opened on this host, of at most VOLUME_IDENTITY - 1 bytes that a file's name can
    // have; false: it has none. NULL: the same.
    bool (*identify)(const struct volume *volume, char name[VOLUME_IDENTITY]);
    // Other rules (fault_rules.h) for a volume of type "fault" here or below; -EOPNOTSUPP: there is none. NULL: the same.
    int (*set_rules)(struct volume *volume, const json_t *rules, struct tv_error *err);
    void (*describe)(const struct volume *volume, json_t *object); // adds members to what volume_describe() says; may be NULL
    void (*destroy)(struct volume *volume);                        // and its children; nothing is in flight
};

// The head of every volume. Invariants: block_bytes and physical_bytes are powers of 2, 512 <= block_bytes <= 4096,
// block_bytes <= physical_bytes; size_bytes is a multiple of block_bytes.
struct volume {
    const struct volume_ops *ops;
    struct volume_env *env;
    uint64_t size_bytes;
    uint32_t block_bytes;    // the smallest that can be read or written
    uint32_t physical_bytes; // what is best read or written
    bool read_only;          // WRITE, DISCARD and ZERO are not to be started
    bool can_discard;
    size_t context_bytes;
};

static inline void volume_start(struct volume *volume, struct volume_request *request)
{
    volume->ops->start(volume, request);
}

// What an overlay would be put over, or the overlay that was: the volume itself, or below layers that stay above.
struct volume *volume_below_layers(struct volume *volume);
// The overlay there that can be written to; NULL: there is none.
struct volume *volume_overlay(struct volume *volume);
int volume_resize(struct volume *volume, uint64_t size_bytes, struct tv_error *err);
void volume_freeze(struct volume *volume);
int volume_set_rules(struct volume *volume, const json_t *rules, struct tv_error *err);
json_t *volume_describe(const struct volume *volume); // {"type", "size_bytes", "block_size", "read_only", ...}
void volume_destroy(struct volume *volume);           // NULL is fine

// The memory behind a volume's own context, for a child's. Contexts are laid one after another, each so aligned.
#define VOLUME_CONTEXT_ALIGN 16u
#define VOLUME_CONTEXT_SIZE(bytes) (((bytes) + VOLUME_CONTEXT_ALIGN - 1) & ~(size_t)(VOLUME_CONTEXT_ALIGN - 1))
