// ELF kernels for x86-64: those that say where they are entered by PVH, and those with a multiboot header. Segments go to their
// physical addresses.
#include "machine/loader/pc.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>

#define NOTES_MAX_BYTES 4096u
#define XEN_ELFNOTE_PHYS32_ENTRY 18u
#define MULTIBOOT_MAGIC 0x1badb002u
#define MULTIBOOT_SEARCH_BYTES 8192u
#define MULTIBOOT_HEADER_BYTES 32u
#define MULTIBOOT_REQUIRED 0xffffu // what must be understood: pages, memory and a video mode, which there is not but may be ignored
#define MULTIBOOT_KNOWN 0x7u

#define MULTIBOOT_ADDRESSES (1u << 16)

struct elf { // of either class
    unsigned n;
    uint64_t entry;
    struct elf_segment {
        uint32_t type;
        uint64_t offset, vaddr, paddr, file_bytes, mem_bytes;
    } segments[KERNEL_SEGMENTS_MAX];
};

static int check_header(const struct kernel_source *source, const uint8_t *ident, unsigned machine, unsigned type, unsigned n,
                        unsigned entry_bytes, unsigned expected_bytes, struct tv_error *err)
{
    if ((machine != EM_X86_64 && machine != EM_386) || ident[EI_DATA] != ELFDATA2LSB)
        return tv_error_set(err, -ENOEXEC, "%s: is an ELF file for another machine (%u); give an x86-64 kernel, or engine 'rv64'",
                            source->name, machine);
    if (type != ET_EXEC && type != ET_DYN)
        return tv_error_set(err, -ENOEXEC, "%s: is an ELF file of type %u, not an executable; link it first", source->name, type);
    if (n == 0 || n > KERNEL_SEGMENTS_MAX || entry_bytes != expected_bytes)
        return tv_error_set(err, -EINVAL, "%s: its ELF header names %u program headers of %u bytes; 1 to %u of %u are expected",
                            source->name, n, entry_bytes, KERNEL_SEGMENTS_MAX, expected_bytes);
    return 0;
}

static int read_elf64(const struct kernel_source *source, struct elf *elf, struct tv_error *err)
{
    Elf64_Ehdr h;
    Elf64_Phdr p;
    int rc = kernel_source_read(source, 0, &h, sizeof(h), err);
    if (rc == 0)
        rc = check_header(source, h.e_ident, le16toh(h.e_machine), le16toh(h.e_type), le16toh(h.e_phnum), le16toh(h.e_phentsize),
                          sizeof(p), err);
    elf->n = rc == 0 ? le16toh(h.e_phnum) : 0;
    elf->entry = le64toh(h.e_entry);
    if (rc == 0 && le64toh(h.e_phoff) > source->size_bytes)
        return tv_error_set(err, -EINVAL, "%s: is cut short: no program headers; copy it again", source->name);
    for (unsigned i = 0; rc == 0 && i < elf->n; i++) {
        rc = kernel_source_read(source, le64toh(h.e_phoff) + i * sizeof(p), &p, sizeof(p), err);
        elf->segments[i] = (struct elf_segment){le32toh(p.p_type),  le64toh(p.p_offset), le64toh(p.p_vaddr),
                                                le64toh(p.p_paddr), le64toh(p.p_filesz), le64toh(p.p_memsz)};
    }
    return rc;
}

static int read_elf32(const struct kernel_source *source, struct elf *elf, struct tv_error *err)
{
    Elf32_Ehdr h;
    Elf32_Phdr p;
    int rc = kernel_source_read(source, 0, &h, sizeof(h), err);
    if (rc == 0)
        rc = check_header(source, h.e_ident, le16toh(h.e_machine), le16toh(h.e_type), le16toh(h.e_phnum), le16toh(h.e_phentsize),
                          sizeof(p), err);
    elf->n = rc == 0 ? le16toh(h.e_phnum) : 0;
    elf->entry = le32toh(h.e_entry);
    for (unsigned i = 0; rc == 0 && i < elf->n; i++) {
        rc = kernel_source_read(source, (uint64_t)le32toh(h.e_phoff) + i * sizeof(p), &p, sizeof(p), err);
        elf->segments[i] = (struct elf_segment){le32toh(p.p_type),  le32toh(p.p_offset), le32toh(p.p_vaddr),
                                                le32toh(p.p_paddr), le32toh(p.p_filesz), le32toh(p.p_memsz)};
    }
    return rc;
}

// Checks what all of it means for the file, and takes what is to be loaded.
static int take_segments(const struct kernel_source *source, const struct elf *elf, struct kernel_plan *plan, struct tv_error *err)
{
    for (unsigned i = 0; i < elf->n; i++) {
        const struct elf_segment *s = &elf->segments[i];
        if (s->offset > source->size_bytes || s->file_bytes > source->size_bytes - s->offset)
            return tv_error_set(err, -EINVAL,
                                "%s: is cut short: the segment at 0x%" PRIx64 " ends after the file's %" PRIu64
                                " bytes; copy it again",
                                source->name, s->paddr, source->size_bytes);
        if (s->type != PT_LOAD || s->mem_bytes == 0)
            continue;
        if (s->file_bytes > s->mem_bytes || s->mem_bytes - 1 > UINT64_MAX - s->paddr)
            return tv_error_set(err, -EINVAL, "%s: segment at 0x%" PRIx64 ": its sizes make no sense; the file is damaged",
                                source->name, s->paddr);
        plan->segments[plan->n_segments++] = (struct kernel_segment){
            .addr = s->paddr, .mem_bytes = s->mem_bytes, .file_offset = s->offset, .file_bytes = s->file_bytes};
    }
    return 0;
}

static bool is_in_segment(const struct kernel_plan *plan, uint64_t addr)
{
    for (unsigned i = 0; i < plan->n_segments; i++)
        if (addr >= plan->segments[i].addr && addr - plan->segments[i].addr < plan->segments[i].mem_bytes)
            return true;
    return false;
}

// 1: there is an entry for PVH. Notes are "System V ABI", chapter 5, with 4 bytes of alignment.
static int find_pvh(const struct kernel_source *source, const struct elf *elf, struct pc_plan *plan, struct tv_error *err)
{
    uint8_t notes[NOTES_MAX_BYTES];
    for (unsigned i = 0; i < elf->n; i++) {
        const struct elf_segment *s = &elf->segments[i];
        if (s->type != PT_NOTE || s->file_bytes > sizeof(notes))
            continue;
        int rc = kernel_source_read(source, s->offset, notes, s->file_bytes, err);
        if (rc < 0)
            return rc;
        for (uint64_t at = 0; at + 12 <= s->file_bytes;) {
            uint64_t name_bytes = kernel_le32(notes + at), desc_bytes = kernel_le32(notes + at + 4);
            uint64_t name = at + 12, desc = name + ((name_bytes + 3) & ~3ull), next = desc + ((desc_bytes + 3) & ~3ull);
            if (next > s->file_bytes)
                break;
            if (kernel_le32(notes + at + 8) == XEN_ELFNOTE_PHYS32_ENTRY && name_bytes == 4 && memcmp(notes + name, "Xen", 4) == 0 &&
                desc_bytes >= 4) {
                plan->protocol = PC_PVH;
                plan->kernel.entry = kernel_le32(notes + desc);
                return 1;
            }
            at = next;
        }
    }
    return 0;
}

// The header gives addresses of its own: the file is one segment, as it stands ("Multiboot Specification" 0.6.96, 3.1.3).
static int take_addresses(const struct kernel_source *source, const uint8_t *header, uint64_t offset, struct kernel_plan *plan,
                          struct tv_error *err)
{
    uint64_t header_addr = kernel_le32(header + 12), load = kernel_le32(header + 16), load_end = kernel_le32(header + 20);
    uint64_t bss_end = kernel_le32(header + 24);
    uint64_t before = header_addr - load; // from the start of what is loaded to the header
    if (header_addr < load || before > offset || (load_end && load_end < load) || (bss_end && bss_end < load_end))
        return tv_error_set(err, -EINVAL, "%s: the addresses in its multiboot header make no sense", source->name);
    uint64_t from = offset - before, file_bytes = load_end ? load_end - load : source->size_bytes - from;
    if (file_bytes > source->size_bytes - from)
        return tv_error_set(err, -EINVAL, "%s: is cut short, its multiboot header names more; copy it again", source->name);
    plan->n_segments = 1;
    plan->segments[0] = (struct kernel_segment){.addr = load,
                                                .file_offset = from,
                                                .file_bytes = file_bytes,
                                                .mem_bytes = bss_end && bss_end - load > file_bytes ? bss_end - load : file_bytes};
    plan->entry = kernel_le32(header + 28);
    return 1;
}

// 1: it is a multiboot kernel.
static int find_multiboot(const struct kernel_source *source, const struct elf *elf, struct pc_plan *plan, struct tv_error *err)
{
    uint8_t head[MULTIBOOT_SEARCH_BYTES] = {0};
    uint64_t len_bytes = source->size_bytes < sizeof(head) ? source->size_bytes : sizeof(head);
    int rc = kernel_source_read(source, 0, head, len_bytes, err);
    if (rc < 0)
        return rc;
    for (uint64_t at = 0; at + MULTIBOOT_HEADER_BYTES <= sizeof(head) && at + 12 <= len_bytes; at += 4) {
        uint32_t flags = kernel_le32(head + at + 4);
        if (kernel_le32(head + at) != MULTIBOOT_MAGIC || MULTIBOOT_MAGIC + flags + kernel_le32(head + at + 8) != 0)
            continue;
        if (flags & MULTIBOOT_REQUIRED & ~MULTIBOOT_KNOWN)
            return tv_error_set(err, -ENOEXEC, "%s: its multiboot header asks for what there is not (flags 0x%x)", source->name,
                                flags);
        plan->protocol = PC_MULTIBOOT;
        if (flags & MULTIBOOT_ADDRESSES)
            return take_addresses(source, head + at, at, &plan->kernel, err);
        plan->kernel.entry = elf->entry;
        return 1;
    }
    return 0;
}

int pc_decode_elf(const struct kernel_source *source, struct pc_plan *plan, struct tv_error *err)
{
    uint8_t ident[EI_NIDENT];
    struct elf elf = {0};
    if (source->size_bytes < sizeof(ident))
        return 0;
    int rc = kernel_source_read(source, 0, ident, sizeof(ident), err);
    if (rc < 0 || memcmp(ident, ELFMAG, SELFMAG) != 0)
        return rc;
    rc = ident[EI_CLASS] == ELFCLASS64 ? read_elf64(source, &elf, err) : read_elf32(source, &elf, err);
    if (rc == 0)
        rc = take_segments(source, &elf, &plan->kernel, err);
    if (rc == 0)
        rc = find_pvh(source, &elf, plan, err);
    if (rc == 0)
        rc = find_multiboot(source, &elf, plan, err);
    if (rc == 0)
        return tv_error_set(err, -ENOEXEC,
                            "%s: is an ELF file that says neither where it is entered by PVH nor has it a multiboot header; give a "
                            "bzImage, or build it with CONFIG_PVH",
                            source->name);
    if (rc == 1 && !is_in_segment(&plan->kernel, plan->kernel.entry))
        return tv_error_set(err, -EINVAL, "%s: its entry 0x%" PRIx64 " lies in none of its segments", source->name,
                            plan->kernel.entry);
    return rc;
}
