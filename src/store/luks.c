// LUKS2 headers: see luks.h.
#include "store/luks.h"

#include <errno.h>
#include <fcntl.h>
#include <libcryptsetup.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NEEDS "libcryptsetup needs the kernel's AF_ALG sockets for this, or as root the device mapper"

static void on_log(int level, const char *message, void *arg)
{
    (void)level, (void)message, (void)arg; // errors are told by their numbers
}

static bool is_modest(const struct crypt_pbkdf_type *pbkdf)
{
    if (!strcmp(pbkdf->type, CRYPT_KDF_PBKDF2))
        return pbkdf->iterations <= LUKS_ITERATIONS_MOST;
    return pbkdf->max_memory_kb <= LUKS_MEMORY_KIB_MOST && pbkdf->iterations <= LUKS_PASSES_MOST;
}

// Every slot may be tried, so each must be modest.
static int check_slots(struct crypt_device *device, const char *name, struct tv_error *err)
{
    for (int slot = 0; slot < crypt_keyslot_max(CRYPT_LUKS2); slot++) {
        struct crypt_pbkdf_type pbkdf;
        const crypt_keyslot_info status = crypt_keyslot_status(device, slot);
        if (status == CRYPT_SLOT_INVALID || status == CRYPT_SLOT_INACTIVE)
            continue;
        if (crypt_keyslot_get_pbkdf(device, slot, &pbkdf) || !is_modest(&pbkdf))
            return tv_error_set(err, -E2BIG,
                                "%s: key slot %d asks for more than %u MiB of memory, %u passes or %u iterations; make another "
                                "one by `cryptsetup luksAddKey`, and remove this",
                                name, slot, LUKS_MEMORY_KIB_MOST >> 10, LUKS_PASSES_MOST, LUKS_ITERATIONS_MOST);
    }
    return 0;
}

static int check_cipher(struct crypt_device *device, const char *name, struct tv_error *err)
{
    const char *cipher = crypt_get_cipher(device), *mode = crypt_get_cipher_mode(device);
    const int sector = crypt_get_sector_size(device);
    struct crypt_params_integrity integrity = {0};
    if (!cipher || !mode || strcmp(cipher, "aes") != 0 || strcmp(mode, "xts-plain64") != 0)
        return tv_error_set(err, -EOPNOTSUPP, "%s: its cipher is %s-%s; only aes-xts-plain64 can be opened", name,
                            cipher ? cipher : "unknown", mode ? mode : "unknown");
    if (!crypt_get_integrity_info(device, &integrity) && integrity.integrity)
        return tv_error_set(err, -EOPNOTSUPP, "%s: has integrity protection, which cannot be opened", name);
    if (sector != 512 && sector != 4096)
        return tv_error_set(err, -EOPNOTSUPP, "%s: its sectors have %d bytes; must be 512 or 4096", name, sector);
    return 0;
}

static int get_key(struct crypt_device *device, const char *name, const char *passphrase, size_t passphrase_bytes,
                   struct luks_key *key, struct tv_error *err)
{
    *key = (struct luks_key){
        .key_bytes = LUKS_KEY_MOST,
        .sector_bytes = (uint32_t)crypt_get_sector_size(device),
        .offset_bytes = crypt_get_data_offset(device) * 512,
        .first_iv = crypt_get_iv_offset(device),
    };
    int r = crypt_volume_key_get(device, CRYPT_ANY_SLOT, (char *)key->key, &key->key_bytes, passphrase, passphrase_bytes);
    if (r == -EPERM || r == -ENOENT)
        return tv_error_set(err, -EPERM, "%s: no key slot takes this passphrase", name);
    if (r < 0)
        return tv_error_set(err, r, "%s: cannot be unlocked: %s; " NEEDS, name, strerror(-r));
    return 0;
}

// By a descriptor of ours: a name may be another file's by now. NULL with err.
static struct crypt_device *device_of(int fd, const char *name, struct tv_error *err)
{
    char path[32];
    struct crypt_device *device = NULL;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    const int r = crypt_init(&device, path);
    if (r < 0) {
        tv_error_set(err, r, "%s: %s", name, strerror(-r));
        return NULL;
    }
    crypt_set_log_callback(device, on_log, NULL);
    return device;
}

int luks_unlock(int fd, const char *name, const char *passphrase, size_t passphrase_bytes, struct luks_key *key,
                struct tv_error *err)
{
    struct crypt_device *device = device_of(fd, name, err);
    if (!device)
        return err ? err->code : -EIO;
    int r = crypt_load(device, CRYPT_LUKS2, NULL);
    if (r < 0)
        tv_error_set(err, r, "%s: has no LUKS2 header that can be read; `cryptsetup luksFormat --type luks2` makes one", name);
    if (!r)
        r = check_cipher(device, name, err);
    if (!r)
        r = check_slots(device, name, err);
    if (!r)
        r = get_key(device, name, passphrase, passphrase_bytes, key, err);
    crypt_free(device);
    return r;
}

int luks_read_passphrase(const char *path, char passphrase[static LUKS_PASSPHRASE_MOST + 1], size_t *n, struct tv_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd < 0 ? -1 : read(fd, passphrase, LUKS_PASSPHRASE_MOST + 1);
    const int r = got < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    if (r)
        return tv_error_set(err, r, "%s: %s", path, strerror(-r));
    if (!got || (size_t)got > LUKS_PASSPHRASE_MOST)
        return tv_error_set(err, -EINVAL, "%s: a passphrase must have 1 to %u bytes", path, LUKS_PASSPHRASE_MOST);
    *n = (size_t)got;
    return 0;
}

#define HEADER_BYTES (16u << 20) // with which libcryptsetup makes them, room for all key slots
#define KEY_BYTES 64u            // two keys of AES-256

static int format(struct crypt_device *device, int data_fd, const char *passphrase, size_t passphrase_bytes)
{
    char data[32];
    snprintf(data, sizeof(data), "/proc/self/fd/%d", data_fd);
    struct crypt_params_luks2 params = {.data_device = data, .sector_size = LUKS_SECTOR_BYTES};
    int r = crypt_format(device, CRYPT_LUKS2, "aes", "xts-plain64", NULL, NULL, KEY_BYTES, &params);
    if (!r)
        r = crypt_keyslot_add_by_volume_key(device, 0, NULL, KEY_BYTES, passphrase, passphrase_bytes);
    return r < 0 ? r : 0;
}

int luks_format(int header_fd, int data_fd, const char *name, const char *passphrase, size_t passphrase_bytes, struct tv_error *err)
{
    int r = -posix_fallocate(header_fd, 0, HEADER_BYTES);
    if (r)
        return tv_error_set(err, r, "%s: a header of %u MiB cannot be made: %s", name, HEADER_BYTES >> 20, strerror(-r));
    struct crypt_device *device = device_of(header_fd, name, err);
    if (!device)
        return err ? err->code : -EIO;
    r = format(device, data_fd, passphrase, passphrase_bytes);
    crypt_free(device);
    if (!r && fsync(header_fd))
        r = -errno;
    return r ? tv_error_set(err, r, "%s: a LUKS2 header cannot be made: %s; " NEEDS, name, strerror(-r)) : 0;
}
