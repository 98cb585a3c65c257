// blk_driver: a user-space virtio-blk driver as a program, for the tests and benchmarks of what serves vhost-user-blk.
#include "blk_driver.h"

#include <getopt.h>
#include <linux/virtio_config.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const struct {
    const char *name;
    int (*run)(const struct blk_options *options);
} commands[] = {
    {"verify", blk_verify}, {"bench", blk_bench},   {"load", blk_load},   {"inspect", blk_inspect},
    {"fill", blk_fill},     {"resize", blk_resize}, {"cache", blk_cache},
};

static void usage(void)
{
    fputs("usage: blk_driver verify|bench|load|inspect|fill|resize|cache --socket PATH [--queues N] [--depth N] [--requests N]\n"
          "         [--seed N] [--seconds N] [--size BYTES] [--pattern read|write|randread|randwrite] [--refuse FEATURE-BIT]...\n"
          "         [--packed] [--poll]; verify: [--errors] [--stalls]\n"
          "         load: [--reads PER-MILLE] [--sequential PER-MILLE] [--large BYTES --large-share PER-MILLE]\n"
          "         [--interval-ms N]\n",
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

static bool set_of_load(struct blk_options *o, int option, const char *value)
{
    switch (option) {
    case 'R':
        o->read_permille = (uint32_t)number(value, 1000);
        return true;
    case 'S':
        o->sequential_permille = (uint32_t)number(value, 1000);
        return true;
    case 'L':
        o->large_bytes = (uint32_t)number(value, BLK_DEVICE_DATA);
        return true;
    case 'l':
        o->large_permille = (uint32_t)number(value, 1000);
        return true;
    case 'i':
        o->interval_ms = number(value, 60000);
        return true;
    default:
        return false;
    }
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
        {"packed", no_argument, NULL, 'K'},
        {"reads", required_argument, NULL, 'R'},
        {"sequential", required_argument, NULL, 'S'},
        {"large", required_argument, NULL, 'L'},
        {"large-share", required_argument, NULL, 'l'},
        {"interval-ms", required_argument, NULL, 'i'},
        {"errors", no_argument, NULL, 'e'},
        {"stalls", no_argument, NULL, 'w'},
        {NULL, 0, NULL, 0},
    };
    struct blk_options o = {.n_queues = 1,
                            .depth = BLK_DEVICE_DEPTH,
                            .n_requests = 10000,
                            .seed = 1,
                            .seconds = 5,
                            .size_bytes = 4096,
                            .pattern = "randread",
                            .read_permille = 1000,
                            .interval_ms = 100,
                            .refused = 1ull << VIRTIO_F_RING_PACKED};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case 'e':
            o.may_fail = true;
            break;
        case 'w':
            o.tells_stalls = true;
            break;
        case 'P':
            o.polls = true;
            break;
        case 'K':
            o.refused &= ~(1ull << VIRTIO_F_RING_PACKED);
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
            if (!set_of_load(&o, c, optarg))
                usage();
        }
    }
    if (!o.socket || !o.n_queues || !o.depth || !o.size_bytes || o.size_bytes % 512 || o.large_bytes % 512 || !o.interval_ms ||
        optind + 1 != argc)
        usage();
    log_configure(LOG_ERROR, false);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(commands[i].name, argv[optind]))
            return commands[i].run(&o);
    usage();
}
