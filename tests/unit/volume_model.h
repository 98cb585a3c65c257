// A volume that is asked at random, many requests at a time, and what each of its sectors may be read as: now, and after a power
// cut at this moment. For tests.
#pragma once

#include "record_volume.h"

#define MODEL_SECTOR 512u
#define MODEL_AREA_SECTORS 128u
#define MODEL_AREAS_MAX 4u
#define MODEL_OPS 24u
#define MODEL_VALUES 24u // of a sector, since it was last stable

struct volume_model;

// values[0] was flushed; the last is what it is now. `at`: when each was done; 0: it is in flight.
struct model_sector {
    uint32_t values[MODEL_VALUES];
    uint64_t at[MODEL_VALUES];
    unsigned n;
    bool busy; // a change is under way
};

struct model_op {
    struct volume_request io;
    struct volume_model *model;
    unsigned area, first, n; // sectors of an area
    uint64_t started_at;
    uint8_t *bytes;
    struct iovec iov[2];
    bool is_free;
};

struct volume_model {
    struct volume *volume;
    const uint64_t *areas; // sectors where things happen, each MODEL_AREA_SECTORS long
    unsigned n_areas;
    uint32_t (*value)(uint64_t sector); // what each has in the beginning
    bool (*move)(void *arg);            // something goes on; false: there is nothing
    bool (*other)(struct model_op *op); // a request of another kind that changes nothing, to be submitted; NULL, or false: no
    void *arg;
    bool forgets; // what was discarded may read as anything at once
    struct model_sector sectors[MODEL_AREAS_MAX * MODEL_AREA_SECTORS];
    struct model_op ops[MODEL_OPS];
    uint64_t random, clock;
    uint32_t next_value;
    unsigned n_busy;
};

void model_fill(uint8_t *sector, uint32_t value);       // one sector
void model_init(struct volume_model *m, uint64_t seed); // the members down to forgets are set
void model_fini(struct volume_model *m);
void model_submit(struct model_op *op);
void model_act(struct volume_model *m, unsigned steps);
void model_settle(struct volume_model *m);     // all that was asked is done
void model_set_stable(struct volume_model *m); // what is there was flushed
// Each sector of this volume, which is the model's after a power cut, is one of those that it may be.
void model_check_cut(struct volume_model *m, struct volume *volume);
int model_read(struct volume *volume, uint64_t offset_bytes, void *bytes, uint64_t len_bytes);
