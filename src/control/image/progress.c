// What a build says while it goes on: see parts.h.
#include "control/image/parts.h"

#include <stdio.h>
#include <unistd.h>

static void print(struct image_job *job, bool transient, const char *format, va_list args)
{
    if (job->quiet || (transient && !isatty(STDERR_FILENO)))
        return;
    if (job->progress_open)
        fputs("\r\033[K", stderr);
    fprintf(stderr, "image %s: ", job->name);
    vfprintf(stderr, format, args);
    if (!transient)
        fputc('\n', stderr);
    fflush(stderr);
    job->progress_open = transient;
}

void image_step(struct image_job *job, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print(job, false, format, args);
    va_end(args);
}

void image_transient(struct image_job *job, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print(job, true, format, args);
    va_end(args);
}
