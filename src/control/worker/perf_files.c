// See perf_files.h. /tmp is everyone's: files are made by mkostemp() and moved by rename(), neither of which follows a link.
#include "control/worker/perf_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int open_one(int *fd, char path[static 32], const char *pattern, struct tv_error *err)
{
    snprintf(path, 32, "%s", pattern);
    *fd = mkostemp(path, O_CLOEXEC);
    return *fd >= 0 ? 0 : tv_error_set(err, -errno, "%s: cannot be made: %s", pattern, strerror(errno));
}

int perf_files_open(struct perf_files *p, bool map, bool jitdump, struct tv_error *err)
{
    *p = (struct perf_files){.map_fd = -1, .jitdump_fd = -1};
    int rc = map ? open_one(&p->map_fd, p->map_path, "/tmp/perf-XXXXXX", err) : 0;
    if (!rc && jitdump)
        rc = open_one(&p->jitdump_fd, p->jitdump_path, "/tmp/jit-XXXXXX", err);
    if (rc)
        perf_files_close(p, false);
    return rc;
}

static int name_one(int fd, const char *path, const char *before, const char *behind)
{
    char name[48];
    snprintf(name, sizeof(name), "/tmp/%s%d%s", before, (int)getpid(), behind);
    return fd < 0 || rename(path, name) == 0 ? 0 : -errno;
}

int perf_files_name(void *perf_files)
{
    const struct perf_files *p = perf_files;
    int rc = name_one(p->map_fd, p->map_path, "perf-", ".map");
    return rc ? rc : name_one(p->jitdump_fd, p->jitdump_path, "jit-", ".dump");
}

static void close_one(int fd, const char *path, bool started)
{
    if (fd < 0)
        return;
    close(fd);
    if (!started)
        unlink(path);
}

void perf_files_close(struct perf_files *p, bool started)
{
    close_one(p->map_fd, p->map_path, started);
    close_one(p->jitdump_fd, p->jitdump_path, started);
    *p = (struct perf_files){.map_fd = -1, .jitdump_fd = -1};
}
