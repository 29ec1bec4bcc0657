"""What the kernel itself forbids the process in which somebody's code runs: Landlock, in Linux since 5.13.

An audit hook sees what Python does, but not what native code does (`torch.save` opens its file in C++), and code that
means harm can change Python's own functions under it. Landlock holds for every system call of a process and of all
that it starts, needs no rights, and cannot be taken back. `restrict` forbids, as far as this kernel's Landlock goes:

    ABI 1   making, writing, removing and renaming files outside of a folder; starting any program
    ABI 2   renames between two folders are allowed again inside of it
    ABI 3   cutting files short
    ABI 4   TCP: listening and connecting
    ABI 5   settings of devices (ioctl)
    ABI 6   signals to other processes, and their sockets with abstract names

Reading stays allowed, except in the folders of other processes in /proc, which hold the caller's environment variables.
Landlock does not restrict UDP, nor changes of a file's mode, owner, times and attributes.

The numbers are those of <linux/landlock.h> and of https://docs.kernel.org/userspace-api/landlock.html.
"""

import contextlib
import ctypes
import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

CREATE, ADD, RESTRICT = 444, 445, 446  # system calls, of one number on every architecture that PyTorch runs on
VERSION, BENEATH = 1, 1  # "which ABI is there?"; a rule about what lies beneath a folder
NO_NEW_PRIVS, DEATH_SIGNAL, SUBREAPER = 38, 1, 36  # of prctl

EXECUTE, WRITE, READ, LIST, REMOVE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5  # REMOVE: of files
DEVICE, FILE, DISK, TRUNCATE, IOCTL = 1 << 6, 1 << 8, 1 << 10, 1 << 14, 1 << 15  # the first three: to make one
RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}  # ABI → all that it knows of files
OF_A_FILE = EXECUTE | WRITE | READ | TRUNCATE | IOCTL  # what a rule about a file, not a folder, may name
TCP, SCOPES = 0b11, 0b11  # listen and connect; abstract sockets and signals


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """A system call's result, -1 where it fails or where this is no Linux."""
    libc = _libc()
    if libc is None:
        return -1
    typed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return libc.syscall(ctypes.c_long(number), *typed)


def abi(syscall: Callable[..., int] = _syscall) -> int:
    """Which Landlock this kernel has; 0 for none."""
    return max(0, syscall(CREATE, None, 0, VERSION))


def forbidden(version: int) -> tuple[int, int, int]:
    """(of files, of the network, of other processes): what a kernel with this ABI is asked to forbid, as bits."""
    known = next((bits for least, bits in reversed(RIGHTS.items()) if version >= least), 0)
    return known, TCP if version >= 4 else 0, SCOPES if version >= 6 else 0


def restrict(folder: Path, syscall: Callable[..., int] = _syscall) -> bool:
    """Let this thread, and all that it starts, write beneath `folder` only; returns whether the kernel does so.

    /dev/null, and /dev/shm for memory that processes share, can be written as well. All files can be read but those in
    /proc/PID of other processes. It cannot be undone. If a needed rule cannot be made, nothing is restricted.
    """
    files, network, processes = forbidden(abi(syscall))
    if not files:
        return False
    ruleset = syscall(CREATE, struct.pack("=QQQ", files, network, processes), 24, 0)
    if ruleset < 0:
        return False

    def allow(place: str, rights: int) -> bool:
        with contextlib.suppress(OSError):  # it is not there
            handle = os.open(place, os.O_PATH | os.O_CLOEXEC)
            try:
                rights &= files if os.path.isdir(place) else files & OF_A_FILE
                return not syscall(ADD, ruleset, BENEATH, struct.pack("=Qi", rights, handle), 0)
            finally:
                os.close(handle)
        return False

    try:
        tops = [f"/{name}" for name in os.listdir("/") if name != "proc"]
        own = [f"/proc/{name}" for name in os.listdir("/proc") if not name.isdecimal()]  # "self" among them
        allow("/", LIST)
        for place in (*tops, *own):
            if not allow(place, READ | LIST) and place in tops and os.path.isdir(place):
                return False
        allow(os.devnull, READ | WRITE | TRUNCATE | IOCTL)
        allow("/dev/shm", READ | LIST | WRITE | TRUNCATE | FILE | REMOVE)
        if not allow(str(folder), ~(EXECUTE | DEVICE | DISK | IOCTL)):
            return False
        return not _prctl(NO_NEW_PRIVS, 1) and not syscall(RESTRICT, ruleset, 0)
    except OSError:
        return False
    finally:
        os.close(ruleset)


def die_with_the_parent():
    """Let the kernel end this process when the one that started it ends, if it can."""
    _prctl(DEATH_SIGNAL, getattr(signal, "SIGKILL", 9))


def adopt_orphans():
    """Become the parent of what this process's children leave behind, if the kernel can, so that it can be ended."""
    _prctl(SUBREAPER, 1)


def _prctl(option: int, value: int) -> int:
    libc = _libc()
    return libc.prctl(option, *(ctypes.c_ulong(n) for n in (value, 0, 0, 0))) if libc else -1
