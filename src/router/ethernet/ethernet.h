// Networks of the type `ethernet`: what their parts share; nothing outside this folder includes this.
#pragma once

#include "router/ethernet/guard.h"
#include "router/ethernet/mac_table.h"
#include "router/ethernet/varp.h"
#include "router/vn.h"

#include <rte_meter.h>

#define ETHERNET_RETIRED_MAX 4

struct ethernet {
    struct mac_table *table;
    bool drops_unknown;
    _Atomic uint64_t n_addresses; // as of the last second
    // Who is known beforehand. Tables are the control thread's; the worker reads them, and has taken addresses from varp_seen.
    uint64_t varp_key;
    _Atomic(struct varp *) varp;
    _Atomic(const struct varp *) varp_seen;
    struct varp *retired[ETHERNET_RETIRED_MAX]; // that the worker may still have seen last
    unsigned n_retired;
    struct varp_entry *said; // by neighbour.add
    size_t n_said;
};

struct ethernet_port {
    bool is_guarded, is_metered, is_link;
    bool is_withdrawn; // it is going: the control thread's
    struct guard guard;
    uint32_t macs_most, n_macs;   // n_macs is the worker's, right again each second
    struct rte_meter_srtcm meter; // of what is flooded
    struct rte_meter_srtcm_profile profile;
    _Atomic uint64_t answered; // questions, for others
};

// ---- neighbour.c ----

extern const struct vn_command ethernet_commands[];

// Control thread. The table of who is known, made anew; -ENOMEM.
int ethernet_publish_table(struct vn *vn, struct tv_error *err);
void ethernet_destroy_tables(struct ethernet *ethernet); // no worker has them
// What was said of a port, or with a mac of that.
void ethernet_forget_said(struct ethernet *ethernet, unsigned port, const uint8_t *mac);

// Worker.
void ethernet_update(struct vn *vn);
// A question that was answered; taken then.
bool ethernet_answer(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet);
// Control thread. Whether such a frame would be.
bool ethernet_would_answer(struct vn *vn, const struct vn_port *in, const uint8_t *frame, size_t len_bytes);
