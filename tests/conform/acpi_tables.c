// Writes the ACPI tables of an x86-64 board into files, for acpi.py: acpi_tables FOLDER VCPUS.
#include "machine/board/board.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM_BYTES (2u << 20)
#define HEADER_BYTES 36u

static void failed(const char *what)
{
    fprintf(stderr, "acpi_tables: %s\n", what);
    exit(1);
}

static int no_msi(void *arg, uint64_t addr, uint32_t data)
{
    (void)arg, (void)addr, (void)data;
    return 0;
}

static uint64_t number(const uint8_t *at, unsigned n_bytes)
{
    uint64_t value = 0;
    memcpy(&value, at, n_bytes);
    return value;
}

static const uint8_t *write_table(const struct guest_memory *mem, uint64_t addr, const char *folder)
{
    char path[4096];
    const uint8_t *table = guest_memory_view(mem, addr, HEADER_BYTES);
    size_t len_bytes = table ? number(table + 4, 4) : 0;
    if (!table || !guest_memory_view(mem, addr, len_bytes))
        failed("a table lies nowhere");
    snprintf(path, sizeof(path), "%s/%.4s.dat", folder, (const char *)table);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(table, 1, len_bytes, f) != len_bytes || fclose(f) != 0)
        failed(path);
    return table;
}

int main(int argc, char **argv)
{
    struct guest_memory mem;
    if (argc != 3)
        failed("call it: acpi_tables FOLDER VCPUS");
    struct loop *loop = loop_create(NULL);
    guest_memory_init(&mem);
    if (!loop || guest_memory_add(&mem, 0, RAM_BYTES, guest_ram_create("ram", RAM_BYTES, NULL), 0, 0, NULL) != 0)
        failed("no memory");
    const struct board_config config = {
        .loop = loop, .mem = &mem, .n_vcpus = (unsigned)atoi(argv[2]), .arch = ENGINE_X86_64, .raise_msi = no_msi};
    struct board *board = board_create(&config, NULL);
    if (!board || board_put_firmware(board, NULL) != 0)
        failed("no board");
    const uint8_t *rsdp = guest_memory_view(&mem, PC_TABLES_BASE, HEADER_BYTES);
    const uint8_t *xsdt = write_table(&mem, number(rsdp + 24, 8), argv[1]);
    for (size_t at = HEADER_BYTES; at < number(xsdt + 4, 4); at += 8) {
        const uint8_t *table = write_table(&mem, number(xsdt + at, 8), argv[1]);
        if (memcmp(table, "FACP", 4) == 0)
            write_table(&mem, number(table + 140, 8), argv[1]); // the DSDT
    }
    board_destroy(board);
    guest_memory_fini(&mem);
    loop_destroy(loop);
    return 0;
}
