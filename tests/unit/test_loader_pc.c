// Kernel formats of x86-64: each lands where it should and is told what it wants to know, byte by byte as its specification has it;
// what is wrong is refused by a message that names the file, before anything was written.
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

#include <cmocka.h>

#include "machine/loader/loader.h"

#define MIB (1ull << 20)
#define RAM_BYTES (64 * MIB)
#define DATA_ADDR 0x10000ull
#define DATA_BYTES 0x10000ull
#define RSDP_ADDR 0xe0000ull
#define SETUP_BYTES (3 * 512u)
#define KERNEL_BYTES 300000u
#define CODE_OFFSET 4096u
#define CODE_BYTES 8000u

struct fixture {
    struct guest_memory mem;
    struct loader_pc_result result;
    struct tv_error err;
    _Alignas(8) uint8_t kernel[1u << 20]; // what is loaded, as a file
    size_t len;
    int initrd_fd;
    const char *append;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    guest_memory_init(&f->mem);
    int fd = guest_ram_create("test", RAM_BYTES, &f->err);
    assert_int_equal(guest_memory_add(&f->mem, 0, RAM_BYTES, fd, 0, 0, &f->err), 0);
    f->initrd_fd = -1;
    f->append = "console=ttyS0 quiet";
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
    struct loader_pc_request request = {.mem = &f->mem,
                                        .kernel = {fd, "kernel 'vmlinuz'"},
                                        .initrd = {f->initrd_fd, "initrd 'initrd.gz'"},
                                        .append = f->append,
                                        .rsdp_addr = RSDP_ADDR,
                                        .n_ranges = 3,
                                        .ranges = {{0, 0xa0000, true}, {0xe0000, 0x20000, false}, {MIB, RAM_BYTES - MIB, true}},
                                        .usable = 2,
                                        .data_addr = DATA_ADDR,
                                        .data_size_bytes = DATA_BYTES};
    int rc = loader_pc_load(&request, &f->result, &f->err);
    close(fd);
    return rc;
}

static void check_untouched(struct fixture *f)
{
    const uint8_t *ram = guest_memory_view(&f->mem, 0, RAM_BYTES);
    assert_int_equal(ram[0], 0);
    assert_memory_equal(ram, ram + 1, RAM_BYTES - 1); // so all are 0
}

static void refused(struct fixture *f, int code, const char *message)
{
    assert_int_equal(load(f), code);
    if (!strstr(f->err.text, message))
        fail_msg("got '%s', not '%s'", f->err.text, message);
    assert_ptr_equal(strstr(f->err.text, "kernel 'vmlinuz'"), f->err.text);
    check_untouched(f);
}

static const uint8_t *at(struct fixture *f, uint64_t addr)
{
    return guest_memory_view(&f->mem, addr, 1);
}

static uint64_t get(struct fixture *f, uint64_t addr, unsigned bytes)
{
    uint64_t value = 0;
    memcpy(&value, guest_memory_view(&f->mem, addr, bytes), bytes);
    return value;
}

static void put(struct fixture *f, unsigned offset, uint64_t value, unsigned bytes)
{
    memcpy(f->kernel + offset, &value, bytes);
}

static void fill(uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i * 7 + i / 256 + 1);
}

static void give_initrd(struct fixture *f, size_t len)
{
    f->initrd_fd = memfd_create("initrd", 0);
    assert_int_equal(write(f->initrd_fd, "initrd", 6), 6);
    assert_int_equal(ftruncate(f->initrd_fd, (off_t)len), 0);
}

// --- bzImage

static void make_bzimage(struct fixture *f)
{
    memset(f->kernel, 0, SETUP_BYTES);
    fill(f->kernel + SETUP_BYTES, KERNEL_BYTES);
    put(f, 0x1f1, SETUP_BYTES / 512 - 1, 1);
    put(f, 0x1f4, KERNEL_BYTES / 16, 4);
    put(f, 0x1fe, 0xaa55, 2);
    put(f, 0x200, 0x6aeb, 2); // the header ends at 0x26c
    memcpy(f->kernel + 0x202, "HdrS", 4);
    put(f, 0x206, 0x20f, 2);
    put(f, 0x211, 1, 1); // loaded high
    put(f, 0x22c, 0x7fffffff, 4);
    put(f, 0x230, 0x200000, 4);
    put(f, 0x234, 1, 1); // relocatable
    put(f, 0x238, 2047, 4);
    put(f, 0x258, 16 * MIB, 8);
    put(f, 0x260, 8 * MIB, 4);
    f->len = SETUP_BYTES + KERNEL_BYTES;
}

static void check_e820(struct fixture *f, uint64_t table, unsigned entry_bytes, unsigned skip)
{
    const uint64_t want[3][3] = {{0, 0xa0000, 1}, {0xe0000, 0x20000, 2}, {MIB, RAM_BYTES - MIB, 1}};
    for (unsigned i = 0; i < 3; i++) {
        uint64_t entry = table + i * entry_bytes + skip;
        assert_int_equal(get(f, entry, 8), want[i][0]);
        assert_int_equal(get(f, entry + 8, 8), want[i][1]);
        assert_int_equal(get(f, entry + 16, 4), want[i][2]);
    }
}

static void test_bzimage(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    give_initrd(f, 10000);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->result.entry, 16 * MIB);
    assert_memory_equal(at(f, 16 * MIB), f->kernel + SETUP_BYTES, KERNEL_BYTES);
    uint64_t params = f->result.ebx_esi;
    assert_in_range(params, DATA_ADDR, DATA_ADDR + DATA_BYTES - 4096);
    assert_memory_equal(at(f, params + 0x1fe), f->kernel + 0x1fe, 0x210 - 0x1fe);
    assert_int_equal(get(f, params + 0x258, 8), 16 * MIB);
    assert_int_equal(get(f, params + 0x070, 8), RSDP_ADDR);
    assert_int_equal(get(f, params + 0x210, 1), 0xff); // a loader without a number
    assert_int_equal(get(f, params + 0x1e8, 1), 3);
    check_e820(f, params + 0x2d0, 20, 0);
    assert_string_equal((const char *)at(f, get(f, params + 0x228, 4)), "console=ttyS0 quiet");
    uint64_t initrd = get(f, params + 0x218, 4);
    assert_int_equal(initrd % 4096, 0);
    assert_in_range(initrd, 24 * MIB, RAM_BYTES - 10000); // behind all that the kernel needs
    assert_int_equal(get(f, params + 0x21c, 4), 10000);
    assert_memory_equal(at(f, initrd), "initrd\0", 7);
}

// Nothing behind the header's own end is told, whatever the file has there.
static void test_bzimage_header_ends_where_it_says(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    memset(f->kernel + 0x26c, 0xee, 0x290 - 0x26c);
    assert_int_equal(load(f), 0);
    assert_int_equal(get(f, f->result.ebx_esi + 0x26c, 4), 0);
}

static void test_bzimage_goes_where_it_fits(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    put(f, 0x258, 60 * MIB, 8); // its 8 MiB would end behind memory
    assert_int_equal(load(f), 0);
    assert_int_equal(f->result.entry, 2 * MIB);
    make_bzimage(f);
    put(f, 0x258, UINT64_MAX - 100, 8);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->result.entry, 2 * MIB);
}

static void test_bzimage_initrd_stays_where_the_kernel_finds_it(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    put(f, 0x22c, 30 * MIB - 1, 4);
    give_initrd(f, 2 * MIB);
    assert_int_equal(load(f), 0);
    assert_int_equal(get(f, f->result.ebx_esi + 0x218, 4), 28 * MIB);
}

static void test_bzimage_refused(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    put(f, 0x206, 0x209, 2);
    refused(f, -ENOEXEC, "of boot protocol 2.9, older than 2.10");
    make_bzimage(f);
    put(f, 0x211, 0, 1);
    refused(f, -ENOEXEC, "is a zImage");
    make_bzimage(f);
    put(f, 0x201, 0xff, 1);
    refused(f, -EINVAL, "its setup header is damaged");
    make_bzimage(f);
    f->len -= 5000;
    refused(f, -EINVAL, "is cut short");
    make_bzimage(f);
    put(f, 0x234, 0, 1);
    put(f, 0x258, 60 * MIB, 8);
    refused(f, -ENOSPC, "give the machine more memory");
    make_bzimage(f);
    put(f, 0x238, 5, 4);
    refused(f, -EINVAL, "takes a command line of 5 bytes, not of 19");
    char *append = malloc(DATA_BYTES);
    memset(append, 'a', DATA_BYTES);
    append[DATA_BYTES - 1] = 0;
    f->append = append;
    make_bzimage(f);
    put(f, 0x238, 1u << 20, 4);
    refused(f, -ENOSPC, "no room to tell the kernel its command line");
    free(append);
}

static void test_initrd_too_big(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    give_initrd(f, 60 * MIB);
    assert_int_equal(load(f), -ENOSPC);
    assert_non_null(strstr(f->err.text, "initrd 'initrd.gz': 61440 KiB do not fit beside the kernel in 63 MiB"));
    check_untouched(f);
}

// --- ELF: one segment at 2 MiB, and a note

static const uint8_t pvh_note[] = {4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, 'X', 'e', 'n', 0, 0x40, 0, 0x20, 0};
static const uint8_t other_note[] = {4, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 'X', 'e', 'n', 0, 0x80, 0, 0x20, 0};
#define NOTE_OFFSET 1024u

static Elf64_Phdr *make_elf64(struct fixture *f, bool has_pvh)
{
    Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                         .e_type = ET_EXEC,
                         .e_machine = EM_X86_64,
                         .e_version = EV_CURRENT,
                         .e_entry = 2 * MIB + 0x100,
                         .e_phoff = sizeof(Elf64_Ehdr),
                         .e_phentsize = sizeof(Elf64_Phdr),
                         .e_phnum = 2};
    Elf64_Phdr ph[2] = {{.p_type = PT_LOAD,
                         .p_offset = CODE_OFFSET,
                         .p_vaddr = 0xffffffff80200000ull,
                         .p_paddr = 2 * MIB,
                         .p_filesz = CODE_BYTES,
                         .p_memsz = CODE_BYTES + 4096},
                        {.p_type = PT_NOTE, .p_offset = NOTE_OFFSET, .p_filesz = 2 * sizeof(pvh_note), .p_align = 4}};
    memset(f->kernel, 0, CODE_OFFSET);
    fill(f->kernel + CODE_OFFSET, CODE_BYTES);
    memcpy(f->kernel, &header, sizeof(header));
    memcpy(f->kernel + sizeof(header), ph, sizeof(ph));
    memcpy(f->kernel + NOTE_OFFSET, other_note, sizeof(other_note));
    memcpy(f->kernel + NOTE_OFFSET + sizeof(other_note), has_pvh ? pvh_note : other_note, sizeof(pvh_note));
    f->len = CODE_OFFSET + CODE_BYTES;
    return (Elf64_Phdr *)(void *)(f->kernel + sizeof(header));
}

static void make_elf32(struct fixture *f, bool has_pvh)
{
    Elf32_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
                         .e_type = ET_EXEC,
                         .e_machine = EM_386,
                         .e_version = EV_CURRENT,
                         .e_entry = 2 * MIB + 0x100,
                         .e_phoff = sizeof(Elf32_Ehdr),
                         .e_phentsize = sizeof(Elf32_Phdr),
                         .e_phnum = 2};
    Elf32_Phdr ph[2] = {{.p_type = PT_LOAD,
                         .p_offset = CODE_OFFSET,
                         .p_vaddr = 2 * MIB,
                         .p_paddr = 2 * MIB,
                         .p_filesz = CODE_BYTES,
                         .p_memsz = CODE_BYTES + 4096},
                        {.p_type = PT_NOTE, .p_offset = NOTE_OFFSET, .p_filesz = 2 * sizeof(pvh_note), .p_align = 4}};
    make_elf64(f, has_pvh);
    memset(f->kernel, 0, NOTE_OFFSET);
    memcpy(f->kernel, &header, sizeof(header));
    memcpy(f->kernel + sizeof(header), ph, sizeof(ph));
}

static void check_segment(struct fixture *f)
{
    uint8_t want[CODE_BYTES];
    fill(want, sizeof(want));
    assert_memory_equal(at(f, 2 * MIB), want, sizeof(want));
    assert_int_equal(at(f, 2 * MIB)[CODE_BYTES], 0);
}

static void check_pvh(struct fixture *f)
{
    uint64_t info = f->result.ebx_esi;
    assert_int_equal(f->result.entry, 2 * MIB + 0x40);
    assert_int_equal(get(f, info, 4), 0x336ec578);
    assert_int_equal(get(f, info + 4, 4), 1);
    assert_int_equal(get(f, info + 8, 4), 0);
    assert_int_equal(get(f, info + 12, 4), 1);
    uint64_t module = get(f, info + 16, 8);
    assert_memory_equal(at(f, get(f, module, 8)), "initrd", 6);
    assert_int_equal(get(f, module + 8, 8), 5000);
    assert_int_equal(get(f, module + 16, 8), 0); // no command line of its own
    assert_string_equal((const char *)at(f, get(f, info + 24, 8)), "console=ttyS0 quiet");
    assert_int_equal(get(f, info + 32, 8), RSDP_ADDR);
    assert_int_equal(get(f, info + 48, 4), 3);
    check_e820(f, get(f, info + 40, 8), 24, 0);
    check_segment(f);
}

static void test_pvh(void **state)
{
    struct fixture *f = *state;
    give_initrd(f, 5000);
    make_elf64(f, true);
    assert_int_equal(load(f), 0);
    check_pvh(f);
}

static void test_pvh_of_32_bits(void **state)
{
    struct fixture *f = *state;
    give_initrd(f, 5000);
    make_elf32(f, true);
    assert_int_equal(load(f), 0);
    check_pvh(f);
}

static void test_pvh_in_gzip(void **state)
{
    struct fixture *f = *state;
    give_initrd(f, 5000);
    make_elf64(f, true);
    uint8_t *out = malloc(sizeof(f->kernel));
    z_stream z = {.next_in = f->kernel, .avail_in = (uInt)f->len, .next_out = out, .avail_out = sizeof(f->kernel)};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    f->len = z.total_out;
    memcpy(f->kernel, out, f->len);
    deflateEnd(&z);
    free(out);
    assert_int_equal(load(f), 0);
    check_pvh(f);
}

static void test_elf_refused(void **state)
{
    struct fixture *f = *state;
    make_elf64(f, false);
    refused(f, -ENOEXEC, "says neither where it is entered by PVH nor has it a multiboot header");
    Elf64_Phdr *ph = make_elf64(f, true);
    ph[0].p_paddr = 0x1000;
    refused(f, -EINVAL, "its entry 0x200040 lies in none of its segments");
    ph = make_elf64(f, true);
    ph[0].p_memsz = RAM_BYTES;
    refused(f, -ENOSPC, "give the machine more memory");
    ph = make_elf64(f, true);
    ph[0].p_offset = UINT64_MAX - 10;
    refused(f, -EINVAL, "is cut short");
    ph = make_elf64(f, true);
    ph[0].p_paddr = UINT64_MAX - 10;
    refused(f, -EINVAL, "");
    ph = make_elf64(f, true);
    ph[1].p_offset = UINT64_MAX - 10;
    refused(f, -EINVAL, "is cut short");
    make_elf64(f, true);
    f->kernel[18] = 243;
    refused(f, -ENOEXEC, "another machine (243); give an x86-64 kernel");
    make_elf64(f, true);
    f->kernel[16] = ET_REL;
    refused(f, -ENOEXEC, "not an executable");
    make_elf64(f, true);
    f->len = 70;
    refused(f, -EINVAL, "is cut short");
    memset(f->kernel, 'x', 1000);
    f->len = 1000;
    refused(f, -ENOEXEC, "neither bzImage nor ELF");
}

// --- multiboot

static void put_multiboot(struct fixture *f, uint32_t flags)
{
    put(f, 2048, 0x1badb002, 4);
    put(f, 2052, flags, 4);
    put(f, 2056, 0u - (0x1badb002u + flags), 4);
}

static void check_multiboot(struct fixture *f)
{
    uint64_t info = f->result.ebx_esi;
    assert_int_equal(f->result.eax, 0x2badb002);
    assert_int_equal(get(f, info, 4), 1 | 4 | 8 | 64); // memory, command line, modules, memory map
    assert_int_equal(get(f, info + 4, 4), 640);
    assert_int_equal(get(f, info + 8, 4), (RAM_BYTES - MIB) >> 10);
    assert_string_equal((const char *)at(f, get(f, info + 16, 4)), "kernel console=ttyS0 quiet");
    assert_int_equal(get(f, info + 20, 4), 1);
    uint64_t module = get(f, info + 24, 4), start = get(f, module, 4);
    assert_memory_equal(at(f, start), "initrd", 6);
    assert_int_equal(get(f, module + 4, 4) - start, 5000);
    assert_int_equal(get(f, info + 44, 4), 3 * 24);
    assert_int_equal(get(f, get(f, info + 48, 4), 4), 20); // an entry says how long it is without this
    check_e820(f, get(f, info + 48, 4), 24, 4);
    check_segment(f);
}

static void test_multiboot(void **state)
{
    struct fixture *f = *state;
    give_initrd(f, 5000);
    make_elf32(f, false);
    put_multiboot(f, 3);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->result.entry, 2 * MIB + 0x100);
    check_multiboot(f);
}

// A small kernel that begins in real mode lies below 1 MiB, and below what it is told.
static void test_multiboot_low(void **state)
{
    struct fixture *f = *state;
    Elf32_Ehdr header;
    Elf32_Phdr ph;
    uint8_t want[CODE_BYTES];
    make_elf32(f, false);
    put_multiboot(f, 3);
    memcpy(&header, f->kernel, sizeof(header));
    memcpy(&ph, f->kernel + header.e_phoff, sizeof(ph));
    header.e_entry = 0x8010;
    ph.p_paddr = 0x8000;
    memcpy(f->kernel, &header, sizeof(header));
    memcpy(f->kernel + header.e_phoff, &ph, sizeof(ph));
    give_initrd(f, 5000);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->result.entry, 0x8010);
    fill(want, sizeof(want));
    assert_memory_equal(at(f, 0x8000), want, sizeof(want));
    uint64_t module = get(f, get(f, f->result.ebx_esi + 24, 4), 4);
    assert_in_range(module, MIB, RAM_BYTES);
}

static void test_multiboot_low_refused(void **state)
{
    struct fixture *f = *state;
    Elf32_Phdr ph;
    make_elf32(f, false);
    put_multiboot(f, 3);
    memcpy(&ph, f->kernel + sizeof(Elf32_Ehdr), sizeof(ph));
    ph.p_paddr = DATA_ADDR - 4096; // reaches into it
    ph.p_vaddr = ph.p_paddr;
    memcpy(f->kernel + sizeof(Elf32_Ehdr), &ph, sizeof(ph));
    Elf32_Ehdr *header = (Elf32_Ehdr *)(void *)f->kernel;
    header->e_entry = ph.p_paddr;
    refused(f, -ENOSPC, "memory ends at 0x10000");
}

static void test_multiboot_with_addresses(void **state)
{
    struct fixture *f = *state;
    give_initrd(f, 5000);
    make_elf64(f, false);
    put_multiboot(f, 1u << 16);
    put(f, 2060, 2 * MIB - (CODE_OFFSET - 2048), 4); // where the header itself would lie
    put(f, 2064, 2 * MIB - (CODE_OFFSET - 2048), 4);
    put(f, 2068, 2 * MIB + CODE_BYTES, 4);
    put(f, 2072, 2 * MIB + CODE_BYTES + 4096, 4);
    put(f, 2076, 2 * MIB + 0x20, 4);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->result.entry, 2 * MIB + 0x20);
    check_multiboot(f);
}

static void test_multiboot_refused(void **state)
{
    struct fixture *f = *state;
    make_elf32(f, false);
    put_multiboot(f, 8);
    refused(f, -ENOEXEC, "asks for what there is not (flags 0x8)");
    make_elf32(f, false);
    put_multiboot(f, 3);
    f->kernel[2056] ^= 1;
    refused(f, -ENOEXEC, "nor has it a multiboot header"); // its sum is wrong
    make_elf32(f, false);
    put_multiboot(f, 1u << 16);
    put(f, 2060, 2 * MIB, 4);
    put(f, 2064, 3 * MIB, 4);
    refused(f, -EINVAL, "the addresses in its multiboot header make no sense");
    make_elf32(f, false);
    put_multiboot(f, 1u << 16);
    put(f, 2060, 2 * MIB, 4);
    put(f, 2064, 2 * MIB, 4);
    put(f, 2068, 4 * MIB, 4);
    refused(f, -EINVAL, "is cut short, its multiboot header names more");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_bzimage),
                                       TEST(test_bzimage_header_ends_where_it_says),
                                       TEST(test_bzimage_goes_where_it_fits),
                                       TEST(test_bzimage_initrd_stays_where_the_kernel_finds_it),
                                       TEST(test_bzimage_refused),
                                       TEST(test_initrd_too_big),
                                       TEST(test_pvh),
                                       TEST(test_pvh_of_32_bits),
                                       TEST(test_pvh_in_gzip),
                                       TEST(test_elf_refused),
                                       TEST(test_multiboot),
                                       TEST(test_multiboot_low),
                                       TEST(test_multiboot_low_refused),
                                       TEST(test_multiboot_with_addresses),
                                       TEST(test_multiboot_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
