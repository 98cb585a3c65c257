// Where things are: see paths.h.
#include "control/paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int path_format(char out[static PATH_MAX], struct tv_error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(out, PATH_MAX, format, args);
    va_end(args);
    if (len < 0 || len >= PATH_MAX)
        return tv_error_set(err, -ENAMETOOLONG, "path '%.60s...' is longer than %d bytes", out, PATH_MAX - 1);
    return 0;
}

static int from_environment(char out[static PATH_MAX], const char *variable, struct tv_error *err)
{
    const char *dir = getenv(variable);
    if (!dir || !dir[0])
        return -ENOENT;
    if (dir[0] == '/')
        return path_format(out, err, "%s", dir);
    char cwd[PATH_MAX];
    if (!getcwd(cwd, sizeof(cwd)))
        return tv_error_set(err, -errno, "current directory: %s", strerror(errno));
    return path_format(out, err, "%s/%s", cwd, dir);
}

int path_run_dir(char out[static PATH_MAX], struct tv_error *err)
{
    int rc = from_environment(out, "TRIVET_RUN_DIR", err);
    if (rc != -ENOENT)
        return rc;
    if (geteuid() == 0)
        return path_format(out, err, "/run/trivet");
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (runtime && runtime[0] == '/')
        return path_format(out, err, "%s/trivet", runtime);
    return path_format(out, err, "/tmp/trivet-%u", (unsigned)geteuid());
}

int path_state_dir(char out[static PATH_MAX], struct tv_error *err)
{
    int rc = from_environment(out, "TRIVET_STATE_DIR", err);
    if (rc != -ENOENT)
        return rc;
    if (geteuid() == 0)
        return path_format(out, err, "/var/lib/trivet");
    const char *home = getenv("HOME");
    if (!home || home[0] != '/')
        return tv_error_set(err, -ENOENT, "no place for state: HOME is not set; set TRIVET_STATE_DIR");
    return path_format(out, err, "%s/.local/share/trivet", home);
}

static int search_path(char out[static PATH_MAX], const char *name, struct tv_error *err)
{
    const char *path = getenv("PATH");
    char all[8192]; // a user's own may leave out where daemons are
    snprintf(all, sizeof(all), "%s:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin");
    for (const char *p = all; *p;) {
        size_t len = strcspn(p, ":");
        if (len && path_format(out, err, "%.*s/%s", (int)len, p, name) == 0 && access(out, X_OK) == 0)
            return 0;
        p += len + (p[len] == ':');
    }
    return tv_error_set(err, -ENOENT, "program '%s' is neither beside this one nor in PATH; run `make` or `make install`", name);
}

int path_program(char out[static PATH_MAX], const char *name, struct tv_error *err)
{
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (len > 0) {
        self[len] = 0;
        char *slash = strrchr(self, '/');
        if (slash) {
            *slash = 0;
            if (path_format(out, err, "%s/%s", self, name) == 0 && access(out, X_OK) == 0)
                return 0;
        }
    }
    return search_path(out, name, err);
}
