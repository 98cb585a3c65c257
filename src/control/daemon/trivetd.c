// trivetd: the supervisor. Starts machines, the store and the router, looks after them, and survives being killed: see daemon.h.
#include "base/log.h"
#include "control/daemon/daemon.h"
#include "control/paths.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: trivetd [--exit-when-empty] [--log-json]\n"
    "  --exit-when-empty  end when the last machine and the last network have been removed\n"
    "  --log-json         one JSON object a line on standard error\n"
    "It leaves the machines and networks running when it ends. Its folders are set by TRIVET_RUN_DIR and TRIVET_STATE_DIR.\n";

static void on_signal(void *arg, int signo)
{
    struct daemon *d = arg;
    log_event(LOG_INFO, "trivetd", "ends; the machines go on", LOG_I64("signal", signo));
    loop_stop(d->loop);
}

static int run(struct daemon *d)
{
    struct tv_error err = {0};
    int rc = path_run_dir(d->run_dir, &err);
    if (!rc)
        rc = path_state_dir(d->state_dir, &err);
    if (!rc)
        rc = daemon_init(d, &err);
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < 3 && !rc; i++)
        if (!loop_add_signal(d->loop, numbers[i], on_signal, d, &err))
            rc = err.code;
    if (rc) {
        fprintf(stderr, "trivetd: %s\n", err.text);
        daemon_fini(d);
        return 2;
    }
    log_event(LOG_INFO, "trivetd", "ready", LOG_STR("run_dir", d->run_dir), LOG_STR("state_dir", d->state_dir));
    rc = loop_run(d->loop);
    daemon_fini(d);
    return rc < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    static struct daemon d = {.store_pidfd = -1, .router_pidfd = -1, .lock_fd = -1};
    bool json = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--exit-when-empty") == 0) {
            d.exit_when_empty = true;
        } else if (strcmp(argv[i], "--log-json") == 0) {
            json = true;
        } else if (strcmp(argv[i], "--version") == 0) {
            puts("trivetd " TRIVET_VERSION);
            return 0;
        } else {
            bool help = strcmp(argv[i], "--help") == 0;
            if (!help)
                fprintf(stderr, "trivetd: unknown option '%s'; `trivetd --help` lists them\n", argv[i]);
            else
                fputs(usage, stdout);
            return help ? 0 : 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); // a file past the limit of their size is an error like others
    log_configure(LOG_INFO, json);
    return run(&d);
}
