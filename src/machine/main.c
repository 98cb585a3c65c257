// trivet-machine: runs one machine, described by a JSON object that is read from a descriptor, until it ends.
//
//   trivet-machine --config FD
//
// Exit status: 0 the guest shut down or was stopped on request, 1 it failed, 2 the configuration is wrong (one line on standard
// error), 3 an error of ours. It opens nothing: files and sockets are handed to it by its supervisor.
#include "base/error.h"
#include "base/log.h"
#include "machine/machine.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// One JSON line for the supervisor, which may not be our parent any more.
static void report(int status_fd, int exit_status, const char *reason)
{
    json_t *line = json_pack("{s:i, s:s}", "exit", exit_status, "reason", reason);
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    if (status_fd >= 0 && text && dprintf(status_fd, "%s\n", text) < 0)
        log_event(LOG_WARN, "machine", "status not written", LOG_STR("error", strerror(errno)));
    free(text);
    json_decref(line);
    if (status_fd >= 0)
        close(status_fd);
}

static int refuse(int status_fd, const struct tv_error *err)
{
    fprintf(stderr, "trivet-machine: %s\n", err->text);
    report(status_fd, 2, err->text);
    return 2;
}

static int run(int config_fd)
{
    struct config config;
    struct tv_error err = {0};
    int rc = config_read(config_fd, &config, &err);
    close(config_fd);
    int status_fd = config.status_fd;
    config.status_fd = -1;
    struct loop *loop = rc == 0 ? loop_create(&err) : NULL;
    if (!loop) {
        config_fini(&config);
        return refuse(status_fd, &err);
    }
    struct machine *m = machine_create(&config, loop, &err);
    if (!m) {
        loop_destroy(loop);
        return refuse(status_fd, &err);
    }
    rc = loop_run(loop);
    if (rc < 0)
        log_event(LOG_ERROR, "machine", "event loop failed", LOG_STR("error", strerror(-rc)));
    int exit_status = rc < 0 ? 3 : m->exit_status;
    char reason[sizeof(m->reason)];
    memcpy(reason, m->reason, sizeof(reason));
    const char *more = m->engine->ops->report ? m->engine->ops->report(m->engine) : NULL;
    if (more)
        fputs(more, stderr);
    if (exit_status != 0)
        fprintf(stderr, "trivet-machine: machine '%s': %s\n", m->config.name, reason);
    machine_destroy(m);
    loop_destroy(loop);
    report(status_fd, exit_status, reason);
    return exit_status;
}

int main(int argc, char **argv)
{
    char *end;
    long fd = argc == 3 && strcmp(argv[1], "--config") == 0 ? strtol(argv[2], &end, 10) : -1;
    if (fd < 0 || fd > INT32_MAX || *end != 0) {
        fputs("usage: trivet-machine --config FD\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); // a log or a saved machine past the limit of file sizes: an error, not the end of the guest
    log_configure(LOG_WARN, false);
    return run((int)fd);
}
