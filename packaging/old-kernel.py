#!/usr/bin/env python3
"""old-kernel.py PROGRAM ARGUMENT...   runs a program as on a Linux kernel that lacks every system call added since 3.5.

The kernel numbers new system calls upwards, so a filter (seccomp) answers all above the last old one with ENOSYS, as an
old kernel does. Children inherit it. It cannot hide newer flags and options of old calls.
"""
import ctypes
import os
import platform
import struct
import sys

# The audit architecture, and the number of kcmp, the first call that Linux 3.5 added.
MACHINES = {"x86_64": (0xC000003E, 312), "aarch64": (0xC00000B7, 272)}
ENOSYS = 38
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06


def program(architecture, first):
    def step(code, yes, no, value):
        return struct.pack("<HBBI", code, yes, no, value)

    return b"".join([
        step(LOAD, 0, 0, 4),                    # the architecture
        step(EQUAL, 0, 3, architecture),        # another one's numbers mean other calls
        step(LOAD, 0, 0, 0),                    # the number
        step(AT_LEAST, 0, 1, first),
        step(RETURN, 0, 0, ERRNO | ENOSYS),
        step(RETURN, 0, 0, ALLOW),
    ])


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


def main():
    steps = program(*MACHINES[platform.machine()])
    buffer = ctypes.create_string_buffer(steps)
    filters = Filter(len(steps) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filters), 0, 0)):
        if libc.prctl(*arguments) != 0:
            sys.exit(f"error: failed to install the filter: {os.strerror(ctypes.get_errno())}")
    # Proves that it works: the call for random bytes came with 3.17.
    try:
        os.getrandom(1)
        sys.exit("error: the filter does not work")
    except OSError as error:
        if error.errno != ENOSYS:
            raise
    os.execvp(sys.argv[1], sys.argv[1:])


main()
