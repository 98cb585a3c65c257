// Encryption at rest: see crypt.h.
#include "store/volume/crypt.h"

#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define BUFFERS 32u
#define SECTOR 512u
#define IV_BYTES 16

// In a request's context, the child's behind it: piece by piece, as much as a buffer takes.
struct crypt_op {
    struct volume_request child;
    struct volume_request *request;
    struct crypt *crypt;
    struct bounce_waiter waiter;
    uint8_t *buffer;
    uint64_t done_bytes;
    struct iovec iov;
};

struct crypt {
    struct volume volume;
    struct volume *over;
    struct bounce_pool bounce;
    EVP_CIPHER_CTX *encryption, *decryption; // with their key
    uint32_t sector_bytes;
    uint64_t offset_bytes, first_iv;
};

// ---- arithmetic ----

// plain64 (dm-crypt): the sector's number, little-endian, and zeroes.
static bool do_sector(EVP_CIPHER_CTX *context, uint8_t *bytes, uint32_t len_bytes, uint64_t number)
{
    uint8_t iv[IV_BYTES] = {0};
    int done;
    const uint64_t little = htole64(number);
    memcpy(iv, &little, sizeof(little));
    return EVP_CipherInit_ex(context, NULL, NULL, NULL, iv, -1) == 1 &&
           EVP_CipherUpdate(context, bytes, &done, bytes, (int)len_bytes) == 1 && (uint32_t)done == len_bytes;
}

static int do_sectors(const struct crypt *crypt, EVP_CIPHER_CTX *context, uint8_t *bytes, uint64_t len_bytes, uint64_t offset_bytes)
{
    for (uint64_t at = 0; at < len_bytes; at += crypt->sector_bytes)
        if (!do_sector(context, bytes + at, crypt->sector_bytes, crypt->first_iv + (offset_bytes + at) / SECTOR))
            return -EIO;
    return 0;
}

// ---- requests ----

static struct crypt_op *op_of(struct volume_request *child)
{
    return (struct crypt_op *)((char *)child - offsetof(struct crypt_op, child));
}

static void finish(struct crypt_op *op, int result)
{
    if (op->buffer)
        bounce_put(&op->crypt->bounce, op->buffer);
    op->buffer = NULL;
    volume_finish_later(op->crypt->volume.env, op->request, result);
}

static void next_piece(struct crypt_op *op);

static void on_piece(struct volume_request *child, int result)
{
    struct crypt_op *op = op_of(child);
    const struct volume_request *request = op->request;
    if (!result && request->op == VOLUME_READ) {
        result = do_sectors(op->crypt, op->crypt->decryption, op->buffer, child->len_bytes, request->offset_bytes + op->done_bytes);
        if (!result)
            volume_data_write(volume_data_from(request->data, op->done_bytes), op->buffer, child->len_bytes);
    }
    op->done_bytes += child->len_bytes;
    if (result || op->done_bytes == request->len_bytes)
        finish(op, result);
    else
        next_piece(op);
}

static int fill_piece(struct crypt_op *op, uint64_t len_bytes)
{
    const struct volume_request *request = op->request;
    if (request->op == VOLUME_READ)
        return 0;
    if (request->op == VOLUME_WRITE)
        volume_data_read(volume_data_from(request->data, op->done_bytes), op->buffer, len_bytes);
    else
        memset(op->buffer, 0, len_bytes);
    return do_sectors(op->crypt, op->crypt->encryption, op->buffer, len_bytes, request->offset_bytes + op->done_bytes);
}

static void next_piece(struct crypt_op *op)
{
    const struct volume_request *request = op->request;
    const uint64_t left = request->len_bytes - op->done_bytes, len = left < BOUNCE_BYTES ? left : BOUNCE_BYTES;
    int r = fill_piece(op, len);
    if (r) {
        finish(op, r);
        return;
    }
    op->iov = (struct iovec){.iov_base = op->buffer, .iov_len = len};
    op->child.op = request->op == VOLUME_READ ? VOLUME_READ : VOLUME_WRITE;
    op->child.offset_bytes = op->crypt->offset_bytes + request->offset_bytes + op->done_bytes;
    op->child.len_bytes = len;
    op->child.data = (struct volume_data){.iov = &op->iov, .n_iov = 1};
    op->child.done = on_piece;
    volume_start(op->crypt->over, &op->child);
}

static void on_buffer(struct bounce_waiter *waiter, uint8_t *buffer)
{
    struct crypt_op *op = (struct crypt_op *)((char *)waiter - offsetof(struct crypt_op, waiter));
    op->buffer = buffer;
    next_piece(op);
}

static void on_handed_on(struct volume_request *child, int result)
{
    struct crypt_op *op = op_of(child);
    op->request->done(op->request, result);
}

static void crypt_start(struct volume *volume, struct volume_request *request)
{
    struct crypt *crypt = (struct crypt *)volume;
    struct crypt_op *op = request->context;
    op->child = *request;
    op->child.context = (char *)op + VOLUME_CONTEXT_SIZE(sizeof(*op));
    op->child.done = on_handed_on;
    op->request = request;
    op->crypt = crypt;
    op->buffer = NULL;
    op->done_bytes = 0;
    op->waiter.got = on_buffer;
    if (request->op == VOLUME_STATUS) { // which sectors are holes below says nothing of what they read as
        request->extent = (struct volume_extent){.len_bytes = request->len_bytes};
        volume_finish_later(volume->env, request, 0);
    } else if (request->op == VOLUME_FLUSH) {
        volume_start(crypt->over, &op->child);
    } else if (request->op == VOLUME_ABSORB) { // ciphertext stays ciphertext
        op->child.offset_bytes += crypt->offset_bytes;
        volume_start(crypt->over, &op->child);
    } else if (request->op == VOLUME_DISCARD) {
        op->child.offset_bytes += crypt->offset_bytes;
        if (volume->can_discard)
            volume_start(crypt->over, &op->child);
        else
            volume_finish_later(volume->env, request, 0);
    } else if (request->op == VOLUME_ZERO && request->only_fast) {
        volume_finish_later(volume->env, request, -EOPNOTSUPP);
    } else {
        uint8_t *buffer = bounce_get(&crypt->bounce, &op->waiter);
        if (buffer)
            on_buffer(&op->waiter, buffer);
    }
}

// ---- life ----

static uint64_t usable_bytes(const struct crypt *crypt)
{
    const uint64_t size = crypt->over->size_bytes;
    return size <= crypt->offset_bytes ? 0 : (size - crypt->offset_bytes) & ~(uint64_t)(crypt->volume.block_bytes - 1);
}

static int crypt_resize(struct volume *volume, uint64_t size_bytes, struct tv_error *err)
{
    struct crypt *crypt = (struct crypt *)volume;
    if (!size_bytes || size_bytes % volume->block_bytes || size_bytes > INT64_MAX - crypt->offset_bytes)
        return tv_error_set(err, -EINVAL, "a size of %llu bytes: must be a multiple of %u", (unsigned long long)size_bytes,
                            volume->block_bytes);
    int r = volume_resize(crypt->over, crypt->offset_bytes + size_bytes, err);
    volume->size_bytes = usable_bytes(crypt);
    return r;
}

static struct volume *crypt_child(const struct volume *volume)
{
    return ((const struct crypt *)volume)->over;
}

static void crypt_set_child(struct volume *volume, struct volume *child)
{
    ((struct crypt *)volume)->over = child;
    volume->context_bytes = VOLUME_CONTEXT_SIZE(sizeof(struct crypt_op)) + VOLUME_CONTEXT_SIZE(child->context_bytes);
}

static void crypt_freeze(struct volume *volume)
{
    volume_freeze(((struct crypt *)volume)->over);
}

static void crypt_wait(struct volume *volume, unsigned timeout_ms)
{
    struct volume *over = ((struct crypt *)volume)->over;
    if (over->ops->wait)
        over->ops->wait(over, timeout_ms);
}

static bool crypt_identify(const struct volume *volume, char name[VOLUME_IDENTITY])
{
    const struct volume *over = ((const struct crypt *)volume)->over;
    return over->ops->identify && over->ops->identify(over, name);
}

static int crypt_set_rules(struct volume *volume, const json_t *rules, struct tv_error *err)
{
    return volume_set_rules(((struct crypt *)volume)->over, rules, err);
}

static void crypt_describe(const struct volume *volume, json_t *object)
{
    const struct crypt *crypt = (const struct crypt *)volume;
    json_object_set_new(object, "cipher", json_string("aes-xts-plain64"));
    json_object_set_new(object, "sector_size", json_integer(crypt->sector_bytes));
    json_object_set_new(object, "over", volume_describe(crypt->over));
}

static void crypt_destroy(struct volume *volume)
{
    struct crypt *crypt = (struct crypt *)volume;
    volume_destroy(crypt->over);
    EVP_CIPHER_CTX_free(crypt->encryption); // wipes its key
    EVP_CIPHER_CTX_free(crypt->decryption);
    if (crypt->bounce.memory)
        explicit_bzero(crypt->bounce.memory, (size_t)BOUNCE_BYTES * crypt->bounce.n);
    bounce_fini(&crypt->bounce);
    free(crypt);
}

static const struct volume_ops crypt_ops = {
    .kind = "crypt",
    .start = crypt_start,
    .child = crypt_child,
    .set_child = crypt_set_child,
    .resize = crypt_resize,
    .freeze = crypt_freeze,
    .wait = crypt_wait,
    .identify = crypt_identify,
    .set_rules = crypt_set_rules,
    .describe = crypt_describe,
    .destroy = crypt_destroy,
};

static EVP_CIPHER_CTX *make_context(const struct crypt_options *options, bool encrypts)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    const EVP_CIPHER *cipher = options->key_bytes == 64 ? EVP_aes_256_xts() : EVP_aes_128_xts();
    if (context && EVP_CipherInit_ex(context, cipher, NULL, options->key, NULL, encrypts) == 1)
        return context;
    EVP_CIPHER_CTX_free(context);
    return NULL;
}

static int check(const struct crypt_options *options, struct tv_error *err)
{
    if (options->key_bytes != 32 && options->key_bytes != 64)
        return tv_error_set(err, -EINVAL, "a key of %zu bytes: must have 32 or 64, two keys of AES", options->key_bytes);
    if (options->sector_bytes != 512 && options->sector_bytes != 4096)
        return tv_error_set(err, -EINVAL, "sectors of %u bytes: must have 512 or 4096", options->sector_bytes);
    if (options->offset_bytes % 4096)
        return tv_error_set(err, -EINVAL, "it begins at byte %llu: must be a multiple of 4096",
                            (unsigned long long)options->offset_bytes);
    return 0;
}

static int set_up(struct crypt *crypt, const struct crypt_options *options, struct tv_error *err)
{
    struct volume *volume = &crypt->volume, *over = crypt->over;
    int r = check(options, err);
    if (r)
        return r;
    *volume = *over;
    volume->ops = &crypt_ops;
    volume->block_bytes = over->block_bytes > options->sector_bytes ? over->block_bytes : options->sector_bytes;
    if (volume->physical_bytes < volume->block_bytes)
        volume->physical_bytes = volume->block_bytes;
    volume->can_discard = over->can_discard && options->discards;
    volume->context_bytes = VOLUME_CONTEXT_SIZE(sizeof(struct crypt_op)) + VOLUME_CONTEXT_SIZE(over->context_bytes);
    crypt->sector_bytes = options->sector_bytes;
    crypt->offset_bytes = options->offset_bytes;
    crypt->first_iv = options->first_iv;
    volume->size_bytes = usable_bytes(crypt);
    if (!volume->size_bytes)
        return tv_error_set(err, -EINVAL, "has %llu bytes, and nothing begins before byte %llu",
                            (unsigned long long)over->size_bytes, (unsigned long long)crypt->offset_bytes);
    crypt->encryption = make_context(options, true);
    crypt->decryption = make_context(options, false);
    if (!crypt->encryption || !crypt->decryption)
        return tv_error_set(err, -EINVAL, "the library refuses this key; both halves of it must not be the same");
    return bounce_init(&crypt->bounce, BUFFERS, err);
}

struct volume *crypt_volume_create(struct volume_env *env, struct volume *over, const struct crypt_options *options,
                                   struct tv_error *err)
{
    struct crypt *crypt = calloc(1, sizeof(*crypt));
    if (!crypt) {
        tv_error_set(err, -ENOMEM, "out of memory");
        volume_destroy(over);
        return NULL;
    }
    crypt->over = over;
    crypt->volume.env = env;
    if (!set_up(crypt, options, err))
        return &crypt->volume;
    crypt_destroy(&crypt->volume);
    return NULL;
}
