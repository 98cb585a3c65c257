// What all volumes have in common: see volume.h.
#include "store/volume/volume.h"

#include <errno.h>

struct volume *volume_below_layers(struct volume *volume)
{
    while (volume->ops->child)
        volume = volume->ops->child(volume);
    return volume;
}

struct volume *volume_overlay(struct volume *volume)
{
    struct volume *found = volume_below_layers(volume);
    return found->ops->absorbs && !found->read_only ? found : NULL;
}

int volume_resize(struct volume *volume, uint64_t size_bytes, struct tv_error *err)
{
    if (!volume->ops->resize)
        return tv_error_set(err, -EOPNOTSUPP, "a volume of type '%s' cannot be resized", volume->ops->kind);
    return volume->ops->resize(volume, size_bytes, err);
}

void volume_freeze(struct volume *volume)
{
    if (volume->ops->freeze)
        volume->ops->freeze(volume);
    volume->read_only = true;
}

int volume_set_rules(struct volume *volume, const json_t *rules, struct tv_error *err)
{
    if (!volume->ops->set_rules)
        return tv_error_set(err, -EOPNOTSUPP, "there is no volume of type 'fault'");
    return volume->ops->set_rules(volume, rules, err);
}

json_t *volume_describe(const struct volume *volume)
{
    json_t *object = json_pack("{s:s, s:I, s:i, s:b}", "type", volume->ops->kind, "size_bytes", (json_int_t)volume->size_bytes,
                               "block_size", (int)volume->block_bytes, "read_only", volume->read_only);
    if (volume->ops->describe)
        volume->ops->describe(volume, object);
    return object;
}

void volume_destroy(struct volume *volume)
{
    if (volume)
        volume->ops->destroy(volume);
}
