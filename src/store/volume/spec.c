// Volumes from specifications: see spec.h.
#include "store/volume/spec.h"

#include "store/volume/crypt.h"
#include "store/volume/fault.h"
#include "store/volume/file.h"
#include "store/volume/mirror.h"
#include "store/volume/nbd.h"
#include "store/volume/null.h"
#include "store/volume/overlay.h"
#include "store/volume/ram.h"
#include "store/volume/stripe.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

typedef struct volume *build_fn(struct volume_spec *spec, const json_t *json, struct tv_error *err);

static struct volume *refuse(struct volume_spec *spec, struct tv_error *err, const char *type, const char *what)
{
    tv_error_set(err, -EINVAL, "%s: volume of type '%s': %s", spec->label, type, what);
    return NULL;
}

// -1 with err: there is none of this number, or it was taken.
static int take_fd(struct volume_spec *spec, const json_t *json, const char *key, struct tv_error *err)
{
    const json_t *number = json_object_get(json, key);
    const json_int_t n = json_integer_value(number);
    if (!json_is_integer(number) || n < 0 || n >= (json_int_t)spec->n_fds || spec->fds[n] < 0) {
        tv_error_set(err, -EINVAL,
                     "%s: volume: \"%s\" must be the number of a descriptor beside the request, used once; there are %u",
                     spec->label, key, spec->n_fds);
        return -1;
    }
    int fd = spec->fds[n];
    spec->fds[n] = -1;
    return fd;
}

static struct volume *build_file(struct volume_spec *spec, const json_t *json, struct tv_error *err)
{
    const json_t *read_only = json_object_get(json, "read_only"), *block_size = json_object_get(json, "block_size");
    const json_t *lock = json_object_get(json, "lock");
    if ((read_only && !json_is_boolean(read_only)) || (block_size && !json_is_integer(block_size)) ||
        (lock && !json_is_boolean(lock)))
        return refuse(spec, err, "file", "takes fd, block_size (numbers), read_only and lock (booleans)");
    struct image_options options = {
        .read_only = read_only ? json_is_true(read_only) : spec->read_only,
        .unlocked = json_is_false(lock),
        .block_size_bytes = block_size ? (uint32_t)json_integer_value(block_size) : spec->block_bytes,
    };
    int fd = take_fd(spec, json, "fd", err);
    return fd < 0 ? NULL : file_volume_create(spec->env, fd, spec->label, &options, err);
}

// "size_bytes" and "block_size", of what has no image to have them from.
static int take_sizes(const struct volume_spec *spec, const json_t *json, uint64_t *size_bytes, uint32_t *block_bytes,
                      struct tv_error *err)
{
    const json_t *block_size = json_object_get(json, "block_size");
    const json_int_t size = json_integer_value(json_object_get(json, "size_bytes"));
    const json_int_t block = block_size ? json_integer_value(block_size) : spec->block_bytes ? (json_int_t)spec->block_bytes : 512;
    if (block < 512 || block > 4096 || (block & (block - 1)))
        return tv_error_set(err, -EINVAL, "%s: volume: \"block_size\" must be 512, 1024, 2048 or 4096", spec->label);
    if (size <= 0 || size % block)
        return tv_error_set(err, -EINVAL, "%s: volume: \"size_bytes\" must be a multiple of %u", spec->label, (unsigned)block);
    *size_bytes = (uint64_t)size;
    *block_bytes = (uint32_t)block;
    return 0;
}

static bool get_seconds(const json_t *json, const char *key, unsigned otherwise, unsigned *seconds)
{
    const json_t *member = json_object_get(json, key);
    *seconds = member ? (unsigned)json_integer_value(member) : otherwise;
    return !member || (json_is_integer(member) && json_integer_value(member) >= 0 && json_integer_value(member) <= 86400);
}

#define NBD_TIMEOUT_S 30u
#define NBD_PORT 10809

static struct volume *build_nbd(struct volume_spec *spec, const json_t *json, struct tv_error *err)
{
    const json_t *read_only = json_object_get(json, "read_only"), *keeps_cache = json_object_get(json, "keeps_cache");
    const json_t *port = json_object_get(json, "port"), *export = json_object_get(json, "export");
    struct nbd_volume_options options = {
        .dir_fd = -1,
        .name = json_string_value(json_object_get(json, "name")),
        .address = json_string_value(json_object_get(json, "address")),
        .port = (uint16_t)(port ? json_integer_value(port) : NBD_PORT),
        .export = export ? json_string_value(export) : "",
        .read_only = read_only ? json_is_true(read_only) : spec->read_only,
        .keeps_cache = json_is_true(keeps_cache),
    };
    if (!options.name == !options.address || !options.export || (read_only && !json_is_boolean(read_only)) ||
        (keeps_cache && !json_is_boolean(keeps_cache)) || !get_seconds(json, "reconnect_s", 0, &options.reconnect_s) ||
        !get_seconds(json, "timeout_s", NBD_TIMEOUT_S, &options.timeout_s) || !options.timeout_s ||
        (port && (json_integer_value(port) < 1 || json_integer_value(port) > 65535)))
        return refuse(spec, err, "nbd",
                      "takes a socket, or host and port; export; read_only and keeps_cache (booleans); reconnect_s, and timeout_s "
                      "(seconds, not 0)");
    if (options.name && (options.dir_fd = take_fd(spec, json, "fd", err)) < 0)
        return NULL;
    struct volume *volume = nbd_volume_create(spec->env, &options, err);
    if (!volume)
        tv_error_prefix(err, "%s: nbd server %s", spec->label, options.name ? options.name : options.address);
    return volume;
}

static struct volume *build_null(struct volume_spec *spec, const json_t *json, struct tv_error *err)
{
    const json_t *read_zeroes = json_object_get(json, "read_zeroes");
    struct null_options options = {.read_only = spec->read_only, .read_zeroes = !read_zeroes || json_is_true(read_zeroes)};
    if (read_zeroes && !json_is_boolean(read_zeroes))
        return refuse(spec, err, "null", "read_zeroes must be true or false");
    int r = take_sizes(spec, json, &options.size_bytes, &options.block_bytes, err);
    return r ? NULL : null_volume_create(spec->env, &options, err);
}

static struct volume *build_ram(struct volume_spec *spec, const json_t *json, struct tv_error *err)
{
    struct ram_options options;
    if (take_sizes(spec, json, &options.size_bytes, &options.block_bytes, err))
        return NULL;
    struct volume *volume = ram_volume_create(spec->env, &options, err);
    if (volume)
        volume->read_only = spec->read_only;
    else
        tv_error_prefix(err, "%s", spec->label);
    return volume;
}

static struct volume *build_child(struct volume_spec *spec, const json_t *json, const char *key, struct tv_error *err)
{
    const json_t *child = json_object_get(json, key);
    if (json_is_object(child))
        return volume_build(spec, child, err);
    tv_error_set(err, -EINVAL, "%s: volume of type '%s': \"%s\" is missing, another volume", spec->label,
                 json_string_value(json_object_get(json, "type")), key);
    return NULL;
}

static struct volume *build_overlay(struct volume_spec *spec, const json_t *json, struct tv_error *err)
{
    struct volume_spec below = *spec;
    below.read_only = true;
    struct volume *data = build_child(spec, json, "data", err);
    struct volume *base = data ? build_child(&below, json, "base", err) : NULL;
    struct volume *overlay = base ? overlay_volume_create(spec->env, data, base, err) : NULL;
    if (overlay)
        return overlay;
    if (base)
        tv_error_prefix(err, "%s: overlay", spec->label);
    volume_destroy(data);
    volume_destroy(base);
    return NULL;
}

// "volumes", an array; how many there are, or 0 with err and none left. `most` of them have room.
static unsigned build_children(struct volume_spec *spec, const json_t *json, struct volume **volumes, unsigned most,
                               struct tv_error *err)
{
    const json_t *array = json_object_get(json, "volumes");
    const size_t n = json_array_size(array);
    unsigned built = 0;
    if (!n || n > most) {
        tv_error_set(err, -EINVAL, "%s: volume of type '%s': \"volumes\" must be an array of 1 to %u volumes", spec->label,
                     json_string_value(json_object_get(json, "type")), most);
        return 0;
    }
    while (built < n && (volumes[built] = volume_build(spec, json_array_get(array, built), err)))
        built++;
    if (built == n)
        return built;
    while (built)
        volume_destroy(volumes[--built]);
    return 0;
}

#define STRIPE_BYTES_USUAL (64u << 10)

static struct volume *build_stripe(struct volume_spec *spec, const json_t *json, struct tv_error *err)
{
    struct volume *volumes[STRIPE_VOLUMES_MAX];
    const json_t *size = json_object_get(json, "stripe_bytes");
    const json_int_t stripe_bytes = size ? json_integer_value(size) : STRIPE_BYTES_USUAL;
    if (stripe_bytes < 0 || stripe_bytes > UINT32_MAX)
        return refuse(spec, err, "stripe", "stripe_bytes must be a number of bytes");
    const unsigned n = build_children(spec, json, volumes, STRIPE_VOLUMES_MAX, err);
    struct volume *stripe = n ? stripe_volume_create(spec->env, volumes, n, (uint32_t)stripe_bytes, err) : NULL;
    if (!n || stripe)
        return stripe;
    for (unsigned i = 0; i < n; i++)
        volume_destroy(volumes[i]);
    tv_error_prefix(err, "%s: stripe", spec->label);
    return NULL;
}

static struct volume *build_mirror(struct volume_spec *spec, const json_t *json, struct tv_error *err)
{
    struct volume *volumes[MIRROR_LEGS_MAX];
    const json_t *degraded = json_object_get(json, "degraded"), *rebuild = json_object_get(json, "rebuild");
    const struct mirror_options options = {
        .degraded = json_is_true(degraded),
        .has_rebuild = rebuild != NULL,
        .rebuild = (unsigned)json_integer_value(rebuild),
        .chores = spec->chores,
    };
    if ((degraded && !json_is_boolean(degraded)) ||
        (rebuild && (!json_is_integer(rebuild) || json_integer_value(rebuild) < 0 ||
                     json_integer_value(rebuild) >= (json_int_t)json_array_size(json_object_get(json, "volumes")))))
        return refuse(spec, err, "mirror", "degraded must be true or false, and rebuild the number of one of the volumes, from 0");
    const unsigned n = build_children(spec, json, volumes, MIRROR_LEGS_MAX, err);
    struct volume *mirror = n ? mirror_volume_create(spec->env, volumes, n, &options, err) : NULL;
    if (!n || mirror)
        return mirror;
    for (unsigned i = 0; i < n; i++)
        volume_destroy(volumes[i]);
    tv_error_prefix(err, "%s: mirror", spec->label);
    return NULL;
}

static bool take_number(const json_t *json, const char *key, uint64_t *to)
{
    const json_t *number = json_object_get(json, key);
    *to = (uint64_t)json_integer_value(number);
    return json_is_integer(number) && json_integer_value(number) >= 0;
}

// As store_open_volume() leaves it: with the key itself.
static struct volume *build_crypt(struct volume_spec *spec, const json_t *json, struct tv_error *err)
{
    struct crypt_options options = {.discards = json_is_true(json_object_get(json, "discards"))};
    uint64_t sector;
    if (!take_number(json, "sector_size", &sector) || !take_number(json, "offset_bytes", &options.offset_bytes) ||
        !take_number(json, "first_iv", &options.first_iv) || !json_is_object(json_object_get(json, "key")))
        return refuse(spec, err, "crypt", "takes over, key (a descriptor), sector_size, offset_bytes and first_iv (numbers)");
    options.sector_bytes = (uint32_t)sector;
    struct volume *over = build_child(spec, json, "over", err);
    const int fd = over ? take_fd(spec, json_object_get(json, "key"), "fd", err) : -1;
    if (fd < 0) {
        volume_destroy(over);
        return NULL;
    }
    const ssize_t n = pread(fd, options.key, sizeof(options.key), 0);
    options.key_bytes = n < 0 ? 0 : (size_t)n;
    close(fd);
    struct volume *crypt = crypt_volume_create(spec->env, over, &options, err);
    explicit_bzero(&options, sizeof(options));
    if (!crypt)
        tv_error_prefix(err, "%s: volume of type 'crypt'", spec->label);
    return crypt;
}

static struct volume *build_fault(struct volume_spec *spec, const json_t *json, struct tv_error *err)
{
    struct fault_rules rules = {0};
    const json_t *log = json_object_get(json, "log");
    if (log && !json_is_object(log))
        return refuse(spec, err, "fault", "\"log\" must be an object: the file, as of a volume of type 'file'");
    if (fault_rules_parse(&rules, json_object_get(json, "rules"), err)) {
        tv_error_prefix(err, "%s: volume of type 'fault'", spec->label);
        return NULL;
    }
    struct volume *over = build_child(spec, json, "over", err);
    const int log_fd = over && log ? take_fd(spec, log, "fd", err) : -1;
    if (over && log && log_fd < 0) {
        volume_destroy(over);
        return NULL;
    }
    struct volume *fault = over ? fault_volume_create(spec->env, over, &rules, log_fd, err) : NULL;
    if (over && !fault)
        tv_error_prefix(err, "%s: volume of type 'fault'", spec->label);
    return fault;
}

static const struct {
    const char *type;
    build_fn *build;
} builders[] = {
    {"crypt", build_crypt}, {"fault", build_fault},     {"file", build_file}, {"mirror", build_mirror}, {"nbd", build_nbd},
    {"null", build_null},   {"overlay", build_overlay}, {"ram", build_ram},   {"stripe", build_stripe},
};

struct volume *volume_build(struct volume_spec *spec, const json_t *json, struct tv_error *err)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    for (size_t i = 0; type && i < sizeof(builders) / sizeof(builders[0]); i++)
        if (!strcmp(type, builders[i].type))
            return builders[i].build(spec, json, err);
    char known[128] = "";
    for (size_t i = 0; i < sizeof(builders) / sizeof(builders[0]); i++) {
        strcat(known, i ? ", " : "");
        strcat(known, builders[i].type);
    }
    tv_error_set(err, -EINVAL, "%s: volume: no type '%s'; there are %s", spec->label, type ? type : "", known);
    return NULL;
}
