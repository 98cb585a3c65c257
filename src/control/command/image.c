// trivet image build|show: bootable templates from the distribution's archive.
#include "control/image/image.h"
#include "control/command/command.h"
#include "control/tool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static int show(const char *name, bool json)
{
    struct tv_error err = {0};
    struct image_paths paths;
    json_t *image = NULL;
    int rc = image_find(&paths, name, &err);
    if (!rc)
        rc = image_describe(name, &image, &err);
    if (rc)
        return command_failed("image", json, command_status(&err), &err);
    json_object_set_new(image, "dir", json_string(paths.dir));
    if (json) {
        command_print_json(image);
        return EXIT_OK;
    }
    printf("%s: %s, kernel %s, in %s\n", name, json_string_value(json_object_get(image, "suite")),
           json_string_value(json_object_get(image, "kernel_version")), paths.dir);
    json_decref(image);
    return EXIT_OK;
}

static int build(const struct image_request *request, bool json)
{
    struct tv_error err = {0};
    bool built;
    tool_catch_signals();
    int rc = image_build(request, &built, &err);
    if (rc == -EINTR && tool_interrupted()) {
        command_failed("image", json, EXIT_FAILED, &err);
        return 128 + tool_interrupted();
    }
    if (rc)
        return command_failed("image", json, command_status(&err), &err);
    return show(request->name, json);
}

int cmd_image(int argc, char **argv)
{
    struct image_request request = {0};
    bool json = false;
    const struct option_spec options[] = {{"--suite", NULL, &request.suite},
                                          {"--mirror", NULL, &request.mirror},
                                          {"--rebuild", &request.rebuild, NULL},
                                          {"--quiet|-q", &request.quiet, NULL},
                                          {"--json", &json, NULL},
                                          {0}};
    int words = command_options(command_find("image"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words != 2 || (strcmp(argv[1], "build") != 0 && strcmp(argv[1], "show") != 0))
        return command_usage("image", words < 2 ? "what to do with which image is missing" : "no such thing as '%s'", argv[1]);
    request.name = argv[2];
    return strcmp(argv[1], "build") == 0 ? build(&request, json) : show(argv[2], json);
}
