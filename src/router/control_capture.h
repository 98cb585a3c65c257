// capture.start and capture.stop of the control socket (trivet-router(8)): what a network's ports carry, as pcapng to a descriptor
// that comes with the request. The loop's thread.
#pragma once

#include "router/router.h"

// {"vn", "port", "snap"} and a descriptor: everything goes there until capture.stop comes, or nobody reads it any more.
rpc_method_fn control_start_capture;
// {"vn"}: {"packets", "dropped"}; the descriptor is closed when the last of it is written.
rpc_method_fn control_stop_capture;

void control_init_captures(struct router *router, struct loop *loop);
void control_end_captures(void); // before the router goes
