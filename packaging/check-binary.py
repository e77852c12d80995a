#!/usr/bin/env python3
"""check-binary.py TARGET FILE   fails unless FILE is a stripped executable for TARGET, and on Linux a static one.

Reads the file itself, because `file` and `readelf` are not on every machine that builds. Prints the size.
"""
import pathlib
import struct
import sys

MACHINES = {"x86_64": 62, "aarch64": 183}
PT_DYNAMIC_LINKER = 3
SHT_SYMTAB = 2
SHT_DYNAMIC = 6
DT_NEEDED = 1


def elf(target, data):
    if data[:6] != b"\x7fELF\x02\x01":
        yield "is no 64-bit little-endian ELF file"
        return
    machine = struct.unpack_from("<H", data, 18)[0]
    if machine != MACHINES[target.split("-")[0]]:
        yield f"has the machine {machine}"
    segments_at, sections_at = struct.unpack_from("<QQ", data, 32)
    segment_size, segments, section_size, sections = struct.unpack_from("<HHHH", data, 54)
    for number in range(segments):
        kind = struct.unpack_from("<I", data, segments_at + number * segment_size)[0]
        if kind == PT_DYNAMIC_LINKER:
            yield "is not static: it names a dynamic linker"
    for number in range(sections):
        at = sections_at + number * section_size
        kind = struct.unpack_from("<I", data, at + 4)[0]
        if kind == SHT_SYMTAB:
            yield "is not stripped: it has a symbol table"
        if kind == SHT_DYNAMIC:
            start, length = struct.unpack_from("<QQ", data, at + 24)
            for entry in range(start, start + length, 16):
                tag = struct.unpack_from("<Q", data, entry)[0]
                if tag == DT_NEEDED:
                    yield "is not static: it needs a shared library"
                    break


def mach_o(target, data):
    cpus = {"x86_64": 0x01000007, "aarch64": 0x0100000C}
    magic, cpu = struct.unpack_from("<II", data)
    if magic != 0xFEEDFACF:
        yield "is no 64-bit Mach-O file"
    elif cpu != cpus[target.split("-")[0]]:
        yield f"has the CPU type {cpu:#x}"


def main():
    target, path = sys.argv[1:]
    data = pathlib.Path(path).read_bytes()
    check = mach_o if target.endswith("-darwin") else elf
    faults = list(check(target, data))
    if faults:
        sys.exit("\n".join(f"error: {path} {fault}" for fault in faults))
    kind = "stripped" if check is mach_o else "static, stripped"
    print(f"{target}: {kind}, {len(data) / 1e6:.1f} MB")


main()
