// Any bytes as the file of `trivet up`: refused by one line that begins with the file's name, or machines each of which is a good
// spec, with disks that are theirs alone unless they are only read.
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control/spec/spec.h"
#include "control/spec/up_file.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return setenv("TRIVET_STATE_DIR", "/state", 1);
}

static bool share_a_disk(const struct machine_spec *a, const struct machine_spec *b)
{
    for (unsigned i = 0; i < a->n_disks; i++)
        for (unsigned j = 0; j < b->n_disks; j++)
            if (strcmp(a->disks[i].path, b->disks[j].path) == 0 && !a->disks[i].read_only)
                return true;
    return false;
}

// There are some, and they are said in the one way that there is for them.
static void check_promises(const char *promises, enum promise_resource resource)
{
    char *again = NULL;
    struct tv_error err = {0};
    if (!promises)
        return;
    assert(spec_parse_promises(promises, resource, &again, &err) == 0 && again && strcmp(promises, again) == 0);
    free(again);
}

static void check_machine(const struct up_file *file, size_t index)
{
    struct machine_spec spec, other;
    struct tv_error err = {0};
    assert(spec_decode(json_array_get(file->machines, index), &spec, &err) == 0);
    for (unsigned i = 0; i < spec.n_disks; i++)
        check_promises(spec.disks[i].promises, PROMISE_DISK);
    for (unsigned i = 0; i < spec.n_nics; i++)
        check_promises(spec.nics[i].promises, PROMISE_LINK);
    assert(!spec.kernel || strncmp(spec.kernel, "/", 1) == 0);
    for (size_t i = 0; i < index && i < 8; i++) {
        assert(spec_decode(json_array_get(file->machines, i), &other, &err) == 0);
        assert(strcmp(spec.name, other.name) != 0 && !share_a_disk(&spec, &other));
        spec_free(&other);
    }
    spec_free(&spec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct up_file file;
    struct tv_error err = {0};
    const int rc = up_file_parse("f", "/dir", (const char *)data, size, &file, &err);
    if (rc) {
        assert(rc == err.code && strncmp(err.text, "f:", 2) == 0 && !strchr(err.text, '\n'));
        assert(!file.machines);
        return 0;
    }
    assert(json_array_size(file.machines) >= 1);
    for (size_t i = 0; i < json_array_size(file.machines); i++)
        check_machine(&file, i);
    up_file_free(&file);
    return 0;
}
