// The tree as an initrd, a gzip-compressed cpio archive: see parts.h.
//
// Format "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst). Every file belongs to root and has no time,
// and /dev/console is there before devtmpfs is, whoever builds it.
#include "control/image/parts.h"

#include "control/cleanup.h"
#include "control/files.h"

#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

struct entry {
    const char *name; // without a leading slash
    uint32_t mode;
    const void *data;
    size_t len_bytes;
    uint32_t dev_major, dev_minor;
};

static struct {
    gzFile out;
    size_t skip; // length of the tree's own path
    uint32_t inode;
    struct tv_error *err;
} writer; // nftw() has no argument for its callback

static int put(const void *data, size_t len)
{
    if (len && gzwrite(writer.out, data, (unsigned)len) != (int)len)
        return tv_error_set(writer.err, errno ? -errno : -EIO, "initrd: cannot be written: %s", strerror(errno));
    return 0;
}

static int put_padding(size_t len)
{
    return put("\0\0\0", (4 - len % 4) % 4);
}

static int put_entry(const struct entry *e)
{
    char header[112];
    size_t name_len = strlen(e->name) + 1;
    int len = snprintf(header, sizeof(header), "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", ++writer.inode,
                       e->mode, 0u, 0u, 1u, 0u, (unsigned)e->len_bytes, 0u, 0u, e->dev_major, e->dev_minor, (unsigned)name_len, 0u);
    int rc = put(header, (size_t)len);
    if (!rc)
        rc = put(e->name, name_len);
    if (!rc)
        rc = put_padding((size_t)len + name_len);
    if (!rc)
        rc = put(e->data, e->len_bytes);
    return rc ? rc : put_padding(e->len_bytes);
}

static int put_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)ftw;
    struct entry e = {.name = path + writer.skip, .mode = st->st_mode};
    if (!e.name[0])
        return 0;
    e.name++; // the slash
    cleanup_free char *data = NULL;
    char target[PATH_MAX];
    if (type == FTW_F) {
        int rc = file_read_all(path, 256u << 20, &data, &e.len_bytes, writer.err);
        if (rc)
            return rc;
        e.data = data;
    } else if (type == FTW_SL) {
        ssize_t len = readlink(path, target, sizeof(target));
        if (len < 0)
            return tv_error_set(writer.err, -errno, "%s: %s", path, strerror(errno));
        e.data = target;
        e.len_bytes = (size_t)len;
    }
    return put_entry(&e);
}

int image_initrd_write(const char *tree, const char *path, struct tv_error *err)
{
    gzFile out = gzopen(path, "wb6");
    if (!out)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    writer.out = out;
    writer.skip = strlen(tree);
    writer.inode = 0;
    writer.err = err;
    int rc = nftw(tree, put_file, 16, FTW_PHYS);
    if (rc == -1)
        rc = tv_error_set(err, -errno, "%s: %s", tree, strerror(errno));
    if (!rc)
        rc = put_entry(&(struct entry){.name = "dev/console", .mode = S_IFCHR | 0600, .dev_major = 5, .dev_minor = 1});
    if (!rc)
        rc = put_entry(&(struct entry){.name = "TRAILER!!!"});
    errno = 0; // which zlib leaves as the system sets it
    if (gzclose(out) != Z_OK && !rc)
        rc = tv_error_set(err, errno ? -errno : -EIO, "%s: cannot be written: %s", path, strerror(errno));
    return rc;
}
