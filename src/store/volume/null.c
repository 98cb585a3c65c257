// A volume that keeps nothing: see null.h.
#include "store/volume/null.h"

#include <errno.h>
#include <stdlib.h>

struct null {
    struct volume volume;
    bool read_zeroes;
};

static void null_start(struct volume *volume, struct volume_request *request)
{
    if (request->op == VOLUME_READ && ((struct null *)volume)->read_zeroes)
        volume_data_zero(request->data, request->len_bytes);
    if (request->op == VOLUME_STATUS)
        request->extent = (struct volume_extent){.len_bytes = request->len_bytes, .hole = true, .zero = true};
    volume_finish_later(volume->env, request, 0);
}

static int null_resize(struct volume *volume, uint64_t size_bytes, struct tv_error *err)
{
    if (!size_bytes || size_bytes % volume->block_bytes)
        return tv_error_set(err, -EINVAL, "a size of %llu bytes: must be a multiple of %u", (unsigned long long)size_bytes,
                            volume->block_bytes);
    volume->size_bytes = size_bytes;
    return 0;
}

static void null_destroy(struct volume *volume)
{
    free(volume);
}

static const struct volume_ops null_ops = {
    .kind = "null",
    .start = null_start,
    .resize = null_resize,
    .destroy = null_destroy,
};

struct volume *null_volume_create(struct volume_env *env, const struct null_options *options, struct tv_error *err)
{
    struct null *null = calloc(1, sizeof(*null));
    if (!null) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    null->volume = (struct volume){
        .ops = &null_ops,
        .env = env,
        .size_bytes = options->size_bytes,
        .block_bytes = options->block_bytes,
        .physical_bytes = 4096,
        .read_only = options->read_only,
        .can_discard = true,
    };
    null->read_zeroes = options->read_zeroes;
    return &null->volume;
}
