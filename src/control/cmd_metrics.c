// trivet metrics: what machines and disks do, for Prometheus: once on standard output, or over HTTP.
#include "control/cleanup.h"
#include "control/command.h"
#include "control/look.h"
#include "control/metrics.h"
#include "control/tool.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

// A connection for each, so that one made while trivetd or the store was down does not last.
static char *make(void *arg, size_t *len, struct tv_error *err)
{
    const char *store = arg;
    cleanup_json json_t *machines = NULL;
    struct look look;
    char *text = NULL;
    int rc = look_open(&look, store, err);
    if (!rc)
        rc = look_read(&look, &machines, err);
    look_close(&look);
    FILE *out = rc ? NULL : open_memstream(&text, len);
    if (!rc && !out)
        rc = tv_error_set(err, -ENOMEM, "no memory");
    if (rc)
        return NULL;
    metrics_print(out, machines);
    if (fclose(out) == 0)
        return text;
    tv_error_set(err, -ENOMEM, "no memory");
    free(text);
    return NULL;
}

static int print_once(const char *store, struct tv_error *err)
{
    size_t len = 0;
    cleanup_free char *text = make((void *)store, &len, err);
    if (!text)
        return err->code;
    if (fwrite(text, 1, len, stdout) != len || fflush(stdout))
        return tv_error_set(err, -errno, "standard output: %s", strerror(errno));
    return 0;
}

int cmd_metrics(int argc, char **argv)
{
    const char *listen = NULL, *store = NULL;
    const struct option_spec options[] = {{"--listen", NULL, &listen}, {"--store", NULL, &store}, {0}};
    int words = command_options(command_find("metrics"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words > 0)
        return command_usage("metrics", "unexpected '%s'", argv[1]);
    struct tv_error err = {0};
    if (listen) {
        tool_catch_signals();
        signal(SIGPIPE, SIG_IGN);
    }
    if (listen ? metrics_serve(listen, make, (void *)store, &err) : print_once(store, &err))
        return command_failed("metrics", false, command_status(&err), &err);
    return EXIT_OK;
}
