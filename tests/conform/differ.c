// The differential test: makes images, runs each on our engine and on QEMU, and compares what they print.
//
// differ --runtime FILE --shim FILE --engine PROGRAM [--machine PROGRAM] [--seed N] [--images N] [--runs N]
//        [--instructions N] [--audit] [--forever]
//   --engine runs an image given as its last argument; before it stands --audit where that is wanted, else --small or --full, in
//   turn: how it translates. --machine is the trivet command, run as a user would.
//   --instructions is how many at least the blocks must have executed; more images are made until it is reached.
//   Exit status 0: no difference, 1: differences (the first is narrowed down and printed), 2: wrong call, 3: the oracle failed.
#include "generate.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_S 180
#define OUTPUT_MAX (64u << 20)
#define BLOCKS 1000
// Extensions that we have and that QEMU has off are on, those that we do not have are off.
#define CPU "rv64,h=off,sstc=off,Zfh=off,Zfhmin=off,v=off,svinval=on"

struct options {
    const char *runtime, *shim, *engine, *machine;
    uint64_t seed;
    unsigned images, runs;
    unsigned long long instructions;
    bool forever, audit;
};

// A program that runs, and what it has printed so far.
struct child {
    const char *name;
    pid_t pid;
    int fd; // -1 after end of file
    char *text;
    size_t len_bytes, size_bytes;
    int status;
};

// --- running two programs at once

static volatile sig_atomic_t interrupted; // by ^C: end the two, clean up, and stop

static void interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

static bool start(struct child *c, const char *name, char *const argv[])
{
    int fds[2];

    *c = (struct child){.name = name, .fd = -1, .size_bytes = 1 << 20};
    c->text = malloc(c->size_bytes);
    if (!c->text || pipe2(fds, O_CLOEXEC) < 0)
        return false;
    c->pid = fork();
    if (c->pid == 0) {
        int nothing = open("/dev/null", O_RDONLY);
        dup2(nothing, 0);
        dup2(fds[1], 1);
        execvp(argv[0], argv);
        fprintf(stderr, "differ: cannot run %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    close(fds[1]);
    c->fd = fds[0];
    return c->pid > 0;
}

static void take_output(struct child *c)
{
    ssize_t n;

    if (c->size_bytes - c->len_bytes < 65536 && c->size_bytes < OUTPUT_MAX) {
        char *bigger = realloc(c->text, c->size_bytes * 2);
        if (bigger) {
            c->text = bigger;
            c->size_bytes *= 2;
        }
    }
    n = read(c->fd, c->text + c->len_bytes, c->size_bytes - c->len_bytes - 1);
    if (n <= 0) {
        close(c->fd);
        c->fd = -1;
    } else {
        c->len_bytes += (size_t)n;
    }
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void stop(struct child *c)
{
    if (c->fd < 0)
        return;
    if (!interrupted)
        fprintf(stderr, "differ: %s has not ended in %d s\n", c->name, DEADLINE_S);
    kill(c->pid, SIGKILL);
    close(c->fd);
    c->fd = -1;
}

static void finish(struct child c[static 2])
{
    double deadline = now_s() + DEADLINE_S;

    while (c[0].fd >= 0 || c[1].fd >= 0) {
        struct pollfd polled[2] = {{.fd = c[0].fd, .events = POLLIN}, {.fd = c[1].fd, .events = POLLIN}};
        int left_ms = (int)((deadline - now_s()) * 1000);
        if (interrupted || left_ms <= 0 || poll(polled, 2, left_ms) <= 0) {
            stop(&c[0]);
            stop(&c[1]);
            break;
        }
        for (int i = 0; i < 2; i++)
            if (polled[i].revents)
                take_output(&c[i]);
    }
    for (int i = 0; i < 2; i++) {
        waitpid(c[i].pid, &c[i].status, 0);
        c[i].text[c[i].len_bytes] = 0;
    }
}

// --- images

static char directory[] = "/tmp/trivet-conform-XXXXXX";

static bool write_image(const struct options *o, const uint8_t *program, size_t len_bytes, const char *path)
{
    static uint8_t runtime[IMAGE_PROGRAM - IMAGE_RUNTIME];
    FILE *in = fopen(o->runtime, "rb"), *out;
    bool ok;

    if (!in)
        return false;
    memset(runtime, 0, sizeof runtime);
    ok = fread(runtime, 1, sizeof runtime, in) > 0;
    fclose(in);
    out = fopen(path, "wb");
    if (!out)
        return false;
    ok = ok && fwrite(runtime, 1, sizeof runtime, out) == sizeof runtime && fwrite(program, 1, len_bytes, out) == len_bytes;
    return fclose(out) == 0 && ok;
}

struct images {
    char path[2][sizeof directory + 64]; // ours, the oracle's
    uint8_t *program;
};

static bool make_images(const struct options *o, struct generate_options g, struct images *images)
{
    static const char *const names[] = {"ours", "oracle"};

    images->program = NULL;
    for (int i = 0; i < 2; i++) {
        size_t len_bytes;
        free(images->program);
        g.on_oracle = i == 1;
        snprintf(images->path[i], sizeof images->path[i], "%s/%s.bin", directory, names[i]);
        images->program = generate_program(&g, &len_bytes);
        if (!images->program || !write_image(o, images->program, len_bytes, images->path[i])) {
            fprintf(stderr, "differ: cannot make %s from %s: %s\n", images->path[i], o->runtime, strerror(errno));
            return false;
        }
    }
    return true;
}

static void drop_images(struct images *images)
{
    for (int i = 0; i < 2; i++)
        unlink(images->path[i]);
    free(images->program);
}

static bool run_both(const struct options *o, const struct images *images, uint64_t seed, struct child c[static 2])
{
    char *image = (char *)images->path[0], *oracle_image = (char *)images->path[1];
    char *engine[] = {(char *)o->engine, o->audit ? "--audit" : seed % 2 ? "--small" : "--full", image, NULL};
    char *machine[] = {(char *)o->machine, "run", "--engine", "rv64", "--memory", "64M", "--kernel", image, NULL};
    char *oracle[] = {"qemu-system-riscv64",
                      "-M",
                      "virt",
                      "-m",
                      "64M",
                      "-cpu",
                      IMAGE_HAS_RESERVED_BITS(seed) ? CPU : CPU ",svnapot=on,svpbmt=on",
                      "-display",
                      "none",
                      "-monitor",
                      "none",
                      "-serial",
                      "stdio",
                      "-bios",
                      (char *)o->shim,
                      "-kernel",
                      oracle_image,
                      NULL};

    if (!start(&c[0], "the engine", o->machine ? machine : engine) || !start(&c[1], "qemu-system-riscv64", oracle))
        return false;
    finish(c);
    return true;
}

static void drop(struct child c[static 2])
{
    free(c[0].text);
    free(c[1].text);
}

// --- comparing

struct lines {
    const char *at;
};

// The next line that is to be compared, without its end; NULL behind the last. Others begin with '#'.
static const char *next_line(struct lines *l, size_t *len_bytes)
{
    while (*l->at) {
        const char *line = l->at;
        size_t n = strcspn(line, "\n");
        l->at += line[n] ? n + 1 : n;
        if (n && line[n - 1] == '\r')
            n--;
        if (*line == '#')
            continue;
        *len_bytes = n;
        return line;
    }
    *len_bytes = 0;
    return NULL;
}

// The number of the first line that differs, or -1. Both lines are handed out.
static long first_difference(const struct child c[static 2], const char *line[static 2], size_t len_bytes[static 2])
{
    struct lines l[2] = {{c[0].text}, {c[1].text}};

    for (long n = 0;; n++) {
        for (int i = 0; i < 2; i++)
            line[i] = next_line(&l[i], &len_bytes[i]);
        if (!line[0] && !line[1])
            return -1;
        if (!line[0] || !line[1] || len_bytes[0] != len_bytes[1] || memcmp(line[0], line[1], len_bytes[0]) != 0)
            return n;
    }
}

static bool ended(const struct child *c)
{
    return strstr(c->text, "\nend") != NULL;
}

static unsigned long long executed(const struct child *c)
{
    const char *line = strstr(c->text, "executed=");

    return line ? strtoull(line + 9, NULL, 16) : 0;
}

// The last "run" line before the difference tells which block it was.
static void print_run(const struct child *c, const char *until, const uint8_t *program)
{
    const char *run = NULL;

    for (const char *at = c->text; (at = strstr(at, "run number=")) && at < until; at++)
        run = at;
    if (!run)
        return;
    fprintf(stderr, "%.*s\n", (int)strcspn(run, "\n"), run);
    for (const char *trap = run; (trap = strstr(trap, "\ntrap")) && trap < until; trap++)
        fprintf(stderr, "%.*s\n", (int)strcspn(trap + 1, "\n"), trap + 1);
    generate_disassemble(program, (unsigned)strtoull(strstr(run, "block=") + 6, NULL, 16), stderr);
}

// From the first difference to the end of its run.
static void print_differences(const struct child c[static 2], const char *first[static 2])
{
    struct lines l[2] = {{first[0] ? first[0] : ""}, {first[1] ? first[1] : ""}};

    for (unsigned n = 0; n < 20; n++) {
        const char *line[2];
        size_t len_bytes[2];
        for (int i = 0; i < 2; i++)
            line[i] = next_line(&l[i], &len_bytes[i]);
        if (len_bytes[0] == len_bytes[1] && (!line[0] || memcmp(line[0], line[1], len_bytes[0]) == 0))
            continue;
        for (int i = 0; i < 2; i++)
            fprintf(stderr, "%-20s %.*s\n", c[i].name, line[i] ? (int)len_bytes[i] : 9, line[i] ? line[i] : "(nothing)");
        if (line[0] && strncmp(line[0], "checkpoint", 10) == 0)
            break;
    }
}

// Runs the 64 runs again in which the outputs part, printing everything, and shows the first difference.
static void narrow(const struct options *o, struct generate_options g, long checkpoint)
{
    struct images images;
    struct child c[2];
    const char *line[2];
    size_t len_bytes[2];

    g.verbose_first = (unsigned)checkpoint * IMAGE_CHECKPOINT_RUNS;
    g.verbose_last = g.verbose_first + IMAGE_CHECKPOINT_RUNS - 1;
    if (!make_images(o, g, &images) || !run_both(o, &images, g.seed, c))
        return;
    if (first_difference(c, line, len_bytes) >= 0) {
        if (line[1])
            print_run(&c[1], line[1], images.program);
        print_differences(c, line);
    } else {
        fprintf(stderr, "differ: with everything printed there is no difference\n");
    }
    drop(c);
    drop_images(&images);
}

// Exit statuses of the program.
static int compare_image(const struct options *o, uint64_t seed, unsigned long long *instructions)
{
    struct generate_options g = {.seed = seed, .n_blocks = BLOCKS, .n_runs = o->runs, .verbose_first = 1};
    struct images images;
    struct child c[2];
    const char *line[2];
    size_t len_bytes[2];
    long difference;
    int result = 0;

    if (!make_images(o, g, &images) || !run_both(o, &images, g.seed, c))
        return 2;
    difference = interrupted ? -1 : first_difference(c, line, len_bytes);
    *instructions += executed(&c[0]);
    if (!ended(&c[1]) && !interrupted) {
        fprintf(stderr, "differ: qemu-system-riscv64 did not end (seed %llu)\n", (unsigned long long)seed);
        result = 3;
    } else if (difference >= 0) {
        fprintf(stderr, "differ: seed %llu: the outputs differ from checkpoint %ld on\n", (unsigned long long)seed, difference);
        narrow(o, g, difference);
        result = 1;
    }
    drop(c);
    drop_images(&images);
    return result;
}

// --- the program

static int check_rows(void)
{
    unsigned missing = 0, excluded = 0;

    for (unsigned row = 0; row < generate_rows(); row++) {
        excluded += generate_row_excluded(row);
        if (!generate_row_excluded(row) && generate_row_count(row) == 0) {
            fprintf(stderr, "differ: %s was never generated\n", generate_row_name(row));
            missing++;
        }
    }
    printf("%u of %u rows of the instruction table exercised; %u are not in the oracle\n", generate_rows() - missing - excluded,
           generate_rows(), excluded);
    return missing ? 1 : 0;
}

static int compare_all(const struct options *o)
{
    unsigned long long instructions = 0;
    int result = 0;

    for (uint64_t n = 0; (o->forever || n < o->images || instructions < o->instructions) && result == 0 && !interrupted; n++) {
        result = compare_image(o, o->seed + n, &instructions);
        if (interrupted)
            break;
        printf("seed %llu: %s, %llu instructions so far\n", (unsigned long long)(o->seed + n), result ? "differs" : "same",
               instructions);
        fflush(stdout);
    }
    return result || interrupted ? result : check_rows();
}

static bool parse(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {
        {"runtime", required_argument, NULL, 'r'},
        {"shim", required_argument, NULL, 's'},
        {"engine", required_argument, NULL, 'e'},
        {"machine", required_argument, NULL, 'm'},
        {"seed", required_argument, NULL, 'n'},
        {"images", required_argument, NULL, 'i'},
        {"runs", required_argument, NULL, 'u'},
        {"forever", no_argument, NULL, 'f'},
        {"instructions", required_argument, NULL, 'c'},
        {"audit", no_argument, NULL, 'a'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", known, NULL)) >= 0) {
        switch (c) {
        case 'r':
            o->runtime = optarg;
            break;
        case 's':
            o->shim = optarg;
            break;
        case 'e':
            o->engine = optarg;
            break;
        case 'm':
            o->machine = optarg;
            break;
        case 'n':
            o->seed = strtoull(optarg, NULL, 0);
            break;
        case 'i':
            o->images = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'u':
            o->runs = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'c':
            o->instructions = strtoull(optarg, NULL, 0);
            break;
        case 'f':
            o->forever = true;
            break;
        case 'a':
            o->audit = true;
            break;
        default:
            return false;
        }
    }
    return optind == argc && o->runtime && o->shim && (o->engine || o->machine);
}

int main(int argc, char **argv)
{
    struct options o = {.seed = 1, .images = 4, .runs = 20000};
    int result;

    if (!parse(&o, argc, argv)) {
        fprintf(stderr, "usage: differ --runtime FILE --shim FILE --engine PROGRAM | --machine PROGRAM\n"
                        "              [--seed N] [--images N] [--runs N] [--instructions N] [--audit] [--forever]\n");
        return 2;
    }
    if (!mkdtemp(directory)) {
        fprintf(stderr, "differ: %s: %s\n", directory, strerror(errno));
        return 2;
    }
    sigaction(SIGINT, &(struct sigaction){.sa_handler = interrupt}, NULL);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = interrupt}, NULL);
    result = compare_all(&o);
    rmdir(directory);
    return result;
}
