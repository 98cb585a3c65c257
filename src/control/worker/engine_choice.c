// Choosing an engine: see engine_choice.h.
#include "control/worker/engine_choice.h"

#include "control/cleanup.h"
#include "control/image/image.h"
#include "machine/engine/kvm/probe.h"
#include "machine/snapshot/snapshot.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum arch { ARCH_UNKNOWN, ARCH_RISCV64, ARCH_X86_64 };

#define KVM "kvm"
#define RV64 "rv64"

// What a kernel is for: bzImage's header (Documentation/arch/x86/boot.rst), an ELF file's machine. What says nothing (a packed
// kernel) is taken for riscv64, whose loader unpacks it and says more.
static enum arch arch_of_kernel(int fd)
{
    unsigned char head[0x206] = {0};
    ssize_t len = pread(fd, head, sizeof(head), 0);
    if (len == (ssize_t)sizeof(head) && memcmp(head + 0x202, "HdrS", 4) == 0)
        return ARCH_X86_64;
    if (len < 20 || memcmp(head, ELFMAG, SELFMAG) != 0)
        return ARCH_UNKNOWN;
    unsigned machine = head[18] | (unsigned)head[19] << 8;
    return machine == EM_X86_64 || machine == EM_386 ? ARCH_X86_64 : ARCH_RISCV64;
}

static bool kvm_open(struct engine_choice *choice, char why[static 256])
{
    struct kvm_fitness fitness = {.fit = false};
    choice->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (choice->kvm_fd < 0) {
        snprintf(why, 256, "/dev/kvm: %s",
                 errno == ENOENT   ? "there is none; load the module kvm_intel or kvm_amd"
                 : errno == EACCES ? "no permission; be root or in the group kvm"
                                   : strerror(errno));
        return false;
    }
    kvm_probe(choice->kvm_fd, &fitness);
    if (fitness.fit)
        return true;
    snprintf(why, 256, "%s", fitness.why);
    close(choice->kvm_fd);
    choice->kvm_fd = -1;
    return false;
}

static int choose_kvm(struct engine_choice *choice, const char *why, struct tv_error *err)
{
    char unfit[256];
    if (!kvm_open(choice, unfit))
        return tv_error_set(err, -ENODEV, "engine 'kvm' (since %s) cannot run here: %s", why, unfit);
    choice->engine = KVM;
    snprintf(choice->why, sizeof(choice->why), "%s", why);
    return 0;
}

static int choose_rv64(struct engine_choice *choice, const struct machine_spec *spec, const char *why, struct tv_error *err)
{
    if (spec->cpu)
        return tv_error_set(err, -EINVAL, "cpu '%s' is for engine 'kvm', and this is engine 'rv64', since %s", spec->cpu, why);
    choice->engine = RV64;
    snprintf(choice->why, sizeof(choice->why), "%s", why);
    return 0;
}

static bool is_built(const char *image)
{
    struct image_paths paths;
    return image_find(&paths, image, NULL) == 0;
}

// Whether another variant of its image may take the place of the one that is named.
static bool is_free(const struct machine_spec *spec)
{
    for (unsigned i = 0; i < spec->n_disks; i++)
        if (spec->disks[i].image)
            return false;
    return true;
}

// The image's name says riscv64 where nothing else is said; `variant` is the one for x86-64, "" if there is none to take.
static int choose_for_image(const struct machine_spec *spec, struct engine_choice *choice, const char *variant,
                            struct tv_error *err)
{
    char why[256], unfit[256];
    if (image_is_amd64(spec->image)) {
        snprintf(why, sizeof(why), "image '%s' is for x86-64", spec->image);
        return choose_kvm(choice, why, err);
    }
    if (!variant[0]) {
        snprintf(why, sizeof(why), "%s '%s' is for riscv64", is_free(spec) ? "image" : "a disk from image", spec->image);
        return choose_rv64(choice, spec, why, err);
    }
    if (!is_built(variant)) {
        snprintf(why, sizeof(why), "image '%s' is not there (`trivet image build %s`)", variant, variant);
        return choose_rv64(choice, spec, why, err);
    }
    if (!kvm_open(choice, unfit))
        return choose_rv64(choice, spec, unfit, err);
    choice->engine = KVM;
    snprintf(choice->image, sizeof(choice->image), "%s", variant);
    snprintf(choice->why, sizeof(choice->why), "KVM works here");
    return 0;
}

static int choose_saved(const struct machine_spec *spec, int restore_fd, struct engine_choice *choice, struct tv_error *err)
{
    cleanup_free char *text = NULL;
    int rc = snapshot_read_config(restore_fd, &text, err);
    if (rc)
        return rc;
    cleanup_json json_t *config = json_loads(text, 0, NULL);
    const char *engine = json_string_value(json_object_get(config, "engine"));
    const char *why = "it was saved by that";
    return engine && strcmp(engine, KVM) == 0 ? choose_kvm(choice, why, err) : choose_rv64(choice, spec, why, err);
}

// What was asked for by name: an image's variant follows, and what is for the other kind of processor is refused.
static int choose_named(const struct machine_spec *spec, enum arch arch, struct engine_choice *choice, const char *variant,
                        struct tv_error *err)
{
    const bool is_kvm = strcmp(spec->engine, KVM) == 0;
    if (spec->image && !is_kvm && image_is_amd64(spec->image))
        return tv_error_set(err, -EINVAL,
                            "image '%s' is for x86-64, and engine 'rv64' for riscv64; take image '%.*s' or engine 'kvm'",
                            spec->image, (int)(strlen(spec->image) - strlen(IMAGE_AMD64)), spec->image);
    if (spec->image && is_kvm && !image_is_amd64(spec->image) && !variant[0])
        return tv_error_set(err, -EINVAL, "%s '%s' is for riscv64, and engine 'kvm' for x86-64; take engine 'rv64'",
                            is_free(spec) ? "image" : "a disk from image", spec->image);
    if ((arch == ARCH_X86_64 && !is_kvm) || (arch == ARCH_RISCV64 && is_kvm))
        return tv_error_set(err, -EINVAL, "the kernel is for %s, and engine '%s' for %s; take engine '%s'",
                            is_kvm ? "riscv64" : "x86-64", spec->engine, is_kvm ? "x86-64" : "riscv64", is_kvm ? RV64 : KVM);
    if (is_kvm && variant[0])
        snprintf(choice->image, sizeof(choice->image), "%s", variant);
    return is_kvm ? choose_kvm(choice, "it was asked for", err) : choose_rv64(choice, spec, "it was asked for", err);
}

int engine_choose(const struct machine_spec *spec, int kernel_fd, int restore_fd, struct engine_choice *choice,
                  struct tv_error *err)
{
    char variant[SPEC_NAME_MAX + sizeof(IMAGE_AMD64)] = "";
    enum arch arch = kernel_fd >= 0 ? arch_of_kernel(kernel_fd) : ARCH_UNKNOWN;
    *choice = (struct engine_choice){.kvm_fd = -1};
    if (spec->image)
        snprintf(choice->image, sizeof(choice->image), "%s", spec->image);
    if (spec->image && !image_is_amd64(spec->image) && is_free(spec))
        snprintf(variant, sizeof(variant), "%s%s", spec->image, IMAGE_AMD64);
    if (!image_is_known(variant))
        variant[0] = 0;
    if (strcmp(spec->engine, "auto") != 0)
        return choose_named(spec, arch, choice, variant, err);
    if (restore_fd >= 0)
        return choose_saved(spec, restore_fd, choice, err);
    if (spec->image)
        return choose_for_image(spec, choice, variant, err);
    return arch == ARCH_X86_64
               ? choose_kvm(choice, "the kernel is for x86-64", err)
               : choose_rv64(choice, spec, arch == ARCH_UNKNOWN ? "the kernel is not one for x86-64" : "the kernel is for riscv64",
                             err);
}
