// blk_driver: a user-space virtio-blk driver as a program, for the tests and benchmarks of what serves vhost-user-blk.
#include "blk_driver.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const struct {
    const char *name;
    int (*run)(const struct blk_options *options);
} commands[] = {
    {"verify", blk_verify}, {"bench", blk_bench},   {"inspect", blk_inspect},
    {"fill", blk_fill},     {"resize", blk_resize}, {"cache", blk_cache},
};

static void usage(void)
{
    fputs("usage: blk_driver verify|bench|inspect|fill|resize|cache --socket PATH [--queues N] [--depth N] [--requests N] [--seed "
          "N]\n"
          "         [--seconds N] [--size BYTES] [--pattern read|write|randread|randwrite] [--refuse FEATURE-BIT]... [--poll]\n",
          stderr);
    exit(2);
}

static uint64_t number(const char *text, uint64_t most)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    if (*end || end == text || n > most)
        usage();
    return n;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"socket", required_argument, NULL, 's'},
        {"queues", required_argument, NULL, 'q'},
        {"depth", required_argument, NULL, 'd'},
        {"requests", required_argument, NULL, 'n'},
        {"seed", required_argument, NULL, 'x'},
        {"seconds", required_argument, NULL, 't'},
        {"size", required_argument, NULL, 'b'},
        {"pattern", required_argument, NULL, 'p'},
        {"refuse", required_argument, NULL, 'r'},
        {"poll", no_argument, NULL, 'P'},
        {NULL, 0, NULL, 0},
    };
    struct blk_options o = {.n_queues = 1,
                            .depth = BLK_DEVICE_DEPTH,
                            .n_requests = 10000,
                            .seed = 1,
                            .seconds = 5,
                            .size_bytes = 4096,
                            .pattern = "randread"};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case 'P':
            o.polls = true;
            break;
        case 's':
            o.socket = optarg;
            break;
        case 'q':
            o.n_queues = (unsigned)number(optarg, BLK_DEVICE_QUEUES);
            break;
        case 'd':
            o.depth = (unsigned)number(optarg, BLK_DEVICE_DEPTH);
            break;
        case 'n':
            o.n_requests = number(optarg, UINT64_MAX);
            break;
        case 'x':
            o.seed = number(optarg, UINT64_MAX);
            break;
        case 't':
            o.seconds = number(optarg, 3600);
            break;
        case 'b':
            o.size_bytes = (uint32_t)number(optarg, BLK_DEVICE_DATA);
            break;
        case 'p':
            o.pattern = optarg;
            break;
        case 'r':
            o.refused |= 1ull << number(optarg, 63);
            break;
        default:
            usage();
        }
    }
    if (!o.socket || !o.n_queues || !o.depth || !o.size_bytes || o.size_bytes % 512 || optind + 1 != argc)
        usage();
    log_configure(LOG_ERROR, false);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(commands[i].name, argv[optind]))
            return commands[i].run(&o);
    usage();
}
