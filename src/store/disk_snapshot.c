// Snapshots of a disk that is served, what is left to do when one goes, and the beginning of a new one: see store.h.
#include "store/disk.h"

#include "base/log.h"
#include "store/volume/file.h"
#include "store/volume/overlay.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

// Is there such a volume in the tree?
static bool has_type(const json_t *volume, const char *wanted)
{
    const char *type = json_string_value(json_object_get(volume, "type"));
    const char *key;
    json_t *member, *element;
    size_t i;
    bool has = type && strcmp(type, wanted) == 0;
    json_object_foreach((json_t *)volume, key, member)
    {
        has = has || (json_is_object(member) && has_type(member, wanted));
        json_array_foreach(member, i, element) has = has || has_type(element, wanted);
    }
    return has;
}

// Where the overlay goes, which is below encryption at the root of the disk.
static bool consists_of(struct volume *volume, const char *type)
{
    json_t *tree = volume_describe(volume_below_layers(volume));
    const bool is = has_type(tree, type);
    json_decref(tree);
    return is;
}

static int check(const struct disk *disk, struct tv_error *err)
{
    if (disk->volume->read_only)
        return tv_error_set(err, -EROFS, "disk '%s': is read-only: what it has now is what it will have", disk->name);
    if (consists_of(disk->volume, "mirror"))
        return tv_error_set(err, -EOPNOTSUPP,
                            "disk '%s': is mirrored, and an overlay above it, one file, would not be; make the overlay below",
                            disk->name);
    if (consists_of(disk->volume, "crypt"))
        return tv_error_set(err, -EOPNOTSUPP,
                            "disk '%s': something encrypted is below what an overlay would be put over, and that would be in the "
                            "clear; have the volume of type 'crypt' above all others",
                            disk->name);
    return 0;
}

static int flush(struct disk *disk, struct tv_error *err)
{
    struct volume_request request = {.op = VOLUME_FLUSH};
    int r = volume_run(disk->volume, &request);
    return r ? tv_error_set(err, r, "disk '%s': cannot be flushed: %s", disk->name, strerror(-r)) : 0;
}

// NULL with err; `root` is as it was then.
static struct volume *make_overlay(struct disk *disk, struct volume *root, int fd, struct tv_error *err)
{
    const struct image_options options = {.block_size_bytes = root->block_bytes};
    struct volume *data = file_volume_create(&disk->store->env, fd, "the overlay", &options, err);
    struct volume *overlay = data ? overlay_volume_create(&disk->store->env, data, root, err) : NULL;
    if (data && !overlay)
        volume_destroy(data);
    if (!overlay)
        return NULL;
    if (overlay->size_bytes == root->size_bytes && overlay->block_bytes == root->block_bytes)
        return overlay;
    tv_error_set(err, overlay->size_bytes == root->size_bytes ? -EOPNOTSUPP : -EINVAL,
                 "the overlay has %llu bytes in blocks of %u, and the disk %llu in blocks of %u",
                 (unsigned long long)overlay->size_bytes, overlay->block_bytes, (unsigned long long)root->size_bytes,
                 root->block_bytes);
    overlay_volume_take_base(overlay);
    return NULL;
}

// `volume` with another one in the place of `root`, which is it or below it; each layer learns of it.
static struct volume *exchanged(struct volume *volume, const struct volume *root, struct volume *other)
{
    if (volume == root)
        return other;
    volume->ops->set_child(volume, exchanged(volume->ops->child(volume), root, other));
    return volume;
}

static int put_over(struct disk *disk, int fd, struct tv_error *err)
{
    struct volume *root = volume_below_layers(disk->volume), *overlay = make_overlay(disk, root, fd, err);
    if (!overlay)
        return err->code;
    disk->volume = exchanged(disk->volume, root, overlay);
    int r = disk_make_contexts(disk, disk->volume, err);
    if (r) {
        disk->volume = exchanged(disk->volume, overlay, root);
        overlay_volume_take_base(overlay);
        return r;
    }
    volume_freeze(root);
    return 0;
}

int disk_snapshot(struct disk *disk, int overlay_fd, struct tv_error *err)
{
    struct tv_error own = {0};
    int r = check(disk, &own);
    if (!r) {
        store_drain(disk, &disk->n_in_flight);
        r = flush(disk, &own);
    }
    if (r)
        close(overlay_fd);
    else if ((r = put_over(disk, overlay_fd, &own)))
        tv_error_prefix(&own, "disk '%s'", disk->name);
    if (!r)
        log_event(LOG_INFO, "store", "snapshot taken", LOG_STR("disk", disk->name));
    else if (err)
        *err = own;
    store_end_batch(disk->store); // others' requests went on meanwhile
    return r;
}

int disk_settle_absorbed(struct disk *disk, struct tv_error *err)
{
    struct volume *overlay = volume_overlay(disk->volume);
    if (!overlay)
        return tv_error_set(err, -EOPNOTSUPP, "disk '%s': is no overlay that can be written to", disk->name);
    store_drain(disk, &disk->n_in_flight);
    int r = flush(disk, err);
    if (!r && (r = overlay_volume_unbind(overlay, err)))
        tv_error_prefix(err, "disk '%s'", disk->name);
    store_end_batch(disk->store);
    return r;
}

int disk_blank(struct disk *disk, struct tv_error *err)
{
    const uint64_t size = disk->volume->size_bytes;
    struct volume_request zero = {.op = VOLUME_ZERO, .len_bytes = size < STORE_BLANK_BYTES ? size : STORE_BLANK_BYTES};
    if (disk->volume->read_only)
        return tv_error_set(err, -EROFS, "disk '%s': is read-only", disk->name);
    store_drain(disk, &disk->n_in_flight);
    int r = volume_run(disk->volume, &zero);
    if (r)
        tv_error_set(err, r, "disk '%s': cannot be written to: %s", disk->name, strerror(-r));
    else
        r = flush(disk, err);
    store_end_batch(disk->store);
    return r;
}
