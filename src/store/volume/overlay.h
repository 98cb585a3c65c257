// Copy-on-write: a volume over another one that is only read. What is written goes to a data volume, which has the disk's blocks at
// their own places, a map behind them, and a header (store/overlay_file.h, docs/formats/overlay.md). The store's thread.
//
// Crash-safe by order alone: an entry of the map is stored when the data it tells of are stable, and each is good by itself, as it
// was or as it is. A flush that finds the map unchanged costs what it costs below; else it writes what has changed of it as well.
#pragma once

#include "store/volume/env.h"

// Takes `data` and `base` unless it fails. `base` may be anything that does not change; -ESTALE: it is not the one that it was when
// the overlay was first written to. -EBADMSG: `data` is no overlay, or damaged.
struct volume *overlay_volume_create(struct volume_env *env, struct volume *data, struct volume *base, struct tv_error *err);

// The overlay goes, and its base stays: for one that was put over a base and cannot be used after all.
struct volume *overlay_volume_take_base(struct volume *overlay);
// All of it was absorbed and flushed: its base's base is as good a base for it from now on, and it takes either when it is opened
// the next time. With nothing in flight.
int overlay_volume_unbind(struct volume *overlay, struct tv_error *err);
