// The store's control socket: JSON-RPC methods over store.h. The loop's thread.
#include "store/disk.h"

#include "base/rpc.h"
#include "store/control_nbd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ADD_FDS_MAX RPC_FDS_MAX

static void reply_ok(struct rpc_request *req)
{
    rpc_reply(req, json_object());
}

static void refuse(struct rpc_request *req, const char *what)
{
    struct tv_error err = {0};
    tv_error_set(&err, -EINVAL, "%s", what);
    rpc_reply_error(req, RPC_BAD_PARAMS, &err);
}

// The parameter "name", or NULL when the request has been answered already.
static const char *need_name(struct rpc_request *req, const json_t *params)
{
    const char *name = json_string_value(json_object_get(params, "name"));
    if (!name)
        refuse(req, "\"name\" is missing: the disk's name, a string");
    return name;
}

// An unsigned parameter that may be absent.
static bool get_u64(const json_t *params, const char *key, uint64_t otherwise, uint64_t most, uint64_t *value)
{
    const json_t *member = json_object_get(params, key);
    *value = otherwise;
    if (!member)
        return true;
    if (!json_is_integer(member) || json_integer_value(member) < 0 || (uint64_t)json_integer_value(member) > most)
        return false;
    *value = (uint64_t)json_integer_value(member);
    return true;
}

static bool are_strings(const json_t *params, const char *const *keys, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const json_t *member = json_object_get(params, keys[i]);
        if (member && !json_is_string(member))
            return false;
    }
    return true;
}

static unsigned take_fds(struct rpc_request *req, int *fds)
{
    unsigned n = 0;
    while (n < ADD_FDS_MAX && (fds[n] = rpc_request_take_fd(req, n)) >= 0)
        n++;
    return n;
}

// Answers {"unproven": [{"name", "promise"}]}. A disk of one file needs no "volume": its image is descriptor 0 then, and its
// vhost-user socket 1.
static void method_add(void *arg, struct rpc_request *req, const json_t *params)
{
    static const char *const strings[] = {"serial", "promises"};
    struct store *store = arg;
    uint64_t queues, block_size, vhost;
    const char *name = need_name(req, params);
    if (!name)
        return;
    const json_t *read_only = json_object_get(params, "read_only"), *admitted = json_object_get(params, "admitted");
    const json_t *nbd = json_object_get(params, "nbd");
    const json_t *volume = json_object_get(params, "volume");
    if (!are_strings(params, strings, 2) || (read_only && !json_is_boolean(read_only)) ||
        (admitted && !json_is_boolean(admitted)) || (nbd && !json_is_boolean(nbd)) || (volume && !json_is_object(volume)) ||
        !get_u64(params, "queues", 1, STORE_QUEUES_MAX, &queues) || !get_u64(params, "block_size", 0, 4096, &block_size) ||
        !get_u64(params, "vhost", ADD_FDS_MAX, ADD_FDS_MAX, &vhost)) {
        refuse(req, "disk.add takes: name, serial, promises (strings), read_only, admitted, nbd (booleans), queues (1 to 64), "
                    "block_size (512 to 4096), volume (an object), vhost (the number of the descriptor)");
        return;
    }
    int fds[ADD_FDS_MAX];
    const unsigned n_fds = req ? take_fds(req, fds) : 0;
    const bool is_exported = json_is_true(nbd);
    if (!volume && n_fds < (is_exported ? 1 : 2)) {
        if (n_fds)
            close(fds[0]);
        refuse(req, "disk.add wants two descriptors beside it: the image and a listening socket; with nbd the image is enough");
        return;
    }
    if (!volume && vhost == ADD_FDS_MAX && n_fds > 1)
        vhost = 1;
    struct disk_config config = {
        .name = name,
        .serial = json_string_value(json_object_get(params, "serial")),
        .volume = volume,
        .vhost = vhost == ADD_FDS_MAX ? -1 : (int)vhost,
        .nbd = is_exported,
        .read_only = json_is_true(read_only),
        .n_queues = (unsigned)queues,
        .block_size_bytes = (uint32_t)block_size,
        .promises = json_string_value(json_object_get(params, "promises")),
        .admitted = json_is_true(admitted),
        .unproven = json_array(),
    };
    struct tv_error err = {0};
    if (store_add_disk(store, &config, fds, n_fds, &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else
        rpc_reply(req, json_pack("{s:O}", "unproven", config.unproven));
    json_decref(config.unproven);
}

static void method_remove(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *name = need_name(req, params);
    if (!name)
        return;
    if (store_remove_disk(arg, name, &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else
        reply_ok(req);
}

static void method_list(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    rpc_reply(req, store_list(arg));
}

static void method_stat(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *name = need_name(req, params);
    if (!name)
        return;
    json_t *stat = store_stat(arg, name, json_is_true(json_object_get(params, "histograms")), &err);
    if (stat)
        rpc_reply(req, stat);
    else
        rpc_reply_error(req, RPC_FAILED, &err);
}

static void method_resize(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    uint64_t size;
    const char *name = need_name(req, params);
    if (!name)
        return;
    if (!get_u64(params, "size_bytes", 0, INT64_MAX, &size))
        refuse(req, "\"size_bytes\" must be a number of bytes");
    else if (store_resize_disk(arg, name, size, &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else
        reply_ok(req);
}

// {"name", "rules": [...]}: in place of those that there are.
static void method_faults(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *name = need_name(req, params);
    if (!name)
        return;
    if (store_set_faults(arg, name, json_object_get(params, "rules"), &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else
        reply_ok(req);
}

// With the overlay's file, open for reading and writing.
static void method_snapshot(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *name = need_name(req, params);
    const int fd = name && req ? rpc_request_take_fd(req, 0) : -1;
    if (name && fd < 0)
        refuse(req, "disk.snapshot wants a descriptor beside it: the file of an overlay");
    else if (name && store_snapshot_disk(arg, name, fd, &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else if (name)
        reply_ok(req);
}

static void method_blank(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *name = need_name(req, params);
    if (name && store_blank_disk(arg, name, &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else if (name)
        reply_ok(req);
}

static void absorbed(void *arg, int64_t result, const struct tv_error *err)
{
    if (result < 0)
        rpc_reply_error(arg, RPC_FAILED, err);
    else
        rpc_reply(arg, json_pack("{s:I}", "len_bytes", (json_int_t)result));
}

// {"name", "offset_bytes"}: answers {"len_bytes"}, how far it came. Without "offset_bytes", after all of it: that it is all.
static void method_absorb(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    uint64_t offset;
    const char *name = need_name(req, params);
    if (!name)
        return;
    int r = 0;
    if (!get_u64(params, "offset_bytes", UINT64_MAX, INT64_MAX, &offset))
        refuse(req, "\"offset_bytes\" must be a number of bytes");
    else if (offset == UINT64_MAX && !(r = store_settle_absorbed(arg, name, &err)))
        reply_ok(req);
    else if (offset != UINT64_MAX)
        r = store_absorb(arg, name, offset, absorbed, req, &err);
    if (r)
        rpc_reply_error(req, RPC_FAILED, &err);
}

// {"promises": {name: text}}, or {"name", "promises": text} for one disk. Answers {"unproven": [{"name", "promise"}]}.
static void method_promise(void *arg, struct rpc_request *req, const json_t *params)
{
    const json_t *name = json_object_get(params, "name"), *promises = json_object_get(params, "promises");
    if (name ? !json_is_string(name) || !json_is_string(promises) : !json_is_object(promises)) {
        refuse(req, "disk.promise takes: name and promises (strings), or promises (an object of such pairs); admitted (boolean)");
        return;
    }
    struct tv_error err = {0};
    json_t *wanted = name ? json_pack("{s:O}", json_string_value(name), promises) : json_incref((json_t *)promises);
    json_t *unproven = json_array();
    if (store_promise(arg, wanted, json_is_true(json_object_get(params, "admitted")), unproven, &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else
        rpc_reply(req, json_pack("{s:O}", "unproven", unproven));
    json_decref(unproven);
    json_decref(wanted);
}

static void method_promises(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    rpc_reply(req, store_list_promises(arg));
}

static void method_quit(void *arg, struct rpc_request *req, const json_t *params)
{
    struct store *store = arg;
    (void)params;
    reply_ok(req);
    store->quit(store->quit_arg);
}

struct rpc_server *store_serve_control(struct store *store, struct loop *loop, int listen_fd, void (*quit)(void *), void *arg,
                                       struct tv_error *err)
{
    static const struct rpc_method methods[] = {
        {"disk.add", method_add},           {"disk.remove", method_remove},
        {"disk.list", method_list},         {"disk.stat", method_stat},
        {"disk.resize", method_resize},     {"disk.promise", method_promise},
        {"disk.faults", method_faults},     {"disk.promises", method_promises},
        {"disk.snapshot", method_snapshot}, {"disk.absorb", method_absorb},
        {"disk.blank", method_blank},       {"store.quit", method_quit},
        {"nbd.listen", control_nbd_listen}, {"nbd.close", control_nbd_close},
        {"nbd.list", control_nbd_list},     {NULL, NULL},
    };
    struct rpc_service service = {.methods = methods, .arg = store};
    store->quit = quit;
    store->quit_arg = arg;
    return store->control = rpc_server_create(loop, listen_fd, &service, err);
}
