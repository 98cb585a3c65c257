#!/usr/bin/env python3
"""The ACPI tables of an x86-64 machine as ACPICA's compiler reads them: they are taken apart without a warning and put together again to
the same, and every sum is right. acpi.py ACPI_TABLES"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

CREATOR = slice(28, 36)  # of a table's header, and the sum at 9: the compiler puts its own there (ACPI 6.4, 5.2.6)


def fail(what):
    print("failed:", what)
    sys.exit(1)


def iasl(folder, *words):
    done = subprocess.run(["iasl", *words], cwd=folder, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    if done.returncode != 0 or re.search(r"^(Warning|Error|Remark|ACPI (BIOS )?(Warning|Error))", text, re.M) or "checksum" in text.lower():
        fail(f"iasl {' '.join(words)}: {text}")
    return text


def without_creator(table):
    table = bytearray(table)
    table[CREATOR] = bytes(8)
    table[9] = 0
    return table


def check(program, cpus):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, folder, str(cpus)], check=True)
        names = sorted(os.listdir(folder))
        if names != ["APIC.dat", "DSDT.dat", "FACP.dat", "MCFG.dat", "XSDT.dat"]:
            fail(f"the tables are {names}")
        for name in names:
            with open(f"{folder}/{name}", "rb") as f:
                before = f.read()
            if sum(before) & 0xff:
                fail(f"{name}: its sum is 0x{sum(before) & 0xff:x}")
            source = name.replace(".dat", ".dsl")
            iasl(folder, "-d", name)
            text = iasl(folder, "-oa", source)  # nothing put shorter
            if not re.search(r"0 Errors, 0 Warnings, 0 Remarks", text):
                fail(f"{name}: {text}")
            with open(f"{folder}/{name.replace('.dat', '.aml')}", "rb") as f:
                after = f.read()
            if name == "DSDT.dat":  # package lengths take fewer bytes there, so it is what is made of the result again that must be the same
                with open(f"{folder}/{source}", encoding="utf-8") as f:
                    meaning = re.sub(r"/\*.*?\*/", "", f.read(), count=1, flags=re.S)
                shutil.copy(f"{folder}/DSDT.aml", f"{folder}/again.dat")
                iasl(folder, "-d", "again.dat")
                with open(f"{folder}/again.dsl", encoding="utf-8") as f:
                    again = re.sub(r"/\*.*?\*/", "", f.read(), count=1, flags=re.S)
                if meaning != again:
                    fail(f"the DSDT is not what it was:\n{meaning}\n{again}")
            elif without_creator(before) != without_creator(after):
                fail(f"{name} is not what it was:\n{before.hex()}\n{after.hex()}")
    print(f"ok: the tables of {cpus} vcpus")


if not shutil.which("iasl"):
    print("skipped: no iasl; install acpica-tools")
    sys.exit(77)
for n in (1, 64):
    check(sys.argv[1], n)
