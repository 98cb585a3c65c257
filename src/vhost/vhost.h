// vhost-user, both ways: the one public header of this folder.
//
// memory.h     guest memory: sealed memfds, checked views
// virtqueue.h  the device's side of a split virtqueue
// frontend.h   the machine's end of a vhost-user connection
// backend.h    the service's end of it
#pragma once

#include "vhost/backend.h"
#include "vhost/frontend.h"
#include "vhost/memory.h"
#include "vhost/virtqueue.h"
