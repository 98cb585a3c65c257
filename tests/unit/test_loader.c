// Kernel formats: each lands where it should, wrapped or not; what is wrong is refused by a message that names the file.
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

#include "machine/loader/loader.h"

#define RAM_BASE 0x80000000ull
#define RAM_BYTES (16ull << 20)
#define FDT_BYTES 65536u
#define KERNEL_BYTES 70001u // of the test images

struct fixture {
    struct guest_memory mem;
    struct loader_result result;
    struct tv_error err;
    _Alignas(8) uint8_t kernel[1u << 20]; // what is loaded, as a file
    size_t len;
    int initrd_fd;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    guest_memory_init(&f->mem);
    int fd = guest_ram_create("test", RAM_BYTES, &f->err);
    assert_int_equal(guest_memory_add(&f->mem, RAM_BASE, RAM_BYTES, fd, 0, 0, &f->err), 0);
    f->initrd_fd = -1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    guest_memory_fini(&f->mem);
    if (f->initrd_fd >= 0)
        close(f->initrd_fd);
    free(f);
    return 0;
}

static int file_of(const void *bytes, size_t len)
{
    int fd = memfd_create("file", 0);
    assert_int_equal(write(fd, bytes, len), len);
    return fd;
}

static int load(struct fixture *f)
{
    int fd = file_of(f->kernel, f->len);
    struct loader_request request = {.mem = &f->mem,
                                     .ram_base = RAM_BASE,
                                     .ram_size_bytes = RAM_BYTES,
                                     .kernel = {fd, "kernel 'vmlinuz'"},
                                     .initrd = {f->initrd_fd, "initrd 'initrd.gz'"},
                                     .fdt_size_bytes = FDT_BYTES};
    int rc = loader_load(&request, &f->result, &f->err);
    close(fd);
    return rc;
}

static void refused(struct fixture *f, int code, const char *message)
{
    assert_int_equal(load(f), code);
    if (!strstr(f->err.text, message))
        fail_msg("got '%s', not '%s'", f->err.text, message);
    assert_ptr_equal(strstr(f->err.text, "kernel 'vmlinuz'"), f->err.text);
}

static const uint8_t *at(struct fixture *f, uint64_t addr)
{
    return guest_memory_view(&f->mem, addr, 1);
}

static void fill(uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i * 7 + i / 256);
}

static void make_image(struct fixture *f, uint64_t text_offset, uint64_t image_size)
{
    fill(f->kernel, KERNEL_BYTES);
    memset(f->kernel, 0, 64);
    memcpy(f->kernel + 8, &text_offset, 8);
    memcpy(f->kernel + 16, &image_size, 8);
    memcpy(f->kernel + 48, "RISCV\0\0\0RSC\x05", 12);
    f->len = KERNEL_BYTES;
}

static void check_image(struct fixture *f, uint64_t addr)
{
    uint8_t want[KERNEL_BYTES];
    fill(want, sizeof(want));
    assert_int_equal(f->result.entry, addr);
    assert_memory_equal(at(f, addr) + 64, want + 64, sizeof(want) - 64);
    assert_int_equal(at(f, addr)[KERNEL_BYTES], 0);
}

// An ELF file of one or two segments; the second begins right after the first in the file.
static Elf64_Phdr *make_elf(struct fixture *f, uint16_t type, uint64_t vaddr, uint64_t paddr)
{
    Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                         .e_type = type,
                         .e_machine = 243,
                         .e_version = EV_CURRENT,
                         .e_entry = vaddr + 0x40,
                         .e_phoff = sizeof(Elf64_Ehdr),
                         .e_ehsize = sizeof(Elf64_Ehdr),
                         .e_phentsize = sizeof(Elf64_Phdr),
                         .e_phnum = 2};
    Elf64_Phdr ph[2] = {
        {.p_type = PT_LOAD, .p_offset = 4096, .p_vaddr = vaddr, .p_paddr = paddr, .p_filesz = 4096, .p_memsz = 8192},
        {.p_type = PT_LOAD, .p_offset = 8192, .p_vaddr = vaddr + 8192, .p_paddr = paddr + 8192, .p_filesz = 100, .p_memsz = 100}};
    fill(f->kernel, 8192 + 100);
    memcpy(f->kernel, &header, sizeof(header));
    memcpy(f->kernel + sizeof(header), ph, sizeof(ph));
    f->len = 8192 + 100;
    return (Elf64_Phdr *)(void *)(f->kernel + sizeof(header));
}

static void wrap_gzip(struct fixture *f)
{
    uint8_t *out = malloc(sizeof(f->kernel));
    z_stream z = {.next_in = f->kernel, .avail_in = (uInt)f->len, .next_out = out, .avail_out = sizeof(f->kernel)};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    f->len = z.total_out;
    memcpy(f->kernel, out, f->len);
    deflateEnd(&z);
    free(out);
}

// A zboot file: DOS header, 448 bytes of what stands for the PE stub, then the payload and the 4 bytes of its unpacked size.
static void wrap_zboot(struct fixture *f, const char *type, bool zstd)
{
    uint32_t offset = 512, size = (uint32_t)f->len;
    if (zstd) {
        uint8_t *out = malloc(sizeof(f->kernel));
        f->len = ZSTD_compress(out, sizeof(f->kernel), f->kernel, f->len, 3);
        memmove(f->kernel + offset, out, f->len);
        free(out);
    } else {
        wrap_gzip(f);
        memmove(f->kernel + offset, f->kernel, f->len);
    }
    uint32_t packed = (uint32_t)f->len;
    memset(f->kernel, 0, offset);
    memcpy(f->kernel, "MZ\0\0zimg", 8);
    memcpy(f->kernel + 8, &offset, 4);
    memcpy(f->kernel + 12, &packed, 4);
    strcpy((char *)f->kernel + 24, type);
    memcpy(f->kernel + offset + packed, &size, 4);
    f->len = offset + packed + 4;
}

static void test_image(void **state)
{
    struct fixture *f = *state;
    make_image(f, 0x200000, 0x300000);
    assert_int_equal(load(f), 0);
    check_image(f, RAM_BASE + 0x200000);
    assert_int_equal(f->result.initrd_size_bytes, 0);
    assert_int_equal(f->result.fdt_addr, RAM_BASE + RAM_BYTES - FDT_BYTES);
}

static void test_initrd_goes_below_the_device_tree(void **state)
{
    struct fixture *f = *state;
    uint8_t initrd[10000];
    memset(initrd, 0x5a, sizeof(initrd));
    f->initrd_fd = file_of(initrd, sizeof(initrd));
    make_image(f, 0x200000, 0);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->result.initrd_size_bytes, sizeof(initrd));
    assert_int_equal(f->result.initrd_addr % 4096, 0);
    assert_int_equal(f->result.initrd_addr, f->result.fdt_addr - 3 * 4096);
    assert_memory_equal(at(f, f->result.initrd_addr), initrd, sizeof(initrd));
}

static void test_initrd_too_big(void **state)
{
    struct fixture *f = *state;
    f->initrd_fd = memfd_create("big", 0);
    assert_int_equal(ftruncate(f->initrd_fd, RAM_BYTES - 0x300000), 0);
    make_image(f, 0x200000, 0x300000);
    assert_int_equal(load(f), -ENOSPC);
    assert_non_null(strstr(f->err.text, "initrd 'initrd.gz': 13312 KiB do not fit beside the kernel in 16 MiB"));
}

static void test_elf_at_the_bottom_of_memory(void **state)
{
    struct fixture *f = *state;
    make_elf(f, ET_EXEC, 0xffffffff80000000ull, RAM_BASE);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->result.entry, RAM_BASE + 0x40);
    assert_memory_equal(at(f, RAM_BASE), f->kernel + 4096, 4096);
    assert_int_equal(at(f, RAM_BASE + 4096)[0], 0); // the part that no file fills
    assert_memory_equal(at(f, RAM_BASE + 8192), f->kernel + 8192, 100);
}

static void test_elf_at_the_top_makes_way_for_initrd_and_tree(void **state)
{
    struct fixture *f = *state;
    f->initrd_fd = file_of("initrd", 6);
    make_elf(f, ET_EXEC, RAM_BASE + RAM_BYTES - 12288, RAM_BASE + RAM_BYTES - 12288);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->result.fdt_addr, RAM_BASE + RAM_BYTES - 12288 - FDT_BYTES);
    assert_int_equal(f->result.initrd_addr, f->result.fdt_addr - 4096);
}

static void test_movable_elf(void **state)
{
    struct fixture *f = *state;
    make_elf(f, ET_DYN, 0xffffffff80000000ull, 0x1000);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->result.entry, RAM_BASE + 0x200000 + 0x1000 + 0x40);
    assert_memory_equal(at(f, RAM_BASE + 0x201000), f->kernel + 4096, 4096);
}

static void test_elf_refused(void **state)
{
    struct fixture *f = *state;
    Elf64_Phdr *ph = make_elf(f, ET_EXEC, 0x1000, 0x1000);
    refused(f, -ENOSPC, "wants to be at 0x1000, but memory is 0x80000000..0x80ffffff");
    ph = make_elf(f, ET_EXEC, RAM_BASE, RAM_BASE);
    ph[1].p_paddr = RAM_BASE + 4096;
    refused(f, -EINVAL, "two of its segments overlap");
    ph = make_elf(f, ET_EXEC, RAM_BASE, RAM_BASE);
    ph[0].p_memsz = RAM_BYTES + 1;
    refused(f, -ENOSPC, "give the machine more memory");
    ph = make_elf(f, ET_EXEC, RAM_BASE, RAM_BASE);
    ph[0].p_paddr = UINT64_MAX - 100;
    refused(f, -EINVAL, "its sizes make no sense");
    ph = make_elf(f, ET_EXEC, RAM_BASE, RAM_BASE);
    ph[1].p_offset = UINT64_MAX - 10;
    refused(f, -EINVAL, "is cut short");
    make_elf(f, ET_EXEC, RAM_BASE, RAM_BASE);
    f->len = 8192;
    refused(f, -EINVAL, "is cut short");
    make_elf(f, ET_EXEC, RAM_BASE, RAM_BASE);
    f->len = 70;
    refused(f, -EINVAL, "is cut short");
    make_elf(f, ET_EXEC, RAM_BASE, RAM_BASE);
    f->kernel[18] = 62;
    refused(f, -ENOEXEC, "is an ELF file for x86-64 (62); give a riscv64 kernel");
    make_elf(f, ET_REL, RAM_BASE, RAM_BASE);
    refused(f, -ENOEXEC, "not an executable");
    make_elf(f, ET_EXEC, RAM_BASE, RAM_BASE);
    f->kernel[26] = 1; // e_entry
    refused(f, -EINVAL, "lies in none of its segments");
}

static void test_wrapped(void **state)
{
    struct fixture *f = *state;
    make_image(f, 0x200000, 0);
    wrap_gzip(f);
    assert_int_equal(load(f), 0);
    check_image(f, RAM_BASE + 0x200000);
    wrap_gzip(f);
    assert_int_equal(load(f), 0);
    make_image(f, 0x400000, 0);
    wrap_zboot(f, "gzip", false);
    assert_int_equal(load(f), 0);
    check_image(f, RAM_BASE + 0x400000);
    make_image(f, 0x600000, 0);
    wrap_zboot(f, "zstd", true);
    assert_int_equal(load(f), 0);
    check_image(f, RAM_BASE + 0x600000);
    make_elf(f, ET_EXEC, RAM_BASE, RAM_BASE);
    wrap_zboot(f, "zstd22", true);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->result.entry, RAM_BASE + 0x40);
}

static void test_wrapped_refused(void **state)
{
    struct fixture *f = *state;
    make_image(f, 0x200000, 0);
    wrap_gzip(f);
    f->len -= 20;
    refused(f, -EINVAL, "its gzip data are damaged or cut short");
    make_image(f, 0x200000, 0);
    wrap_gzip(f);
    f->kernel[f->len / 2] ^= 0xff;
    refused(f, -EINVAL, "its gzip data are damaged or cut short");
    make_image(f, 0x200000, 0);
    wrap_zboot(f, "zstd", true);
    f->len -= 20;
    refused(f, -EINVAL, "is cut short: its payload ends at");
    make_image(f, 0x200000, 0);
    wrap_zboot(f, "lzma", false);
    refused(f, -ENOEXEC, "compressed by 'lzma'; only gzip and zstd are understood");
    memset(f->kernel, 'x', 1000);
    f->len = 1000;
    wrap_gzip(f);
    refused(f, -ENOEXEC, "is no kernel: neither ELF, Image, gzip nor EFI zboot");
    make_image(f, 0x200000, 0);
    for (int i = 0; i < 6; i++)
        wrap_gzip(f);
    refused(f, -EINVAL, "is packed more than 3 times");
}

static void test_image_refused(void **state)
{
    struct fixture *f = *state;
    make_image(f, 0x200000, RAM_BYTES);
    refused(f, -ENOSPC, "memory ends at 0x81000000; give the machine more memory");
    make_image(f, RAM_BYTES, 0);
    refused(f, -ENOSPC, "wants to be at 0x81000000");
    make_image(f, UINT64_MAX - 5, 0);
    refused(f, -EINVAL, "is out of range");
    make_image(f, 0x200000, 0);
    memcpy(f->kernel + 56, "ARM\x64", 4);
    refused(f, -ENOEXEC, "is a kernel for arm64; give a riscv64 kernel");
    make_image(f, 0x200000, 0);
    f->kernel[24] = 1;
    refused(f, -ENOEXEC, "big-endian");
    make_image(f, 0x200000, 0); // as a PE file of one section that is longer than the file
    memcpy(f->kernel, "MZ", 2);
    f->kernel[60] = 64;
    memset(f->kernel + 64, 0, 64);
    memcpy(f->kernel + 64, "PE\0\0\x64\x50\x01\0", 8);
    memcpy(f->kernel + 64 + 24 + 16, "\0\0\2\0\0\2\0\0", 8);
    refused(f, -EINVAL, "is cut short: 70001 bytes of 131584");
}

static void test_no_kernel(void **state)
{
    struct fixture *f = *state;
    memcpy(f->kernel, "hello", 5);
    f->len = 5;
    refused(f, -ENOEXEC, "is no kernel: neither ELF, Image, gzip nor EFI zboot");
    f->len = 0;
    refused(f, -EINVAL, "is empty");
    memset(f->kernel, 0, 4096);
    f->len = 4096;
    refused(f, -ENOEXEC, "is no kernel");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_image),
                                       TEST(test_initrd_goes_below_the_device_tree),
                                       TEST(test_initrd_too_big),
                                       TEST(test_elf_at_the_bottom_of_memory),
                                       TEST(test_elf_at_the_top_makes_way_for_initrd_and_tree),
                                       TEST(test_movable_elf),
                                       TEST(test_elf_refused),
                                       TEST(test_wrapped),
                                       TEST(test_wrapped_refused),
                                       TEST(test_image_refused),
                                       TEST(test_no_kernel)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
