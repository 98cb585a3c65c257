// trivet metrics: what machines, disks and networks do, for Prometheus: once on standard output, or over HTTP.
#include "control/look/metrics.h"
#include "base/clock.h"
#include "control/cleanup.h"
#include "control/command/command.h"
#include "control/look/look.h"
#include "control/tool.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define KEEP_NS NS_PER_S // however many read, it is made once a second

struct source {
    const char *store; // NULL: trivetd
    char *text;        // NULL: none was made yet
    size_t len;
    uint64_t made_ns;
};

// A connection for each, so that one made while trivetd or the store was down does not last.
static int read_all(const char *store, json_t **machines, json_t **networks, struct tv_error *err)
{
    struct look look;
    int rc = look_open(&look, store, err);
    if (!rc)
        rc = look_read(&look, machines, err);
    if (!rc)
        rc = look_read_networks(&look, networks, err);
    look_close(&look);
    return rc;
}

static int make_anew(struct source *source, struct tv_error *err)
{
    cleanup_json json_t *machines = NULL, *networks = NULL;
    const uint64_t now_ns = clock_now_ns();
    free(source->text);
    source->text = NULL;
    int rc = read_all(source->store, &machines, &networks, err);
    if (rc)
        return rc;
    FILE *out = open_memstream(&source->text, &source->len);
    if (!out)
        return tv_error_set(err, -ENOMEM, "no memory");
    metrics_print(out, machines);
    if (!source->store)
        metrics_print_networks(out, networks);
    source->made_ns = now_ns;
    if (fclose(out) == 0)
        return 0;
    free(source->text);
    source->text = NULL;
    return tv_error_set(err, -ENOMEM, "no memory");
}

static char *make(void *arg, size_t *len, struct tv_error *err)
{
    struct source *source = arg;
    if ((!source->text || clock_now_ns() - source->made_ns >= KEEP_NS) && make_anew(source, err))
        return NULL;
    char *copy = malloc(source->len + 1);
    if (!copy)
        tv_error_set(err, -ENOMEM, "no memory");
    else
        memcpy(copy, source->text, source->len + 1);
    *len = source->len;
    return copy;
}

static int print_once(struct source *source, struct tv_error *err)
{
    int rc = make_anew(source, err);
    if (!rc && (fwrite(source->text, 1, source->len, stdout) != source->len || fflush(stdout)))
        rc = tv_error_set(err, -errno, "standard output: %s", strerror(errno));
    return rc;
}

int cmd_metrics(int argc, char **argv)
{
    const char *listen = NULL;
    struct source source = {0};
    const struct option_spec options[] = {{"--listen", NULL, &listen}, {"--store", NULL, &source.store}, {0}};
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
    int rc = listen ? metrics_serve(listen, make, &source, &err) : print_once(&source, &err);
    free(source.text);
    return rc ? command_failed("metrics", false, command_status(&err), &err) : EXIT_OK;
}
