// Both ends of a vhost-user connection for tests: a back end with a device that answers numbers, in a process or a thread of its
// own, and a front end with a driver that counts every answer.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/loop.h"
#include "vhost/vhost.h"
#include "virtq_driver.h"

#define RIG_RAM 0x80000000ull
#define RIG_RAM_BYTES (4ull << 20)
#define RIG_QUEUES 2
#define RIG_QUEUE_SIZE 64
#define RIG_SLOTS (RIG_QUEUE_SIZE / 2) // two descriptors a request
#define RIG_STOP 3
#define RIG_CONFIG_BYTES 16
#define RIG_FEATURE (1ull << 5) // some device feature

// The device's end
// ------------------------------------------------------------------------------------------------------------------

struct rig_device {
    struct loop *loop;
    struct vhost_backend *be;
    struct loop_source *timer;
    bool hold;    // keeps requests until they are released by the timer, in random order; else answers at once
    unsigned rng; // of that order
    bool stop;    // stops its process (SIGSTOP) when it holds RIG_STOP requests, before and after it answers the second one
    bool logs;    // was told to log
    uint8_t config[RIG_CONFIG_BYTES];
    struct rig_held {
        unsigned queue;
        uint16_t head;
        uint64_t answer, *to;
    } held[RIG_QUEUES * RIG_QUEUE_SIZE];
    unsigned n_held;
    unsigned n_started, n_stopped, n_connected, n_disconnected;
};

int rig_listen(void);                                                                  // an abstract Unix socket
int rig_connect(int listen_fd);                                                        // to it
void rig_device_open(struct rig_device *dev, int listen_fd, bool hold, unsigned seed); // takes listen_fd
void rig_device_close(struct rig_device *dev);
pid_t rig_device_spawn(int listen_fd, bool hold, unsigned seed); // in a process; borrows listen_fd
pid_t rig_device_spawn_traced(int listen_fd);                    // with `stop`, traced by the caller

// The driver's end
// ------------------------------------------------------------------------------------------------------------------

struct rig_queue {
    struct virtq_driver drv;
    uint64_t *data; // number and answer of each slot
    int kick_fd, call_fd;
    struct loop_source *call_source;
    uint64_t outstanding[RIG_SLOTS]; // number + 1, 0: free
    struct rig_machine *machine;
};

struct rig_machine {
    struct loop *loop;
    struct guest_memory mem;
    struct vhost_frontend *fe;
    struct rig_queue queues[RIG_QUEUES];
    uint64_t next_number, n_answered;
    unsigned n_wrong; // answers that are wrong or that nobody asked for
    unsigned n_disconnected, n_config_changed, n_broken;
};

void rig_machine_open(struct rig_machine *m, unsigned n_regions);
void rig_machine_close(struct rig_machine *m);
void rig_machine_start(struct rig_machine *m, uint64_t features); // what a driver does: features, fresh rings, queues, status
void rig_machine_offer(struct rig_machine *m, uint64_t until);    // fills all free slots, up to that number in all
unsigned rig_machine_outstanding(const struct rig_machine *m);
// Serves the loop until so many answers are there. False when it took too long.
bool rig_machine_await(struct rig_machine *m, uint64_t n_answered);
