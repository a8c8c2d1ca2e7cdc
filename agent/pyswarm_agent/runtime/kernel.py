"""System calls that Python 3.11 has no function for. Every one raises OSError as os's own functions do."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sys
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_FS = 0x200
MS_BIND = 0x1000
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# openat2 is 437 on every architecture (unified since Linux 5.1).
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10

# Of linux/fs.h: _IOR and _IOW('f', 1 and 2, long).
_FS_IOC_GETFLAGS = 2 << 30 | ctypes.sizeof(ctypes.c_long) << 16 | ord("f") << 8 | 1
_FS_IOC_SETFLAGS = 1 << 30 | ctypes.sizeof(ctypes.c_long) << 16 | ord("f") << 8 | 2
_FS_TOPDIR_FL = 0x20000


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
    return result


def open_in_root(root_fd: int, path: str, flags: int) -> int:
    """Opens `path` as a process would whose root directory is `root_fd`: neither `..` nor a symbolic link leads out."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    return _checked(
        int(_libc.syscall(_SYS_OPENAT2, root_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))), path
    )


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    """mount(2). `data` must be shorter than a page."""
    _checked(
        _libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(data)),
        target,
    )


def unmount(target: str, flags: int = 0) -> None:
    _checked(_libc.umount2(os.fsencode(target), flags), target)


def scatter(folder: Path) -> None:
    """Lets ext4 put each new folder in this one into a place of its own (`chattr +T`). Otherwise all tasks share a few
    block groups, and there a new file looks past every one that was deleted in the last five minutes: after some
    hundred tasks, a start that makes 20 files takes 15 ms longer. Other file systems do not need it, nor know it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = bytearray(8)
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
        wanted = int.from_bytes(flags[:4], sys.byteorder) | _FS_TOPDIR_FL
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, wanted.to_bytes(4, sys.byteorder) + bytes(4))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EPERM):
            raise
    finally:
        os.close(fd)


def unshare(flags: int) -> None:
    """For the calling thread."""
    _checked(_libc.unshare(flags), "unshare")
