// trivet: the command. Finds the subcommand and runs it.
#include "control/command/command.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

const struct command commands[] = {
    {"image", cmd_image, "build|show NAME [--suite S] [--mirror URL] [--rebuild] [--quiet] [--json]",
     "Make a bootable template from the distribution's archive, verified by its signatures."},
    {"run", cmd_run,
     "--kernel FILE|--image NAME [--initrd FILE] [--append WORDS] [--memory 512M] [--hugepages] [--cpus N] "
     "[--disk PATH[,read-only][,serial=S][,size=N][,queues=N]]... [--net SOCKET[,mac=M][,mtu=N][,queues=N]]... [--name NAME] "
     "[--engine kvm|rv64|auto] [--cpu LEVEL] [--on-reboot reset|exit] "
     "[--restore FILE] [--perf-map] [--jitdump] [--audit] [--audit-instructions N]",
     "Run one machine in the foreground, its console on the terminal (^A x leaves)."},
    {"up", cmd_up, "FILE [--json]", "Bring up the machines of a YAML file; what is up and unchanged stays untouched."},
    {"down", cmd_down, "[FILE] [--timeout SECONDS] [--json]", "Stop and remove the machines of a file, or all."},
    {"config", cmd_config, "check FILE [--json]", "Check a YAML file and say what is wrong, by line."},
    {"ps", cmd_ps, "[--engines] [--json]", "List the machines, or on which engines they run and why."},
    {"console", cmd_console, "NAME", "Join the terminal to a machine's console (^A x leaves)."},
    {"logs", cmd_logs, "[--follow] NAME [--json]", "Print what a machine's console has shown."},
    {"start", cmd_start, "NAME... | --all [--json]", "Start machines."},
    {"stop", cmd_stop, "NAME... | --all [--timeout SECONDS] [--json]", "Ask guests to shut down; end those that do not in time."},
    {"kill", cmd_kill, "NAME... | --all [--json]", "End machines at once, as by pulling the plug."},
    {"pause", cmd_pause, "NAME... [--json]", "Let machines stand still."},
    {"resume", cmd_resume, "NAME... [--json]", "Let paused machines go on."},
    {"save", cmd_save, "NAME FILE [--quit] [--json]", "Write a machine's whole state to a file."},
    {"restore", cmd_restore, "NAME FILE [--json]", "Start a machine from a saved state."},
    {"top", cmd_top, "[--once] [--interval SECONDS] [--count N] [--store SOCKET] [--json]",
     "Show what each machine and each disk does, live."},
    {"metrics", cmd_metrics, "[--listen HOST:PORT] [--store SOCKET]",
     "Print what machines, disks and networks do for Prometheus, or serve it over HTTP."},
    {"disk", cmd_disk,
     "create DISK --size SIZE [--mirror FILE,... | --encrypt --key-file FILE] | create DISK --over TEMPLATE [--size SIZE] | clone "
     "DISK NEW | "
     "resize DISK SIZE | snapshot DISK NAME | snapshots DISK | revert DISK NAME | drop DISK NAME | import FILE NEW [--format F] | "
     "export DISK FILE [--format F] | "
     "promise DISK PROMISES | stat DISK [--quiet] [--json]",
     "Make disks, copy, grow and convert them, keep what they were, and promise them something else while they run."},
    {"promises", cmd_promises, "[--json]", "Show what disks are promised, whether it is kept, and who has what is lacking."},
    {"net", cmd_net,
     "create NETWORK [--type ethernet|ip] [--prefix P,...] [--gateway A,...] [--tenant T] [--nat] [--dhcp] [--dns] "
     "[--forward tcp:PORT:ADDRESS:PORT,...] [--limit BIT-RATE] [--link vni=N[,hosts=A+B]] [--option KEY=VALUE,...] | delete "
     "NETWORK | "
     "list | show NETWORK | stats NETWORK | routes NETWORK | neighbours NETWORK | "
     "capture NETWORK [--port PORT] [--output FILE] [--count N] [--seconds S] [--snap BYTES] | "
     "trace NETWORK --from PORT --to ADDRESS [--source A] [--mac M] [--ttl N] [--size N] | trace NETWORK --from PORT --frame HEX | "
     "graph [NETWORK] [--output FILE] | attach NETWORK PORT KIND [KEY=VALUE]... | "
     "detach NETWORK PORT | route NETWORK add PREFIX via=A[,A]|port=PORT|type=blackhole|unreachable | route NETWORK remove PREFIX "
     "| "
     "host address=A underlay=NETWORK [listen=A:PORT certificate=F key=F ca=F] | peer add NAME address=A [connect=A:PORT] | "
     "peer remove NAME | peers [--json]",
     "Make virtual networks, and look into them."},
    {"machine", cmd_machine, "stats NAME [--json]", "Show what a machine's engine has counted, by vcpu."},
    {0},
};

static int help(void)
{
    puts("usage: trivet COMMAND ...\n");
    for (const struct command *c = commands; c->name; c++)
        printf("  %-8s %s\n", c->name, c->what);
    puts("\n`trivet COMMAND --help` tells the words of a command; the manual is trivet(1).");
    return EXIT_OK;
}

int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); // a file past the limit of their size is an error like others
    if (argc < 2)
        return command_usage("", "no command given; `trivet --help` lists them");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return help();
    if (strcmp(argv[1], "--version") == 0) {
        puts("trivet " TRIVET_VERSION);
        return EXIT_OK;
    }
    const struct command *command = command_find(argv[1]);
    if (!command)
        return command_usage("", "no command '%s'; `trivet --help` lists them", argv[1]);
    return command->run(argc - 1, argv + 1);
}
