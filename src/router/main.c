// trivet-router: the process. Networks and ports come from the command line or by the control socket. Ends on SIGTERM, SIGINT or
// router.quit; what is killed leaves nothing behind but its sockets, which the next one takes over.
#include "base/log.h"
#include "base/loop.h"
#include "base/rpc.h"
#include "router/control_capture.h"
#include "router/eal.h"
#include "router/options.h"
#include "router/router.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct program {
    struct loop *loop;
    struct router *router;
    struct rpc_server *control;
    struct loop_source *signals[2];
    bool has_eal, has_huge;
    const char *control_path; // NULL: no socket was made
};

static void stop(void *arg)
{
    struct program *p = arg;
    loop_stop(p->loop);
}

static void on_signal(void *arg, int signo)
{
    log_event(LOG_INFO, "router", "asked to end", LOG_STR("signal", strsignal(signo)));
    stop(arg);
}

static int check_control(int fd, struct tv_error *err)
{
    int listening = 0;
    socklen_t len = sizeof(listening);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || !listening)
        return tv_error_set(err, -EINVAL, "--control %d: not a listening socket", fd);
    return 0;
}

static int serve_control(struct program *p, const struct options *options, struct tv_error *err)
{
    int fd = options->control_fd;
    if (!options->control_path && fd < 0)
        return 0;
    if (options->control_path) {
        fd = rpc_listen(options->control_path, 0600, err);
        p->control_path = fd < 0 ? NULL : options->control_path;
    } else if (check_control(fd, err)) {
        return err->code;
    }
    if (fd < 0)
        return fd;
    p->control = router_serve_control(p->router, p->loop, fd, stop, p, err);
    return p->control ? 0 : err->code;
}

static int start(struct program *p, const struct options *options, struct tv_error *err)
{
    p->loop = loop_create(err);
    if (!p->loop)
        return err->code;
    // Before other threads are started, so that they inherit the mask.
    p->signals[0] = loop_add_signal(p->loop, SIGTERM, on_signal, p, err);
    p->signals[1] = loop_add_signal(p->loop, SIGINT, on_signal, p, err);
    if (!p->signals[0] || !p->signals[1])
        return err->code;
    signal(SIGPIPE, SIG_IGN);
    int r = eal_start(&options->eal, &p->has_huge, err);
    if (r)
        return r;
    p->has_eal = true;
    p->router = router_create(p->loop, options->eal.n_workers, err);
    if (!p->router)
        return err->code;
    for (unsigned i = 0; i < options->n_items && !r; i++)
        r = options->items[i].is_port ? router_add_port(p->router, options->items[i].params, -1, NULL, err)
                                      : router_add_vn(p->router, options->items[i].params, NULL, err);
    return r ? r : serve_control(p, options, err);
}

static void finish(struct program *p)
{
    router_end_control(p->control);
    router_destroy(p->router);
    if (p->has_eal)
        eal_stop();
    if (p->control_path)
        unlink(p->control_path);
    loop_remove(p->signals[0]);
    loop_remove(p->signals[1]);
    loop_destroy(p->loop);
}

int main(int argc, char **argv)
{
    struct options options;
    struct tv_error err = {0};
    int r = options_parse(&options, argc, argv, &err);
    if (r == OPTIONS_HELP || r == OPTIONS_VERSION) {
        fputs(r == OPTIONS_HELP ? options_help : options_version, stdout);
        return 0;
    }
    if (r) {
        fprintf(stderr, "trivet-router: %s\n", err.text);
        return 2;
    }
    log_configure(LOG_INFO, options.log_json);
    struct program p = {0};
    r = start(&p, &options, &err);
    if (r) {
        fprintf(stderr, "trivet-router: %s\n", err.text);
    } else {
        log_event(LOG_INFO, "router", "serving", LOG_U64("workers", options.eal.n_workers),
                  LOG_STR("memory", p.has_huge ? "hugepages" : "ordinary pages"));
        r = loop_run(p.loop);
    }
    finish(&p);
    options_free(&options);
    return r ? 2 : 0;
}
