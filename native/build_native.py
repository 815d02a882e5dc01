# SPDX-License-Identifier: GPL-2.0-or-later
"""cffi build script: the C core as livedumpfs._native, and as the shim, a shared object for other
processes.

Run it to build both in place.
"""

from __future__ import annotations

import os
from pathlib import Path

from cffi import FFI
from setuptools import Distribution, Extension

TOP = Path(__file__).resolve().parent.parent


def sources(*rooms: str) -> list[str]:
    """The C files of these folders of native/."""
    folders = (TOP / "native" / room for room in rooms)
    return sorted(p.relative_to(TOP).as_posix() for f in folders for p in f.glob("*.c"))


# The core without the parts that run a machine and serve a mount: it needs neither Python nor
# Unicorn.
CORE = sources("base", "memory", "target", "state", "fault", "saving", "life")
SERVING = sources("serving")
SOURCES = [*CORE, *SERVING, *sources("vcpu", "board")]


def interface(header: str) -> str:
    """The part of a header between its cffi marks."""
    text = (TOP / "native" / header).read_text()
    begin, end = "/* cffi: begin */", "/* cffi: end */"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"native/{header} must have each cffi mark once")
    marked = text[text.index(begin) + len(begin) : text.index(end)]
    # cdef() accepts no string macros. Python has its own copy of the magic; a test compares the
    # two.
    return "\n".join(line for line in marked.splitlines() if "_MAGIC " not in line)


HEADERS = ("ldfs.h", "board/board.h", "life/reference.h", "serving/serving.h", "shim/shim.h")
"""What Python sees of the core: the public interface, tests' reference, reads of the mount, the
shim's messages."""
SHIM = "livedumpfs._shim"
SHIM_SOURCES = [*CORE, *sources("shim")]
CODECS = ["z", "zstd", "lzo2", "snappy"]
STATIC_CODECS = bool(os.environ.get("LDFS_STATIC_CODECS"))
"""For wheels: the codecs inside, without names that others see. The shim's names come before those
of QEMU's own libraries, which would otherwise be given codecs of another version."""

# For a machine whose quiesce and resume are Python functions; see livedumpfs/core/capi.py.
CALLBACKS = """
extern "Python" int livedumpfs_quiesce(void *, uint64_t);
extern "Python" void livedumpfs_resume(void *);
"""

COMPILE_ARGS = [
    "-std=gnu11",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    # For the code that cffi and Python's headers generate.
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
    *os.environ.get("LDFS_CFLAGS", "").split(),
]
LINK_ARGS = ["-pthread", *os.environ.get("LDFS_LDFLAGS", "").split()]
LIBRARIES = ["dl", *CODECS]
if STATIC_CODECS:
    LIBRARIES = ["dl"]
    LINK_ARGS += [*(f"-l:lib{name}.a" for name in CODECS), "-Wl,--exclude-libs,ALL"]
    LINK_ARGS += ["-l:libstdc++.so.6"]  # of snappy

ffibuilder = FFI()
ffibuilder.cdef("".join(map(interface, HEADERS)) + CALLBACKS)
ffibuilder.set_source(
    "livedumpfs._native",
    "\n".join(f'#include "{header}"' for header in HEADERS),
    sources=SOURCES,
    include_dirs=["native"],
    extra_compile_args=COMPILE_ARGS,
    extra_link_args=LINK_ARGS,
    libraries=LIBRARIES,
)


def shim() -> Extension:
    """The shim, as setuptools builds it: a shared object, but no Python module."""
    return Extension(
        SHIM,
        SHIM_SOURCES,
        include_dirs=["native"],
        extra_compile_args=[*COMPILE_ARGS, "-fvisibility=hidden"],
        extra_link_args=LINK_ARGS,
        libraries=LIBRARIES,
    )


def build_shim() -> None:
    """Build it in place."""
    distribution = Distribution({"ext_modules": [shim()]})
    command = distribution.get_command_obj("build_ext")
    command.inplace = True
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    os.chdir(TOP)
    ffibuilder.compile(verbose=False)
    build_shim()
