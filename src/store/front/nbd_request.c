// What an NBD client may ask for: see nbd_request.h.
#include "store/front/nbd_request.h"

// "Command flags": which may be there beside FUA, which is fine with each ("the server MUST accept all commands with this bit
// set").
static uint16_t flags_of(const struct nbd_request *request, const struct nbd_terms *terms)
{
    switch (request->type) {
    case NBD_CMD_READ:
        return terms->structured ? NBD_CMD_FLAG_DF : 0;
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_REQ_ONE;
    default:
        return 0;
    }
}

static uint32_t refuse(uint32_t error, const char *text, const char **why)
{
    *why = text;
    return error;
}

static bool is_change(const struct nbd_request *request)
{
    return request->type == NBD_CMD_WRITE || request->type == NBD_CMD_TRIM || request->type == NBD_CMD_WRITE_ZEROES;
}

static uint32_t check_range(const struct nbd_request *request, const struct nbd_terms *terms, const char **why)
{
    const bool is_write = request->type == NBD_CMD_WRITE || request->type == NBD_CMD_WRITE_ZEROES;
    if (!request->len_bytes)
        return NBD_OK;
    if (request->offset_bytes > terms->size_bytes || request->len_bytes > terms->size_bytes - request->offset_bytes)
        return refuse(is_write ? NBD_ENOSPC : NBD_EINVAL, "beyond the end of the export", why);
    if ((request->offset_bytes | request->len_bytes) % terms->block_bytes)
        return refuse(NBD_EINVAL, "offset or length is not a multiple of the block size", why);
    if ((request->type == NBD_CMD_READ || request->type == NBD_CMD_WRITE) && request->len_bytes > NBD_PAYLOAD_DEFAULT)
        return refuse(NBD_EINVAL, "more than 32 MiB at once", why);
    return NBD_OK;
}

uint32_t nbd_request_check(const struct nbd_request *request, const struct nbd_terms *terms, const char **why)
{
    if (request->type > NBD_CMD_BLOCK_STATUS)
        return refuse(NBD_EINVAL, "unknown command", why);
    if (request->flags & ~(flags_of(request, terms) | NBD_CMD_FLAG_FUA))
        return refuse(NBD_EINVAL, "a flag that this command does not have", why);
    if (is_change(request) && terms->read_only)
        return refuse(NBD_EPERM, "the export is read-only", why);
    if (request->type == NBD_CMD_TRIM && !terms->can_trim)
        return refuse(NBD_EINVAL, "the export cannot be trimmed", why);
    if (request->type == NBD_CMD_BLOCK_STATUS && !terms->has_context)
        return refuse(NBD_EINVAL, "no metadata context was negotiated", why);
    if (request->type == NBD_CMD_BLOCK_STATUS && !request->len_bytes)
        return refuse(NBD_EINVAL, "the status of nothing", why);
    if (request->type == NBD_CMD_FLUSH && (request->offset_bytes || request->len_bytes))
        return refuse(NBD_EINVAL, "a flush has neither offset nor length", why);
    return check_range(request, terms, why);
}

uint16_t nbd_terms_flags(const struct nbd_terms *terms)
{
    uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;
    if (terms->structured)
        flags |= NBD_FLAG_SEND_DF;
    if (terms->read_only)
        return flags | NBD_FLAG_READ_ONLY;
    flags |= NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    if (terms->can_trim)
        flags |= NBD_FLAG_SEND_TRIM;
    return flags;
}
