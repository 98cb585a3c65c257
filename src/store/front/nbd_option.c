// What the options of an NBD client are answered with ("Option types"): see nbd_private.h.
#include "store/front/nbd_private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define PREFERRED_BYTES 4096u // at least ("Size constraints")

// ---- replies ----

static uint8_t *reply_data(struct nbd_conn *c)
{
    return c->output + c->out_len + NBD_OPTION_REPLY_BYTES;
}

static size_t reply_room(const struct nbd_conn *c)
{
    const size_t used = c->out_len + NBD_OPTION_REPLY_BYTES;
    return used < NBD_OUTPUT_BYTES ? NBD_OUTPUT_BYTES - used : 0;
}

// The data are there already. A list that is too long has checked before whether there is room.
static void reply(struct nbd_conn *c, uint32_t option, uint32_t type, uint32_t len_bytes)
{
    assert(reply_room(c) >= len_bytes);
    nbd_put_option_reply(c->output + c->out_len, (struct nbd_option_reply){option, type, len_bytes});
    c->out_len += NBD_OPTION_REPLY_BYTES + len_bytes;
}

void nbd_option_refuse(struct nbd_conn *c, uint32_t option, uint32_t error, const char *why)
{
    const uint32_t len = (uint32_t)strlen(why);
    c->out_len = 0; // of an option that has failed nothing else counts
    memcpy(reply_data(c), why, len);
    reply(c, option, error, len);
}

static struct nbd_string string_of(const char *text)
{
    return (struct nbd_string){text, (uint32_t)strlen(text)};
}

// ---- LIST ----

static void answer_list(struct nbd_conn *c, struct nbd_option option)
{
    if (option.len_bytes) {
        nbd_option_refuse(c, option.type, NBD_REP_ERR_INVALID, "LIST has no data");
        return;
    }
    for (const struct disk *disk = c->server->store->disks; disk; disk = disk->next) {
        if (!nbd_export_of(disk) || !nbd_listener_shows(c->listener, disk))
            continue;
        const int len = nbd_put_server(reply_data(c), reply_room(c), string_of(disk->name));
        if (len < 0 || reply_room(c) < (size_t)len + NBD_OPTION_REPLY_BYTES) {
            nbd_option_refuse(c, option.type, NBD_REP_ERR_TOO_BIG, "more exports than a list can have here");
            return;
        }
        reply(c, option.type, NBD_REP_SERVER, (uint32_t)len);
    }
    reply(c, option.type, NBD_REP_ACK, 0);
}

// ---- INFO, GO, EXPORT_NAME ----

static void set_terms(struct nbd_conn *c, const struct nbd_export *export)
{
    const struct volume *volume = export->front.disk->volume;
    c->terms.size_bytes = volume->size_bytes;
    c->terms.block_bytes = volume->block_bytes;
    c->terms.read_only = volume->read_only;
    c->terms.can_trim = volume->can_discard;
    c->terms.has_context = c->terms.structured && c->context_export == export->id;
}

static struct nbd_export_info export_info(const struct nbd_conn *c)
{
    return (struct nbd_export_info){c->terms.size_bytes, nbd_terms_flags(&c->terms)};
}

static void reply_info(struct nbd_conn *c, uint32_t option, const struct nbd_info *info)
{
    const int len = nbd_put_info(reply_data(c), reply_room(c), info);
    assert(len > 0);
    reply(c, option, NBD_REP_INFO, (uint32_t)len);
}

static void reply_infos(struct nbd_conn *c, uint32_t option, const struct nbd_go *go, const struct nbd_export *export)
{
    const struct volume *volume = export->front.disk->volume;
    const uint32_t preferred = volume->physical_bytes > PREFERRED_BYTES ? volume->physical_bytes : PREFERRED_BYTES;
    reply_info(c, option, &(struct nbd_info){.type = NBD_INFO_EXPORT, .export = export_info(c)});
    reply_info(c, option,
               &(struct nbd_info){.type = NBD_INFO_BLOCK_SIZE, .block = {volume->block_bytes, preferred, NBD_PAYLOAD_DEFAULT}});
    if (nbd_go_wants(go, NBD_INFO_NAME))
        reply_info(c, option, &(struct nbd_info){.type = NBD_INFO_NAME, .string = string_of(export->front.disk->name)});
}

static void answer_go(struct nbd_conn *c, struct nbd_option option, const uint8_t *data)
{
    struct nbd_go go;
    if (nbd_get_go(data, option.len_bytes, &go)) {
        nbd_option_refuse(c, option.type, NBD_REP_ERR_INVALID, "lengths that do not fit together");
        return;
    }
    struct nbd_export *export = nbd_export_find(c->listener, go.name);
    if (!export) {
        nbd_option_refuse(c, option.type, NBD_REP_ERR_UNKNOWN, "no export of this name");
        return;
    }
    set_terms(c, export);
    int r = option.type == NBD_OPT_GO ? nbd_export_join(export, c) : 0;
    if (r) {
        nbd_option_refuse(c, option.type, NBD_REP_ERR_POLICY, r == -EBUSY ? "the export has too many connections" : "no memory");
        return;
    }
    reply_infos(c, option.type, &go, export);
    reply(c, option.type, NBD_REP_ACK, 0);
}

static int answer_export_name(struct nbd_conn *c, struct nbd_option option, const uint8_t *data)
{
    struct nbd_export *export = nbd_export_find(c->listener, (struct nbd_string){(const char *)data, option.len_bytes});
    if (!export)
        return -ECONNABORTED;
    set_terms(c, export);
    if (nbd_export_join(export, c))
        return -ECONNABORTED;
    nbd_put_export(c->output, export_info(c));
    c->out_len = NBD_EXPORT_BYTES;
    if (c->no_zeroes)
        return 0;
    memset(c->output + NBD_EXPORT_BYTES, 0, NBD_EXPORT_ZEROES);
    c->out_len += NBD_EXPORT_ZEROES;
    return 0;
}

// ---- metadata contexts ----

// "The base: metadata namespace": "base:" stands for all of it in a list and for nothing in a choice.
static bool is_context_wanted(struct nbd_meta meta, bool is_list)
{
    struct nbd_string query;
    if (is_list && !meta.n_queries)
        return true;
    while (nbd_meta_next(&meta, &query))
        if (nbd_string_is(query, NBD_CONTEXT_ALLOCATION) || (is_list && nbd_string_is(query, "base:")))
            return true;
    return false;
}

static void answer_meta(struct nbd_conn *c, struct nbd_option option, const uint8_t *data)
{
    struct nbd_meta meta;
    const bool is_list = option.type == NBD_OPT_LIST_META_CONTEXT;
    if (!is_list)
        c->context_export = 0; // also when it fails
    if (!c->terms.structured || nbd_get_meta(data, option.len_bytes, &meta)) {
        nbd_option_refuse(c, option.type, NBD_REP_ERR_INVALID,
                          c->terms.structured ? "lengths that do not fit together" : "structured replies come first");
        return;
    }
    const struct nbd_export *export = nbd_export_find(c->listener, meta.name);
    if (!export) {
        nbd_option_refuse(c, option.type, NBD_REP_ERR_UNKNOWN, "no export of this name");
        return;
    }
    if (is_context_wanted(meta, is_list)) {
        const int len = nbd_put_context(reply_data(c), reply_room(c), 0, string_of(NBD_CONTEXT_ALLOCATION));
        reply(c, option.type, NBD_REP_META_CONTEXT, (uint32_t)len);
        if (!is_list)
            c->context_export = export->id;
    }
    reply(c, option.type, NBD_REP_ACK, 0);
}

// ---- the others ----

static void answer_structured(struct nbd_conn *c, struct nbd_option option)
{
    if (option.len_bytes) {
        nbd_option_refuse(c, option.type, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY has no data");
        return;
    }
    c->terms.structured = true;
    reply(c, option.type, NBD_REP_ACK, 0);
}

static void answer_tls(struct nbd_conn *c, struct nbd_option option)
{
    if (option.len_bytes || c->stream.session) {
        nbd_option_refuse(c, option.type, NBD_REP_ERR_INVALID, option.len_bytes ? "STARTTLS has no data" : "TLS is on already");
        return;
    }
    if (!c->listener->credentials) {
        nbd_option_refuse(c, option.type, NBD_REP_ERR_POLICY, "TLS is not offered here");
        return;
    }
    c->terms.structured = false; // nothing that was negotiated in clear stays
    c->context_export = 0;
    reply(c, option.type, NBD_REP_ACK, 0);
    c->phase = NBD_TLS;
}

static bool is_forbidden_in_clear(const struct nbd_conn *c, uint32_t option)
{
    return c->listener->tls_required && !c->stream.session && option != NBD_OPT_STARTTLS && option != NBD_OPT_ABORT;
}

int nbd_option_answer(struct nbd_conn *c, struct nbd_option option, const uint8_t *data)
{
    if (is_forbidden_in_clear(c, option.type)) {
        if (option.type == NBD_OPT_EXPORT_NAME)
            return -ECONNABORTED;
        nbd_option_refuse(c, option.type, NBD_REP_ERR_TLS_REQD, "TLS comes first here");
        return 0;
    }
    switch (option.type) {
    case NBD_OPT_EXPORT_NAME:
        return answer_export_name(c, option, data);
    case NBD_OPT_ABORT:
        reply(c, option.type, NBD_REP_ACK, 0);
        c->is_ending = true;
        break;
    case NBD_OPT_LIST:
        answer_list(c, option);
        break;
    case NBD_OPT_STARTTLS:
        answer_tls(c, option);
        break;
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        answer_go(c, option, data);
        break;
    case NBD_OPT_STRUCTURED_REPLY:
        answer_structured(c, option);
        break;
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        answer_meta(c, option, data);
        break;
    default:
        nbd_option_refuse(c, option.type, NBD_REP_ERR_UNSUP, "unknown option");
    }
    return 0;
}
