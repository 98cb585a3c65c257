// Who holds the lock on a file: see holder.h.
#include "store/volume/holder.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static bool has_lock(const char *pid, const char *fd)
{
    char path[64], line[256];
    snprintf(path, sizeof(path), "/proc/%.10s/fdinfo/%.10s", pid, fd);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool found = false;
    while (!found && fgets(line, sizeof(line), f))
        found = !strncmp(line, "lock:", 5);
    fclose(f);
    return found;
}

static bool process_holds(const char *pid, const struct stat *file)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%.10s/fd", pid);
    DIR *dir = opendir(path);
    if (!dir)
        return false;
    bool found = false;
    for (struct dirent *entry; !found && (entry = readdir(dir));) {
        struct stat st;
        found = !fstatat(dirfd(dir), entry->d_name, &st, 0) && st.st_ino == file->st_ino && st.st_dev == file->st_dev &&
                has_lock(pid, entry->d_name);
    }
    closedir(dir);
    return found;
}

static void read_command(const char *pid, char *command, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%.10s/comm", pid);
    snprintf(command, size, "?");
    FILE *f = fopen(path, "re");
    if (!f)
        return;
    if (fgets(command, (int)size, f))
        command[strcspn(command, "\n")] = 0;
    fclose(f);
}

bool holder_find(int fd, struct holder *holder)
{
    struct stat file;
    DIR *proc = opendir("/proc");
    if (!proc)
        return false;
    bool found = false;
    if (!fstat(fd, &file)) {
        for (struct dirent *entry; !found && (entry = readdir(proc));) {
            if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !process_holds(entry->d_name, &file))
                continue;
            found = true;
            holder->pid = (pid_t)atoi(entry->d_name);
            read_command(entry->d_name, holder->command, sizeof(holder->command));
        }
    }
    closedir(proc);
    return found;
}
