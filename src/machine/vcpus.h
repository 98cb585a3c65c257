// The vcpus' threads: they are born parked, run between vcpus_run() and vcpus_park(), and park by themselves when the guest ends.
//
// Parking is asynchronous: a vcpu may be inside a device and need the loop's thread, so that one never waits for a vcpu.
// All functions on the loop's thread.
#pragma once

#include "base/confine.h"
#include "base/error.h"
#include "base/loop.h"
#include "machine/engine/engine.h"

#include <stdbool.h>
#include <stdint.h>

struct vcpus;

struct vcpus_config {
    struct loop *loop;     // borrowed
    struct engine *engine; // borrowed
    unsigned n;
    const struct confine_list *calls; // what their threads may ask of the kernel; borrowed
    void *arg;
    // The guest ended the machine: told once a run, on the loop's thread, with the exit that came first.
    void (*ended)(void *arg, enum engine_exit exit);
    // After vcpus_park(): no vcpu runs. On the loop's thread.
    void (*parked)(void *arg);
};

struct vcpus *vcpus_create(const struct vcpus_config *config, struct tv_error *err);
void vcpus_destroy(struct vcpus *v); // they must be parked

void vcpus_run(struct vcpus *v); // they must be parked
void vcpus_park(struct vcpus *v);
uint64_t vcpus_cpu_ns(const struct vcpus *v, unsigned vcpu); // processor time its thread has had
