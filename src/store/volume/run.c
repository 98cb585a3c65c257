// One request, waited for: see env.h.
#include "store/volume/env.h"

#include <errno.h>
#include <stdlib.h>

#define WAIT_MS 1000 // for what does not go by the I/O engine

struct run {
    struct volume_request request;
    bool is_done;
    int result;
};

static void on_done(struct volume_request *request, int result)
{
    struct run *run = (struct run *)request;
    run->is_done = true;
    run->result = result;
}

void volume_step(struct volume *volume)
{
    struct io_engine *io = volume->env->io;
    if (volume_env_deliver(volume->env))
        return;
    io_submit(io);
    if (volume->ops->wait)
        volume->ops->wait(volume, io_in_flight(io) ? 0 : WAIT_MS);
    if (io_in_flight(io))
        io_wait(io);
}

int volume_run(struct volume *volume, struct volume_request *request)
{
    struct run run = {.request = *request};
    run.request.context = aligned_alloc(VOLUME_CONTEXT_ALIGN, VOLUME_CONTEXT_SIZE(volume->context_bytes + !volume->context_bytes));
    if (!run.request.context)
        return -ENOMEM;
    run.request.done = on_done;
    volume_start(volume, &run.request);
    while (!run.is_done)
        volume_step(volume);
    free(run.request.context);
    request->extent = run.request.extent;
    return run.result;
}
