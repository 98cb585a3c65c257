// Can a worker's CPU keep what its networks and ports are promised? Private to the router; the control thread.
//
// The rule is the store's (store/admission.h): what is known is held to. Percentages are always known, what bits and packets cost
// is once ADMISSION_PACKETS_LEAST have come in bursts that tell it. Until then such a reserve is taken on trust, and counts as
// nothing; and what asks for no more than was promised before is not refused.
//
// The ports of a network share what the network has, so a network needs what it was promised itself or what its ports were
// together, whichever is more.
#pragma once

#include "promise/admit.h"
#include "router/vn.h"

#define ADMISSION_PACKETS_LEAST 10000u
#define ADMISSION_SHARE_MAX PROMISE_SHARE_MAX_DEFAULT

struct admission {
    char name[16]; // "worker 0"
    uint64_t hz;
    struct vn *const *vns;
    size_t n_vns;
};

// A network or a port that is to have other promises, or to be.
struct admission_change {
    const struct vn *vn; // NULL: a new network
    const struct vn_port *port;
    const char *new_vn, *new_port; // names of what is not there yet; NULL: it is
    struct promise_set set;
};

// 0, -EINVAL: the promises of ports and their network exclude each other; -EBUSY with the arithmetic; -ENOMEM. What was taken on
// trust is appended to `unproven`, {"name", "promise"}, unless that is NULL.
int admission_check(const struct admission *a, const struct admission_change *change, json_t *unproven, struct tv_error *err);
// In base units by the second, what it would reach with the CPU for itself, by what its packets cost of late; untouched where that
// is not known.
void admission_alone(const struct promised *promised, uint64_t hz, uint64_t rates[static PROMISE_METRICS]);
// False: the promise was taken on trust.
bool admission_is_proven(const struct promised *promised, const struct promise *p, uint64_t hz);
// What a network's reserves and those of its ports take, in millionths. *known: nothing of it was taken on trust.
uint64_t admission_need(const struct vn *vn, uint64_t hz, bool *known);
// "lan" or "lan/db"; returns buf.
#define ADMISSION_NAME_MAX (VN_NAME_MAX + PORT_NAME_MAX + 2)
const char *admission_name(const char *vn, const char *port, char buf[static ADMISSION_NAME_MAX]);
