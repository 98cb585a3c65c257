// The store: disks, served to machines. The one public header of this folder.
//
// One thread runs everything: the loop, the disks' queues, the dispatcher and the I/O engine. Work is done in batches: a kick or a
// batch of completions ends with store_end_batch(), which hands the device what the dispatcher lets go, in one system call, and
// calls each queue that got answers once.
#pragma once

#include "base/error.h"
#include "base/loop.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define STORE_QUEUES_MAX 64
#define STORE_WINDOW 256 // requests with the device at once
#define STORE_NAME_MAX 64
#define STORE_SERIAL_MAX 20 // VIRTIO_BLK_ID_BYTES

struct store;
struct disk;

struct store_config {
    bool no_uring;         // threads that block, although io_uring would work
    const char *scheduler; // NULL: fifo; its window is STORE_WINDOW
    int shadow_fd;    // a folder, borrowed: see volume/overlay_shadow.h; -1: overlays lose what was not flushed when it is killed
    int verdicts_fd;  // borrowed: a file for verdicts (verdict_file.h); -1: they end with the store
    unsigned poll_us; // how long a client that had something to do is polled, instead of waiting for its kick; 0: never
};

struct disk_config {
    const char *name;     // at most STORE_NAME_MAX - 1 bytes; unique in the store
    const char *serial;   // at most STORE_SERIAL_MAX bytes; NULL: the name
    const json_t *volume; // as volume/spec.h has it; NULL: the file that is descriptor 0
    int vhost;            // which descriptor is a listening vhost-user socket; -1: none
    bool nbd;             // exported to NBD clients, by its name
    bool read_only;
    unsigned n_queues;         // of the vhost-user device: 1 to STORE_QUEUES_MAX
    uint32_t block_size_bytes; // 0: what the image's device wants
    const char *promises;      // as trivet-promises(7) has them; NULL: none
    bool admitted;             // they were admitted before, and are not to be refused since the device is busier now
    json_t *unproven;          // what of them is taken on trust is appended, as by store_promise(); NULL: nobody asks
};

struct store *store_create(struct loop *loop, const struct store_config *config, struct tv_error *err);
void store_destroy(struct store *store); // drains and removes all disks
const char *store_describe(const struct store *store);

// Takes the descriptors, also on failure: those that the volume names (see volume/image.h about who opens an image), and sockets.
int store_add_disk(struct store *store, const struct disk_config *config, int *fds, unsigned n_fds, struct tv_error *err);
int store_remove_disk(struct store *store, const char *name, struct tv_error *err); // drains
int store_resize_disk(struct store *store, const char *name, uint64_t size_bytes, struct tv_error *err);
// What the disk has now stays as it is, made stable, in what it was kept in until now: others may read that from here on. What is
// written goes to the overlay in the file (store/overlay_file.h), which is empty and as large as the disk. Takes the descriptor.
// -EOPNOTSUPP: blocks of this size, or encryption, which what lies above would not have. On failure all is as it was.
int store_snapshot_disk(struct store *store, const char *name, int overlay_fd, struct tv_error *err);
// What the disk's overlay has from its base, if that is an overlay, is taken over into it, from offset_bytes on and for at most
// STORE_ABSORB_BYTES; `done` is called later, with the number of bytes that were looked at, or -errno with the error. It is work of
// the disk, and within its promises.
#define STORE_ABSORB_BYTES (8u << 20)
typedef void store_absorbed_fn(void *arg, int64_t result, const struct tv_error *err);
int store_absorb(struct store *store, const char *name, uint64_t offset_bytes, store_absorbed_fn *done, void *arg,
                 struct tv_error *err);
// All of it was absorbed: that is made stable, and from then on the base's base will do as well when the disk is opened.
int store_settle_absorbed(struct store *store, const char *name, struct tv_error *err);
// A new disk whose blocks read as noise: zeroes in its first STORE_BLANK_BYTES, made stable, since there everybody looks for what a
// disk may hold. All disks wait.
#define STORE_BLANK_BYTES (1u << 20)
int store_blank_disk(struct store *store, const char *name, struct tv_error *err);
// Other rules (volume/fault_rules.h) for the volume of type "fault" that the disk has. What hung is carried out.
int store_set_faults(struct store *store, const char *name, const json_t *rules, struct tv_error *err);
// Other promises of running disks, {name: text}: for all of them or none. What was taken on trust (admission.h) is appended to
// `unproven`, {"name", "promise", "because"}. -ENOENT, -EINVAL and -ERANGE for what means nothing, -EBUSY when there is not so much
// to be promised, -EOPNOTSUPP when the scheduler cannot hold it.
int store_promise(struct store *store, const json_t *promises, bool admitted, json_t *unproven, struct tv_error *err);
json_t *store_list_promises(const struct store *store); // of the disks that were promised something, with verdicts
json_t *store_list(const struct store *store);
// `histograms`: of latencies, beside what sums them up. NULL with err: there is no such disk.
json_t *store_stat(const struct store *store, const char *name, bool histograms, struct tv_error *err);

// A socket on which NBD clients are waited for, and what TLS they can have there.
struct store_nbd_config {
    const char *name;      // unique
    const json_t *exports; // names of the disks that can be had here, if they are exported; NULL: all that are
    bool tls_required;     // else TLS is the client's choice, if there are credentials
    // Texts: PEM, and lines of NAME:HEXADECIMAL. A client must have a certificate of the CA's, if one is given.
    const char *certificate, *key, *ca, *psk;
};

int store_nbd_listen(struct store *store, const struct store_nbd_config *config, int listen_fd, struct tv_error *err); // takes it
int store_nbd_close(struct store *store, const char *name, struct tv_error *err); // its connections too
json_t *store_nbd_list(const struct store *store);

// The control socket: takes listen_fd. `quit` is called by store.quit.
struct rpc_server *store_serve_control(struct store *store, struct loop *loop, int listen_fd, void (*quit)(void *), void *arg,
                                       struct tv_error *err);
