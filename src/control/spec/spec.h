// What a machine is to be, as its user states it: the form in which `trivet` hands it to trivetd, and in which trivetd keeps it.
//
// JSON is decoded and checked whole by spec_decode(); what comes out can be used as it is. Paths are absolute. Any thread.
#pragma once

#include "base/error.h"
#include "promise/promise.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPEC_DISKS_MAX 16
#define SPEC_NETS_MAX 4
#define SPEC_CPUS_MAX 64
#define SPEC_QUEUES_MAX 64 // of a disk
#define SPEC_NICS_MAX 4
#define SPEC_NIC_ADDRESSES_MAX 16
#define SPEC_MAC_TEXT_MAX 18 // with the NUL
#define SPEC_MEMORY_MIN (16ull << 20)
#define SPEC_NAME_MAX 48

enum spec_restart { RESTART_NO, RESTART_ON_FAILURE, RESTART_ALWAYS };

struct disk_spec {
    char *name, *path, *serial; // serial: NULL is none
    char *promises;             // as promise_set_format() has them, in the order of kinds and metrics; NULL: none
    char *image;                // a private copy of this image's disk is made at path when there is nothing yet; NULL: no
    uint64_t size_bytes;        // made (sparse) or grown to this; 0: as it is
    unsigned queues;
    bool read_only;
};

// Its place in a network.
struct nic_spec {
    char *network;
    char mac[SPEC_MAC_TEXT_MAX]; // made from both names where none is said, so that it is always the same
    char *addresses[SPEC_NIC_ADDRESSES_MAX];
    unsigned n_addresses;
    char *promises; // as a disk's, of a network's port; NULL: none
};

struct net_spec {
    char *name, *socket; // a router's port of the kind vhost
    char mac[18];        // as 52:54:00:12:34:56; made from the socket's path where none was given
    unsigned mtu_bytes;  // 0: the guest's own choice
    unsigned queues;     // pairs
};

struct machine_spec {
    char *name, *tenant;
    char *engine;                   // "kvm", "rv64" or "auto", for which engine_choice.h chooses
    char *cpu;                      // what of the host's processor the guest sees (engine kvm); NULL: all of it
    char *kernel, *initrd, *append; // initrd and append may be NULL; kernel is NULL when `image` or `restore` is given
    char *image, *restore;
    uint64_t memory_bytes;
    bool hugepages; // of which the memory is
    unsigned cpus;
    bool exit_on_reboot;
    bool perf_map, jitdump;      // files in /tmp for perf(1)
    uint64_t audit_instructions; // 0: no audit
    enum spec_restart restart;
    struct disk_spec disks[SPEC_DISKS_MAX];
    unsigned n_disks;
    struct nic_spec nics[SPEC_NICS_MAX];
    unsigned n_nics;
    struct net_spec nets[SPEC_NETS_MAX];
    unsigned n_nets;
};

// Errors say "machine 'web': disk 'db': ...".
int spec_decode(const json_t *json, struct machine_spec *spec, struct tv_error *err);
json_t *spec_encode(const struct machine_spec *spec);
void spec_free(struct machine_spec *spec);                                // in place; a zeroed one is fine
int spec_copy_disk(const struct disk_spec *disk, struct disk_spec *copy); // 0, -ENOMEM
void spec_free_disk(struct disk_spec *disk);                              // in place

// Letters, digits, '-', '_' and '.', beginning with a letter or digit, at most SPEC_NAME_MAX: it becomes a file's name.
bool spec_name_is_good(const char *name);

// "512M", "2G", "1048576": bytes, with K, M, G, T (powers of 1024) and an optional "iB" or "B". -EINVAL with a message on `what`.
int spec_parse_size(const char *text, const char *what, uint64_t *bytes, struct tv_error *err);
// Promises of a disk or a network card, in the one text for what they say; *promises is the caller's, NULL when there are none.
int spec_parse_promises(const char *text, enum promise_resource resource, char **promises, struct tv_error *err);
int spec_parse_restart(const char *text, enum spec_restart *restart);
const char *spec_restart_name(enum spec_restart restart);
