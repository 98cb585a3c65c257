// The tree as an ext4 disk, by mke2fs -d: see parts.h.
#include "control/image/parts.h"

#include "control/cleanup.h"
#include "control/tool.h"

#include <errno.h>
#include <ftw.h>
#include <string.h>
#include <unistd.h>

#define DISK_SIZE "256M" // sparse: what is not used takes no room

static struct {
    FILE *out;
    size_t skip;
} owners; // nftw() has no argument for its callback

static int give_to_root(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    const char *inside = path + owners.skip;
    if (inside[0])
        fprintf(owners.out, "set_inode_field \"%s\" uid 0\nset_inode_field \"%s\" gid 0\n", inside, inside);
    return 0;
}

// mke2fs keeps the owner of the files it copies, which is the builder.
static int fix_owners(const char *tree, const char *path, struct tv_error *err)
{
    if (geteuid() == 0)
        return 0;
    cleanup_fclose FILE *commands = tmpfile();
    if (!commands)
        return tv_error_set(err, -errno, "temporary file: %s", strerror(errno));
    owners.out = commands;
    owners.skip = strlen(tree);
    nftw(tree, give_to_root, 16, FTW_PHYS);
    if (fflush(commands) != 0)
        return tv_error_set(err, -errno, "temporary file: %s", strerror(errno));
    rewind(commands);
    const char *const argv[] = {"debugfs", "-w", path, NULL};
    return tool_run(&(struct tool){.argv = argv, .package = "e2fsprogs", .stdin_fd = fileno(commands)}, err);
}

int image_disk_write(const char *tree, const char *path, struct tv_error *err)
{
    // Few inodes and an initialized table: nothing is left for a kernel thread of the guest to do at its first start.
    const char *const argv[] = {
        "mke2fs", "-q", "-F", "-t",      "ext4", "-L", "trivet", "-N", "8192", "-E", "root_owner=0:0,lazy_itable_init=0",
        "-d",     tree, path, DISK_SIZE, NULL};
    int rc = tool_run(&(struct tool){.argv = argv, .package = "e2fsprogs"}, err);
    return rc ? rc : fix_owners(tree, path, err);
}
