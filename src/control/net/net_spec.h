// What a virtual network is to be, as its user states it: the form in which `trivet` hands it to trivetd, and in which trivetd
// keeps it.
//
// A specification is an object of JSON: {"name", "type", "tenant", "description", "prefixes", "gateways", "options", "ports",
// "routes", "services", "link"}. net_spec_check() checks it whole and makes the one form of it, so that two that mean the same are
// equal. What the router can tell better (whether a device is there, an option in its range) it tells when it is asked. Any thread.
#pragma once

#include "base/error.h"
#include "control/spec/spec.h"

#include <jansson.h>
#include <stdbool.h>

#define NET_NAME_MAX 15 // of networks and ports; the router's (router/vn.h, router/port/port.h)

// *spec is the caller's. -EINVAL: "network 'lan': ...".
int net_spec_check(const json_t *json, json_t **spec, struct tv_error *err);
// A port by itself, checked in the same way.
int net_spec_check_port(const json_t *json, json_t **port, struct tv_error *err);
// "tcp:8080:10.0.0.2:80" as one of services' forwards.
int net_spec_parse_forward(const char *word, json_t **forward, struct tv_error *err);
int net_spec_check_route(const json_t *json, json_t **route, struct tv_error *err);

const char *net_spec_name(const json_t *spec);
bool net_spec_routes(const json_t *spec);      // of the type ip
bool net_spec_is_underlay(const json_t *spec); // tunnels of links end in it, so it is to be there before networks with links

uint64_t net_spec_outside_bit_rate(const json_t *spec); // of its services' limit; 0: none

// What the router's methods take (trivet-router(8)). The caller's.
json_t *net_spec_vn(const json_t *spec); // vn.add
// port.add; a router's own address on a link stays what it was when the router is started again, since neighbours keep it. host: a
// word that no other host has, which may have networks and ports of the same names on the same wire.
json_t *net_spec_port(const json_t *spec, const json_t *port, const char *host);
// port.add of a machine's port, by its machine's name: with the machine's addresses alone. In a network that routes the router has
// the network's gateways there.
json_t *net_spec_machine_port(const json_t *spec, const char *machine, const struct nic_spec *nic, const char *socket);
// Whether the machine fits in: its tenant, and addresses where the network needs them.
int net_spec_check_machine(const json_t *spec, const struct machine_spec *machine, const struct nic_spec *nic,
                           struct tv_error *err);

// "10.0.0.1", "fd00::1": its family, AF_INET or AF_INET6; 0 if it is none. "/LENGTH" may follow where bits is not NULL (*bits is -1
// without).
int net_parse_address(const char *text, unsigned char bytes[static 16], int *bits);
// An address made from two texts, always the same: locally administered (IEEE 802, 8.4), the rest a hash of them.
void net_make_mac(const char *a, const char *b, char mac[static SPEC_MAC_TEXT_MAX]);
bool net_mac_is_good(const char *text); // of one station: 52:54:00:12:34:56
