// DPDK's environment for one process that shares nothing: no hugepages if there are none, no files, no telemetry, no secondary
// processes; what it has to say goes to our log.
#pragma once

#include "base/error.h"

#include <stdbool.h>

#define EAL_CPUS_MAX 16

struct eal_config {
    unsigned memory_mb;
    bool no_huge;                           // even if there are hugepages
    bool pci;                               // PCI functions may be used
    unsigned n_workers, cpus[EAL_CPUS_MAX]; // each worker's CPU; lcores 1 to n_workers
};

// Once in a process. The calling thread becomes lcore 0 and keeps its CPUs. *has_huge: whether hugepages are used.
int eal_start(const struct eal_config *config, bool *has_huge, struct tv_error *err);
// A driver of DPDK's for virtual devices ("net_null"), before the first of them is made. Those for functions on PCI are all there,
// if they may be used.
int eal_load_driver(const char *driver, struct tv_error *err);
void eal_stop(void); // before the process ends
