// trivet: the command. Finds the subcommand and runs it.
#include "control/command.h"

#include <stdio.h>
#include <string.h>

const struct command commands[] = {
    {"image", cmd_image, "build|show NAME [--suite S] [--mirror URL] [--rebuild] [--quiet] [--json]",
     "Make a bootable template from the distribution's archive, verified by its signatures."},
    {"run", cmd_run,
     "--kernel FILE|--image NAME [--initrd FILE] [--append WORDS] [--memory 512M] [--cpus N] "
     "[--disk PATH[,read-only][,serial=S][,size=N][,queues=N]]... [--name NAME] [--engine rv64|auto] [--on-reboot reset|exit] "
     "[--restore FILE]",
     "Run one machine in the foreground, its console on the terminal (^A x leaves)."},
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
