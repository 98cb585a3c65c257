// The steps of building an image: private to this folder.
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct image_arch {
    const char *name;           // Debian's
    const char *suite;          // that it is taken from unless another is said
    const char *kernel_meta;    // the package that depends on the kernel of the day
    const char *const *modules; // that an initrd needs; those that are built in are passed over
};

struct image_job {
    const char *name, *suite;
    const struct image_arch *arch;
    char mirror[PATH_MAX];
    char apt_dir[PATH_MAX];  // private apt root, kept between builds
    char work_dir[PATH_MAX]; // unpacked packages and the tree, gone afterwards
    char out_dir[PATH_MAX];  // becomes the image
    char kernel_version[128];
    json_t *packages; // [{"name","version"}]
    bool quiet;
    bool progress_open; // a progress line without its end is on the terminal
};

// progress.c: lines on standard error, "image busybox: ..."; the transient ones only on a terminal.
void image_step(struct image_job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
void image_transient(struct image_job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));

// apt.c: packages, their signatures verified by apt against the keys of the distribution.
int image_apt_mirror(char mirror[static PATH_MAX], struct tv_error *err); // the one the host's apt uses for its own distribution
int image_apt_fetch(struct image_job *job, struct tv_error *err);         // into work_dir/root, unpacked
void image_apt_forget(const struct image_job *job);                       // the private apt root, unless it holds packages

// repository.c: `base`, `extra` (names and patterns of apt's, each list ends with NULL) and all that they need, as an archive
// in `dir` that debootstrap and apt read. *names: of the packages that `base` comes to, separated by commas; the caller frees it.
int image_repository_make(struct image_job *job, const char *const base[], const char *const extra[], const char *dir, char **names,
                          struct tv_error *err);

// modules.c: the kernel's modules that a machine needs, the `more` (ends with NULL) and those they need, unpacked from xz,
// with a modules.dep, below tree/lib/modules. Those that the kernel has built in are passed over.
int image_modules_dir(const struct image_job *job, char dir[static PATH_MAX], struct tv_error *err); // those of the package
int image_modules_install(struct image_job *job, const char *const more[], const char *tree, struct tv_error *err);

// tree.c: the guest's root: busybox, its configuration, modules.
int image_tree_make(struct image_job *job, const char *tree, struct tv_error *err);
uint64_t image_tree_recipe(void); // changes whenever what goes into the tree changes
uint64_t image_recipe_add(uint64_t recipe, const void *data, size_t len_bytes);
const struct guest_file *image_guest_file(const char *name); // one of those built in

// initrd.c, disk.c: the two forms of the tree. Both give all files to root whoever builds.
int image_initrd_write(const char *tree, const char *path, struct tv_error *err);
int image_disk_write(const char *tree, const char *path, struct tv_error *err);

// debian.c: the disks of a debian image, root and packages; out_dir has kernel and initrd.
int image_debian_write(struct image_job *job, struct tv_error *err);
uint64_t image_debian_recipe(void);
