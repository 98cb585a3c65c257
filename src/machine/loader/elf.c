// ELF64 kernels ("System V ABI", chapters 4 and 5; "RISC-V ELF psABI"). Segments go to their physical addresses. A file of type
// ET_DYN that is linked below RAM can run anywhere (vmlinux is linked at 0): it is moved to the usual place of a kernel.
#include "machine/loader/kernel.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>

#define ELF_PLACE 0x200000ull // where a movable kernel goes: 2 MiB, as an Image would

#ifndef EM_RISCV
#define EM_RISCV 243
#endif

static const char *elf_machine_name(unsigned machine)
{
    switch (machine) {
    case EM_386:
        return "i386";
    case EM_ARM:
        return "arm";
    case EM_X86_64:
        return "x86-64";
    case EM_AARCH64:
        return "arm64";
    case EM_PPC64:
        return "ppc64";
    case EM_S390:
        return "s390x";
    default:
        return "another machine";
    }
}

static int elf_check_header(const struct kernel_source *source, const Elf64_Ehdr *header, struct tv_error *err)
{
    unsigned machine = le16toh(header->e_machine), type = le16toh(header->e_type);
    if (machine != EM_RISCV)
        return tv_error_set(err, -ENOEXEC, "%s: is an ELF file for %s (%u); give a riscv64 kernel", source->name,
                            elf_machine_name(machine), machine);
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB)
        return tv_error_set(err, -ENOEXEC, "%s: is not a 64-bit little-endian ELF file; give a riscv64 kernel", source->name);
    if (type != ET_EXEC && type != ET_DYN)
        return tv_error_set(err, -ENOEXEC, "%s: is an ELF file of type %u, not an executable; link it first", source->name, type);
    unsigned n = le16toh(header->e_phnum);
    if (n == 0 || n > KERNEL_SEGMENTS_MAX || le16toh(header->e_phentsize) != sizeof(Elf64_Phdr))
        return tv_error_set(err, -EINVAL, "%s: its ELF header names %u program headers of %u bytes; 1 to %u of %zu are expected",
                            source->name, n, le16toh(header->e_phentsize), KERNEL_SEGMENTS_MAX, sizeof(Elf64_Phdr));
    return 0;
}

// Takes one PT_LOAD into the plan. The entry is found on the way: it is a virtual address and lies in one of the segments.
static int elf_take_segment(const struct kernel_source *source, const Elf64_Phdr *ph, uint64_t entry, struct kernel_plan *plan,
                            bool *entry_found, struct tv_error *err)
{
    uint64_t offset = le64toh(ph->p_offset), file_bytes = le64toh(ph->p_filesz), mem_bytes = le64toh(ph->p_memsz);
    uint64_t vaddr = le64toh(ph->p_vaddr), paddr = le64toh(ph->p_paddr);
    if (mem_bytes == 0)
        return 0;
    if (file_bytes > mem_bytes || mem_bytes - 1 > UINT64_MAX - paddr)
        return tv_error_set(err, -EINVAL, "%s: segment at 0x%" PRIx64 ": its sizes make no sense; the file is damaged",
                            source->name, paddr);
    if (offset > source->size_bytes || file_bytes > source->size_bytes - offset)
        return tv_error_set(err, -EINVAL,
                            "%s: is cut short: the segment at 0x%" PRIx64 " ends after the file's %" PRIu64 " bytes; copy it again",
                            source->name, paddr, source->size_bytes);
    if (!*entry_found && entry >= vaddr && entry - vaddr < mem_bytes) {
        plan->entry = paddr + (entry - vaddr);
        *entry_found = true;
    }
    plan->segments[plan->n_segments++] =
        (struct kernel_segment){.addr = paddr, .mem_bytes = mem_bytes, .file_offset = offset, .file_bytes = file_bytes};
    return 0;
}

static void elf_move(struct kernel_plan *plan, uint64_t ram_base)
{
    uint64_t lowest = UINT64_MAX;
    for (unsigned i = 0; i < plan->n_segments; i++)
        lowest = plan->segments[i].addr < lowest ? plan->segments[i].addr : lowest;
    if (lowest >= ram_base)
        return;
    // Wraps only where the check against RAM refuses it anyway.
    uint64_t by = ram_base + ELF_PLACE - (lowest & ~(ELF_PLACE - 1));
    for (unsigned i = 0; i < plan->n_segments; i++)
        plan->segments[i].addr += by;
    plan->entry += by;
}

int kernel_decode_elf(const struct kernel_source *source, uint64_t ram_base, struct kernel_plan *plan, struct tv_error *err)
{
    Elf64_Ehdr header;
    Elf64_Phdr ph;
    bool entry_found = false;
    uint8_t magic[SELFMAG];
    if (source->size_bytes < sizeof(magic))
        return 0;
    int rc = kernel_source_read(source, 0, magic, sizeof(magic), err);
    if (rc < 0)
        return rc;
    if (memcmp(magic, ELFMAG, SELFMAG) != 0)
        return 0;
    rc = kernel_source_read(source, 0, &header, sizeof(header), err);
    if (rc == 0)
        rc = elf_check_header(source, &header, err);
    if (rc < 0)
        return rc;
    uint64_t table = le64toh(header.e_phoff);
    if (table > source->size_bytes)
        return tv_error_set(err, -EINVAL, "%s: is cut short: no program headers; copy it again", source->name);
    for (unsigned i = 0; i < le16toh(header.e_phnum); i++) {
        rc = kernel_source_read(source, table + i * sizeof(ph), &ph, sizeof(ph), err);
        if (rc == 0 && le32toh(ph.p_type) == PT_LOAD)
            rc = elf_take_segment(source, &ph, le64toh(header.e_entry), plan, &entry_found, err);
        if (rc < 0)
            return rc;
    }
    if (!entry_found)
        return tv_error_set(err, -EINVAL, "%s: its entry 0x%" PRIx64 " lies in none of its segments", source->name,
                            (uint64_t)le64toh(header.e_entry));
    if (le16toh(header.e_type) == ET_DYN)
        elf_move(plan, ram_base);
    return 1;
}
