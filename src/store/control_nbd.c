// nbd.listen, nbd.close, nbd.list: see control_nbd.h. The loop's thread.
#include "store/control_nbd.h"

#include "store/listen.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CERTIFICATE, KEY, CA, PSK, CREDENTIALS };
static const char *const credential_names[CREDENTIALS] = {"certificate", "key", "ca", "psk"};

struct wanted {
    int fds[RPC_FDS_MAX];
    unsigned n_fds;
    char *texts[CREDENTIALS];
};

static void refuse(struct rpc_request *req, const char *what)
{
    struct tv_error err = {0};
    tv_error_set(&err, -EINVAL, "%s", what);
    rpc_reply_error(req, RPC_BAD_PARAMS, &err);
}

static void free_wanted(struct wanted *wanted)
{
    for (unsigned i = 0; i < wanted->n_fds; i++)
        if (wanted->fds[i] >= 0)
            close(wanted->fds[i]);
    for (unsigned i = 0; i < CREDENTIALS; i++) {
        if (wanted->texts[i])
            explicit_bzero(wanted->texts[i], strlen(wanted->texts[i]));
        free(wanted->texts[i]);
    }
}

// A text, or the number of a descriptor beside the request.
static int take_text(struct wanted *wanted, unsigned i, const json_t *value, struct tv_error *err)
{
    const json_int_t n = json_integer_value(value);
    if (!value)
        return 0;
    if (json_is_string(value)) {
        wanted->texts[i] = strdup(json_string_value(value));
        return wanted->texts[i] ? 0 : tv_error_set(err, -ENOMEM, "nbd.listen: out of memory");
    }
    if (!json_is_integer(value) || n < 0 || n >= (json_int_t)wanted->n_fds)
        return tv_error_set(err, -EINVAL, "nbd.listen: \"%s\" must be a text or the number of a descriptor beside the request",
                            credential_names[i]);
    return listen_read_text(wanted->fds[n], credential_names[i], &wanted->texts[i], err);
}

static int listen_as_wanted(struct store *store, struct wanted *wanted, const json_t *params, struct tv_error *err)
{
    const char *tls = json_string_value(json_object_get(params, "tls"));
    const json_t *exports = json_object_get(params, "exports");
    if (exports && !json_is_array(exports))
        return tv_error_set(err, -EINVAL, "nbd.listen: \"exports\" must be an array of names");
    if (tls && strcmp(tls, "off") && strcmp(tls, "on") && strcmp(tls, "required"))
        return tv_error_set(err, -EINVAL, "nbd.listen: tls '%s': must be off, on or required", tls);
    int r = 0;
    for (unsigned i = 0; i < CREDENTIALS && !r; i++)
        r = take_text(wanted, i, json_object_get(params, credential_names[i]), err);
    if (r)
        return r;
    const bool is_off = tls && !strcmp(tls, "off");
    const struct store_nbd_config config = {
        .name = json_string_value(json_object_get(params, "name")),
        .exports = exports,
        .tls_required = tls && !strcmp(tls, "required"),
        .certificate = is_off ? NULL : wanted->texts[CERTIFICATE],
        .key = is_off ? NULL : wanted->texts[KEY],
        .ca = is_off ? NULL : wanted->texts[CA],
        .psk = is_off ? NULL : wanted->texts[PSK],
    };
    if (tls && !strcmp(tls, "on") && !config.certificate && !config.psk)
        return tv_error_set(err, -EINVAL, "nbd.listen: tls 'on' wants certificate and key, or psk");
    const int fd = wanted->fds[0];
    wanted->fds[0] = -1;
    return store_nbd_listen(store, &config, fd, err);
}

// Descriptor 0 is the listening socket.
void control_nbd_listen(void *store, struct rpc_request *req, const json_t *params)
{
    struct wanted wanted = {0};
    struct tv_error err = {0};
    while (req && wanted.n_fds < RPC_FDS_MAX && (wanted.fds[wanted.n_fds] = rpc_request_take_fd(req, wanted.n_fds)) >= 0)
        wanted.n_fds++;
    if (!wanted.n_fds || !json_is_string(json_object_get(params, "name")))
        refuse(req, "nbd.listen wants a listening socket as descriptor 0, and: name (a string), exports (an array of names), tls "
                    "(off, on, required), certificate, key, ca, psk (texts, or numbers of descriptors)");
    else if (listen_as_wanted(store, &wanted, params, &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else
        rpc_reply(req, json_object());
    free_wanted(&wanted);
}

void control_nbd_close(void *store, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *name = json_string_value(json_object_get(params, "name"));
    if (!name)
        refuse(req, "\"name\" is missing: the listener's name, a string");
    else if (store_nbd_close(store, name, &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else
        rpc_reply(req, json_object());
}

void control_nbd_list(void *store, struct rpc_request *req, const json_t *params)
{
    (void)params;
    rpc_reply(req, store_nbd_list(store));
}
