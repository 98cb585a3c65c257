// The store's control socket: JSON-RPC methods over store.h. The loop's thread.
#include "store/disk.h"

#include "base/rpc.h"
#include "store/control_add.h"
#include "store/control_nbd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void reply_ok(struct rpc_request *req)
{
    rpc_reply(req, json_object());
}

void control_refuse(struct rpc_request *req, const char *what)
{
    struct tv_error err = {0};
    tv_error_set(&err, -EINVAL, "%s", what);
    rpc_reply_error(req, RPC_BAD_PARAMS, &err);
}

const char *control_need_name(struct rpc_request *req, const json_t *params)
{
    const char *name = json_string_value(json_object_get(params, "name"));
    if (!name)
        control_refuse(req, "\"name\" is missing: the disk's name, a string");
    return name;
}

bool control_get_u64(const json_t *params, const char *key, uint64_t otherwise, uint64_t most, uint64_t *value)
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

static void method_remove(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *name = control_need_name(req, params);
    if (!name)
        return;
    if (control_add_cancel(arg, name))
        reply_ok(req);
    else if (store_remove_disk(arg, name, &err))
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
    const char *name = control_need_name(req, params);
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
    const char *name = control_need_name(req, params);
    if (!name)
        return;
    if (!control_get_u64(params, "size_bytes", 0, INT64_MAX, &size))
        control_refuse(req, "\"size_bytes\" must be a number of bytes");
    else if (store_resize_disk(arg, name, size, &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else
        reply_ok(req);
}

// {"name", "rules": [...]}: in place of those that there are.
static void method_faults(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *name = control_need_name(req, params);
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
    const char *name = control_need_name(req, params);
    const int fd = name && req ? rpc_request_take_fd(req, 0) : -1;
    if (name && fd < 0)
        control_refuse(req, "disk.snapshot wants a descriptor beside it: the file of an overlay");
    else if (name && store_snapshot_disk(arg, name, fd, &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else if (name)
        reply_ok(req);
}

static void method_blank(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *name = control_need_name(req, params);
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
    const char *name = control_need_name(req, params);
    if (!name)
        return;
    int r = 0;
    if (!control_get_u64(params, "offset_bytes", UINT64_MAX, INT64_MAX, &offset))
        control_refuse(req, "\"offset_bytes\" must be a number of bytes");
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
        control_refuse(
            req, "disk.promise takes: name and promises (strings), or promises (an object of such pairs); admitted (boolean)");
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
        {"disk.add", control_add},          {"disk.remove", method_remove},
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
