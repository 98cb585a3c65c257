// Between sbi.c and pmu.c: how an SBI function answers, and the PMU's side of the calls. Private to the two.
#pragma once

#include "machine/engine/rv64/rv64.h"

// SBI 2.0, section 3.
enum sbi_error {
    SBI_SUCCESS = 0,
    SBI_ERR_FAILED = -1,
    SBI_ERR_NOT_SUPPORTED = -2,
    SBI_ERR_INVALID_PARAM = -3,
    SBI_ERR_DENIED = -4,
    SBI_ERR_INVALID_ADDRESS = -5,
    SBI_ERR_ALREADY_AVAILABLE = -6,
    SBI_ERR_ALREADY_STARTED = -7,
    SBI_ERR_ALREADY_STOPPED = -8,
    SBI_ERR_NO_SHMEM = -9,
};

struct sbi_result {
    enum sbi_error error;
    uint64_t value;
};

// Firmware events that happen here (SBI 2.0, section 11.6). The others of the list are of extensions that the engine does not
// have, or of traps that go to the guest without passing by.
enum sbi_firmware_event {
    SBI_FW_SET_TIMER = 5,
    SBI_FW_IPI_SENT = 6,
    SBI_FW_IPI_RECEIVED = 7,
    SBI_FW_FENCE_I_SENT = 8,
    SBI_FW_FENCE_I_RECEIVED = 9,
    SBI_FW_SFENCE_VMA_SENT = 10,
    SBI_FW_SFENCE_VMA_RECEIVED = 11,
    SBI_FW_SFENCE_VMA_ASID_SENT = 12,
    SBI_FW_SFENCE_VMA_ASID_RECEIVED = 13,
    SBI_FW_EVENTS,
};

// Serves the extension's functions; arguments in a[0..5].
struct sbi_result rv64_pmu_call(struct rv64_vcpu *v, uint64_t function, const uint64_t a[static 6]);
void rv64_pmu_event(struct rv64_vcpu *v, enum sbi_firmware_event event); // any thread
int rv64_pmu_init(struct rv64_vcpu *v);
void rv64_pmu_fini(struct rv64_vcpu *v);
void rv64_pmu_reset(struct rv64_vcpu *v);
int rv64_pmu_state(struct rv64_vcpu *v, struct state *s);
