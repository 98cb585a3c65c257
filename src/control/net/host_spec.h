// What this host is to other hosts, and who they are, as its user states it; and the links that its networks have to them.
//
// An object of JSON: {"address", "underlay", "listen", "certificate", "key", "ca", "peers": [{"name", "address", "connect"}]}.
// "address" is this host's in the network "underlay", which carries links. The rest is for hosts that tell each other of their
// machines (trivet-router(8)): where this one listens, the paths of three PEM files, where each peer listens. Any thread.
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

#define PEER_NAME_MAX 12 // the port of a link is called "to-NAME"

// *spec is the caller's, in the one form of it. -EINVAL: "this host: ...", "peer 'b': ...".
int host_spec_check(const json_t *json, json_t **spec, struct tv_error *err);
const json_t *host_spec_peer(const json_t *host, const char *name); // NULL: there is none; host may be NULL

// The ports that a network's "link" (net_spec.h) becomes, one to each peer that it names, or to each. *ports is the caller's, and
// empty for a network without. -ENOENT: "network 'lan': ...".
int host_spec_links(const json_t *host, const json_t *net, json_t **ports, struct tv_error *err);

// What the router's peer.serve takes, with the texts of the files; NULL with err. The caller's.
json_t *host_spec_serve(const json_t *host, struct tv_error *err);
