// disk.add: see control_add.h.
#include "store/control_add.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ADD_FDS_MAX RPC_FDS_MAX

// Looking for the holder of a lock takes a walk through /proc, so ever less often.
#define PAUSE_MIN_NS (1 * NS_PER_MS)
#define PAUSE_TELLS_NS (64 * NS_PER_MS)
#define PAUSE_MAX_NS (128 * NS_PER_MS)

// A request for a disk. Its descriptors stay here, with the locks that were got already, and each try has copies of them.
struct adding {
    struct adding *next;
    struct store *store;
    struct rpc_request *req;
    json_t *params; // that `config` points into
    struct disk_config config;
    unsigned n_fds;
    int fds[ADD_FDS_MAX];
    struct loop_source *timer;
    uint64_t deadline_ns, pause_ns;
};

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

static void discard(struct adding *a)
{
    loop_remove(a->timer);
    for (unsigned i = 0; i < a->n_fds; i++)
        close(a->fds[i]);
    json_decref(a->config.unproven);
    json_decref(a->params);
    free(a);
}

static void answer(struct adding *a, const struct tv_error *err)
{
    if (err->code)
        rpc_reply_error(a->req, RPC_FAILED, err);
    else
        rpc_reply(a->req, json_pack("{s:O}", "unproven", a->config.unproven));
    discard(a);
}

static struct adding **find(struct store *store, const char *name)
{
    struct adding **at = &store->adding;
    while (*at && strcmp((*at)->config.name, name) != 0)
        at = &(*at)->next;
    return at;
}

// One try.
static int try(struct adding *a, struct tv_error *err)
{
    int fds[ADD_FDS_MAX];
    unsigned n = 0;
    while (n < a->n_fds && (fds[n] = fcntl(a->fds[n], F_DUPFD_CLOEXEC, 0)) >= 0)
        n++;
    if (n == a->n_fds)
        return store_add_disk(a->store, &a->config, fds, n, err);
    const int r = -errno;
    while (n)
        close(fds[--n]);
    return tv_error_set(err, r, "disk '%s': its descriptors cannot be copied: %s", a->config.name, strerror(-r));
}

// Is it to be tried again? Then *err says why it waits.
static bool goes_on(struct adding *a, struct tv_error *err)
{
    *err = (struct tv_error){0};
    if (try(a, err) != -EAGAIN)
        return false;
    if (clock_now_ns() >= a->deadline_ns) {
        err->code = -EBUSY;
        return false;
    }
    if (a->pause_ns == PAUSE_TELLS_NS)
        log_event(LOG_INFO, "store", "image still in use by a dead process, waiting", LOG_STR("disk", a->config.name));
    loop_set_timer(a->timer, a->pause_ns, 0);
    a->pause_ns *= a->pause_ns < PAUSE_MAX_NS ? 2 : 1;
    return true;
}

static void on_timer(void *arg)
{
    struct adding *a = arg;
    struct tv_error err;
    if (goes_on(a, &err))
        return;
    *find(a->store, a->config.name) = a->next;
    answer(a, &err);
}

// Takes a.
static void start(struct adding *a)
{
    struct tv_error err = {0};
    if (*find(a->store, a->config.name))
        tv_error_set(&err, -EEXIST, "disk '%s': is being added already, and waits for its image", a->config.name);
    else if (!(a->timer = loop_add_timer(a->store->loop, on_timer, a, &err)))
        err.code = err.code ? err.code : -ENOMEM;
    else if (goes_on(a, &err)) {
        a->next = a->store->adding;
        a->store->adding = a;
        return;
    }
    answer(a, &err);
}

bool control_add_cancel(struct store *store, const char *name)
{
    struct adding **at = find(store, name), *a = *at;
    struct tv_error err = {0};
    if (!a)
        return false;
    *at = a->next;
    tv_error_set(&err, -ECANCELED, "disk '%s': was removed while it waited for its image", name);
    answer(a, &err);
    return true;
}

void control_add_cancel_all(struct store *store)
{
    while (store->adding)
        control_add_cancel(store, store->adding->config.name);
}

// How many descriptors there must be at least, of a disk of one file: its image, and a socket unless it is for NBD alone.
static bool has_fds(struct rpc_request *req, const struct adding *a)
{
    if (a->config.volume || a->n_fds >= (a->config.nbd ? 1 : 2))
        return true;
    control_refuse(req, "disk.add wants two descriptors beside it: the image and a listening socket; with nbd the image is enough");
    return false;
}

static bool decode(struct rpc_request *req, const json_t *params, struct disk_config *config)
{
    static const char *const strings[] = {"serial", "promises"};
    uint64_t queues, block_size, vhost;
    const json_t *read_only = json_object_get(params, "read_only"), *admitted = json_object_get(params, "admitted");
    const json_t *nbd = json_object_get(params, "nbd"), *volume = json_object_get(params, "volume");
    config->name = control_need_name(req, params);
    if (!config->name)
        return false;
    if (!are_strings(params, strings, 2) || (read_only && !json_is_boolean(read_only)) ||
        (admitted && !json_is_boolean(admitted)) || (nbd && !json_is_boolean(nbd)) || (volume && !json_is_object(volume)) ||
        !control_get_u64(params, "queues", 1, STORE_QUEUES_MAX, &queues) ||
        !control_get_u64(params, "block_size", 0, 4096, &block_size) ||
        !control_get_u64(params, "vhost", ADD_FDS_MAX, ADD_FDS_MAX, &vhost)) {
        control_refuse(req,
                       "disk.add takes: name, serial, promises (strings), read_only, admitted, nbd (booleans), queues (1 to 64), "
                       "block_size (512 to 4096), volume (an object), vhost (the number of the descriptor)");
        return false;
    }
    config->serial = json_string_value(json_object_get(params, "serial"));
    config->promises = json_string_value(json_object_get(params, "promises"));
    config->volume = volume;
    config->vhost = vhost == ADD_FDS_MAX ? -1 : (int)vhost;
    config->nbd = json_is_true(nbd);
    config->read_only = json_is_true(read_only);
    config->admitted = json_is_true(admitted);
    config->n_queues = (unsigned)queues;
    config->block_size_bytes = (uint32_t)block_size;
    return true;
}

// Answers {"unproven": [{"name", "promise", "because"}]}. A disk of one file needs no "volume": its image is descriptor 0 then, and its
// vhost-user socket 1.
void control_add(void *arg, struct rpc_request *req, const json_t *params)
{
    struct adding *a = calloc(1, sizeof(*a));
    struct tv_error err = {0};
    if (!a) {
        tv_error_set(&err, -ENOMEM, "out of memory");
        rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    a->store = arg;
    a->req = req;
    a->params = json_incref((json_t *)params);
    a->deadline_ns = clock_now_ns() + CONTROL_ADD_WAIT_MS * NS_PER_MS;
    a->pause_ns = PAUSE_MIN_NS;
    a->n_fds = req ? take_fds(req, a->fds) : 0;
    if (!decode(req, params, &a->config) || !has_fds(req, a)) {
        discard(a);
        return;
    }
    a->config.unproven = json_array();
    if (!a->config.volume && a->config.vhost < 0 && a->n_fds > 1)
        a->config.vhost = 1;
    start(a);
}
