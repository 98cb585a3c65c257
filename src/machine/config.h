// What a machine is to be: decoded from the one JSON object that its supervisor writes. Everything is checked here; what comes out
// can be used as it is. A worker opens nothing: files and sockets come as descriptor numbers, which are this struct's to close.
#pragma once

#include "base/confine.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_NAME_MAX 64
#define CONFIG_DISKS_MAX 24
#define CONFIG_NETS_MAX 4
#define CONFIG_APPEND_MAX 4096
#define CONFIG_WHY_MAX 256
#define CONFIG_MEMORY_MIN (2ull << 20)
#define CONFIG_MEMORY_MAX (1ull << 40)

struct config_disk {
    char name[CONFIG_NAME_MAX];
    int fd; // a connected vhost-user socket; -1 once it was given away
    uint32_t queues;
};

struct config_net {
    char name[CONFIG_NAME_MAX];
    int fd; // a connected vhost-user socket; -1 once it was given away
    uint8_t mac[6];
    char mac_text[CONFIG_NAME_MAX];
    uint32_t mtu_bytes; // 0: the guest's own choice
    uint32_t queues;    // pairs
};

struct config {
    char name[CONFIG_NAME_MAX], tenant[CONFIG_NAME_MAX];
    char engine[CONFIG_NAME_MAX], cpu[CONFIG_NAME_MAX];
    char engine_why[CONFIG_WHY_MAX]; // why that engine, for whoever asks
    uint64_t memory_bytes;           // whole pages
    bool hugepages;                  // which are of 2 MiB
    uint32_t cpus;
    char append[CONFIG_APPEND_MAX];
    // Descriptors; -1: none.
    int kernel_fd; // always there unless restore_fd is
    int initrd_fd;
    int restore_fd;
    int control_fd; // a listening Unix socket
    int console_listen_fd, console_fd;
    int log_fd, status_fd;
    int perf_map_fd, jitdump_fd; // for perf(1)
    int kvm_fd;                  // /dev/kvm
    bool exit_on_reboot;
    enum confine_mode confine;
    uint64_t audit_instructions; // 0: no audit
    unsigned n_disks;
    struct config_disk disks[CONFIG_DISKS_MAX];
    unsigned n_nets;
    struct config_net nets[CONFIG_NETS_MAX];
};

// Reads fd (borrowed) until its end. -EINVAL with a message that names the member and what it should be.
int config_read(int fd, struct config *config, struct tv_error *err);
int config_decode(const char *text, size_t len_bytes, struct config *config, struct tv_error *err);
void config_fini(struct config *config); // closes the descriptors that are left
