// The command line: see options.h.
#include "store/options.h"

#include "store/sched/dispatch.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

const char options_help[] =
    "usage: trivet-store [--control FD|PATH] [--io auto|threads] [--poll US] [--scheduler N] [--log text|json]\n"
    "                    [--verdicts FD|PATH]\n"
    "                    [--disk KEY=VALUE,... [--volume NAME=JSON]]... [--nbd ADDRESS[,KEY=VALUE]...]...\n"
    "\n"
    "Serves raw files and block devices to virtual machines as vhost-user-blk disks, and to NBD clients.\n"
    "\n"
    "  --disk name=N,path=IMAGE[,socket=PATH][,nbd][,read-only][,serial=S][,queues=N][,block-size=512|4096][,promises=P]\n"
    "                a disk: its image, or a file of the name *.volume that says what keeps its blocks, and the socket on\n"
    "                which it waits for a machine; nbd: clients of --nbd can have it; what it is promised, as in\n"
    "                'reserve: 40MB/s; limit: 300 iops', with a scheduler that holds it\n"
    "  --volume N=V  what keeps the blocks of the disk of this name, in path='s place: an object of JSON;\n"
    "                trivet-store(8) says what there is\n"
    "  --nbd A       where NBD clients are waited for: unix:PATH or tcp:HOST:PORT; with [,tls=on|required]\n"
    "                [,certificate=FILE,key=FILE[,ca=FILE]][,psk=FILE][,export=DISK]...\n"
    "  --control S   a socket for JSON-RPC: the number of a descriptor that listens, or a path where one is made;\n"
    "                disk.add, disk.remove, disk.list, disk.stat, disk.resize, disk.promise, disk.promises,\n"
    "                nbd.listen, nbd.close, nbd.list, store.quit; `trivet top --store PATH` shows what its disks do\n"
    "  --io threads  do without io_uring\n"
    "  --poll US     for how many microseconds a guest that had something to do is looked at, before it has to kick; 0\n"
    "  --scheduler N which request goes to the device next: fifo (the default), sfq, drr, mclock, oios\n"
    "  --verdicts F  a file in which the verdicts on promises outlive the store: a path, or the number of a descriptor\n"
    "  --log json    one JSON object a line\n"
    "\n"
    "QEMU takes such a disk by: -object memory-backend-memfd,id=m,size=1G,share=on -machine memory-backend=m\n"
    "  -chardev socket,id=c,path=PATH,reconnect=1 -device vhost-user-blk-pci,chardev=c\n"
    "\n"
    "Ends on SIGTERM with status 0, all requests done; with status 2 when it was called wrong.\n";
const char options_version[] = "trivet-store " TRIVET_VERSION "\n";

static int parse_number(const char *text, unsigned least, unsigned most, unsigned *value)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (errno || end == text || *end || *text == '-' || n < least || n > most)
        return -EINVAL;
    *value = (unsigned)n;
    return 0;
}

enum key { KEY_NAME, KEY_PATH, KEY_SOCKET, KEY_SERIAL, KEY_READ_ONLY, KEY_QUEUES, KEY_BLOCK_SIZE, KEY_PROMISES, KEY_NBD };

static int set_key(struct option_disk *disk, enum key key, const char *value)
{
    unsigned n = 0;
    int r = 0;
    if ((key == KEY_READ_ONLY || key == KEY_NBD) != !value)
        return -EINVAL;
    switch (key) {
    case KEY_NAME:
        disk->disk.name = value;
        break;
    case KEY_PATH:
        disk->path = value;
        break;
    case KEY_SOCKET:
        disk->socket = value;
        break;
    case KEY_SERIAL:
        disk->disk.serial = value;
        break;
    case KEY_READ_ONLY:
        disk->disk.read_only = true;
        break;
    case KEY_QUEUES:
        r = parse_number(value, 1, STORE_QUEUES_MAX, &n);
        disk->disk.n_queues = n;
        break;
    case KEY_BLOCK_SIZE:
        r = parse_number(value, 512, 4096, &n);
        disk->disk.block_size_bytes = n;
        break;
    case KEY_PROMISES:
        disk->disk.promises = value;
        break;
    case KEY_NBD:
        disk->disk.nbd = true;
        break;
    }
    return r;
}

static int parse_disk(struct options *options, const char *argument, struct tv_error *err)
{
    static char *const keys[] = {"name", "path", "socket", "serial", "read-only", "queues", "block-size", "promises", "nbd", NULL};
    if (options->n_disks == OPTIONS_DISKS_MAX)
        return tv_error_set(err, -EINVAL, "more than %d disks on one command line; start a second store", OPTIONS_DISKS_MAX);
    char *text = strdup(argument);
    if (!text)
        return tv_error_set(err, -ENOMEM, "out of memory");
    struct option_disk *disk = &options->disks[options->n_disks];
    options->text[options->n_disks++] = text;
    disk->disk.n_queues = 1;
    for (char *rest = text, *value; *rest;) {
        char *item = rest;
        int key = getsubopt(&rest, keys, &value);
        if (key < 0)
            return tv_error_set(
                err, -EINVAL,
                "--disk %s: '%s' is not known; there are name=, path=, socket=, serial=, queues=, block-size=, promises=, "
                "nbd and read-only",
                argument, item);
        if (set_key(disk, (enum key)key, value))
            return tv_error_set(err, -EINVAL, "--disk %s: '%s' has no good value (queues: 1 to %d; block-size: 512 to 4096)",
                                argument, keys[key], STORE_QUEUES_MAX);
    }
    if (!disk->disk.name || (!disk->socket && !disk->disk.nbd))
        return tv_error_set(err, -EINVAL, "--disk %s: name=, path= and socket= are all needed, but for nbd in socket='s place",
                            argument);
    return 0;
}

static int parse_volume(struct options *options, const char *argument, struct tv_error *err)
{
    const char *equals = strchr(argument, '=');
    struct option_disk *disk = options->disks, *end = options->disks + options->n_disks;
    while (equals && disk < end &&
           (strncmp(disk->disk.name, argument, (size_t)(equals - argument)) || disk->disk.name[equals - argument]))
        disk++;
    if (!equals || disk == end || disk->path || disk->volume)
        return tv_error_set(err, -EINVAL,
                            "--volume %s: must be NAME=JSON, behind a --disk of this name that has no path=", argument);
    json_error_t where;
    disk->volume = json_loads(equals + 1, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(disk->volume))
        return tv_error_set(err, -EINVAL, "--volume %s: must be an object of JSON%s%s", argument, disk->volume ? "" : ": ",
                            disk->volume ? "" : where.text);
    return 0;
}

static int check_disks(const struct options *options, struct tv_error *err)
{
    for (unsigned i = 0; i < options->n_disks; i++)
        if (!options->disks[i].path && !options->disks[i].volume)
            return tv_error_set(err, -EINVAL, "--disk name=%s: path= is missing, or --volume behind it",
                                options->disks[i].disk.name);
    return 0;
}

// The number of a descriptor, or a path with a slash in it.
static int parse_fd_or_path(const char *option, const char *argument, int *fd, const char **path, struct tv_error *err)
{
    unsigned n;
    if (strchr(argument, '/')) {
        *path = argument;
        return 0;
    }
    if (parse_number(argument, 0, 1u << 20, &n))
        return tv_error_set(err, -EINVAL, "%s %s: must be the number of an open descriptor, or a path with a slash in it", option,
                            argument);
    *fd = (int)n;
    return 0;
}

static int parse_one(struct options *options, int option, const char *argument, struct tv_error *err)
{
    switch (option) {
    case 'd':
        return parse_disk(options, argument, err);
    case 'V':
        return parse_volume(options, argument, err);
    case 'n':
        return options_parse_nbd(options, argument, err);
    case 'c':
        return parse_fd_or_path("--control", argument, &options->control_fd, &options->control_path, err);
    case 'i':
        options->no_uring = !strcmp(argument, "threads");
        if (!options->no_uring && strcmp(argument, "auto"))
            return tv_error_set(err, -EINVAL, "--io %s: must be auto or threads", argument);
        return 0;
    case 'f':
        return parse_fd_or_path("--verdicts", argument, &options->verdicts_fd, &options->verdicts_path, err);
    case 'l':
        options->log_json = !strcmp(argument, "json");
        if (!options->log_json && strcmp(argument, "text"))
            return tv_error_set(err, -EINVAL, "--log %s: must be text or json", argument);
        return 0;
    case 'p':
        if (parse_number(argument, 0, 1000000, &options->poll_us))
            return tv_error_set(err, -EINVAL, "--poll %s: must be microseconds, 0 to 1000000", argument);
        return 0;
    case 's':
        options->scheduler = argument;
        if (!dispatch_parse(argument, &(unsigned){STORE_WINDOW}))
            return tv_error_set(
                err, -EINVAL,
                "--scheduler %s: there is none of this name; there are %s, and all but oios with a depth of 1 to %d "
                "behind it, as sfq:32",
                argument, dispatch_names, STORE_WINDOW);
        return 0;
    case 'h':
        return OPTIONS_HELP;
    case 'v':
        return OPTIONS_VERSION;
    default:
        return tv_error_set(err, -EINVAL, "called wrong; trivet-store --help tells how");
    }
}

int options_parse(struct options *options, int argc, char **argv, struct tv_error *err)
{
    static const struct option longs[] = {
        {"disk", required_argument, NULL, 'd'},      {"volume", required_argument, NULL, 'V'},
        {"control", required_argument, NULL, 'c'},   {"io", required_argument, NULL, 'i'},
        {"nbd", required_argument, NULL, 'n'},       {"poll", required_argument, NULL, 'p'},
        {"scheduler", required_argument, NULL, 's'}, {"log", required_argument, NULL, 'l'},
        {"verdicts", required_argument, NULL, 'f'},  {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},         {NULL, 0, NULL, 0},
    };
    *options = (struct options){.control_fd = -1, .verdicts_fd = -1};
    opterr = 0;
    int r = 0, option;
    while (!r && (option = getopt_long(argc, argv, "", longs, NULL)) != -1)
        r = option == '?'
                ? tv_error_set(err, -EINVAL, "%s: not known, or its value is missing; trivet-store --help tells what there is",
                               argv[optind - 1])
                : parse_one(options, option, optarg, err);
    if (!r && optind < argc)
        r = tv_error_set(err, -EINVAL, "%s: not an option; a disk is given by --disk name=N,path=IMAGE,socket=PATH", argv[optind]);
    if (!r && !options->n_disks && options->control_fd < 0 && !options->control_path)
        r = tv_error_set(err, -EINVAL, "nothing to serve; give --disk name=N,path=IMAGE,socket=PATH or --control FD|PATH");
    if (!r)
        r = check_disks(options, err);
    if (r < 0)
        options_free(options);
    return r;
}

void options_free(struct options *options)
{
    for (unsigned i = 0; i < options->n_disks; i++) {
        free(options->text[i]);
        json_decref(options->disks[i].volume);
    }
    options->n_disks = 0;
    options_free_nbd(options);
}
