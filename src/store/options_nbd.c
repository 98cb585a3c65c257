// --nbd of trivet-store's command line: see options.h.
#include "store/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum nbd_key { KEY_TLS, KEY_CERTIFICATE, KEY_KEY, KEY_CA, KEY_PSK, KEY_EXPORT };

static int set_tls(struct option_nbd *nbd, const char *value)
{
    nbd->tls_required = !strcmp(value, "required");
    nbd->tls_off = !strcmp(value, "off");
    return nbd->tls_required || nbd->tls_off || !strcmp(value, "on") ? 0 : -EINVAL;
}

static int set_key(struct option_nbd *nbd, enum nbd_key key, const char *value)
{
    if (!value || !*value)
        return -EINVAL;
    switch (key) {
    case KEY_TLS:
        nbd->has_tls = true;
        return set_tls(nbd, value);
    case KEY_CERTIFICATE:
        nbd->certificate = value;
        break;
    case KEY_KEY:
        nbd->key = value;
        break;
    case KEY_CA:
        nbd->ca = value;
        break;
    case KEY_PSK:
        nbd->psk = value;
        break;
    case KEY_EXPORT:
        if (!nbd->exports)
            nbd->exports = json_array();
        json_array_append_new(nbd->exports, json_string(value));
        break;
    }
    return 0;
}

int options_parse_nbd(struct options *options, const char *argument, struct tv_error *err)
{
    static char *const keys[] = {"tls", "certificate", "key", "ca", "psk", "export", NULL};
    if (options->n_nbd == OPTIONS_NBD_MAX)
        return tv_error_set(err, -EINVAL, "more than %d --nbd on one command line", OPTIONS_NBD_MAX);
    char *text = strdup(argument);
    if (!text)
        return tv_error_set(err, -ENOMEM, "out of memory");
    struct option_nbd *nbd = &options->nbd[options->n_nbd++];
    nbd->address = nbd->text = text;
    char *rest = text + strcspn(text, ",");
    if (*rest)
        *rest++ = 0;
    for (char *value; *rest;) {
        char *item = rest;
        int key = getsubopt(&rest, keys, &value);
        if (key < 0)
            return tv_error_set(err, -EINVAL,
                                "--nbd %s: '%s' is not known; there are tls=, certificate=, key=, ca=, psk= and export=", argument,
                                item);
        if (set_key(nbd, (enum nbd_key)key, value))
            return tv_error_set(err, -EINVAL, "--nbd %s: '%s' has no good value (tls: off, on, required)", argument, keys[key]);
    }
    if (nbd->has_tls && !nbd->tls_off && !nbd->certificate && !nbd->psk)
        return tv_error_set(err, -EINVAL, "--nbd %s: TLS wants certificate= and key=, or psk=", argument);
    return 0;
}

void options_free_nbd(struct options *options)
{
    for (unsigned i = 0; i < options->n_nbd; i++) {
        json_decref(options->nbd[i].exports);
        free(options->nbd[i].text);
    }
    options->n_nbd = 0;
}
