# SPDX-License-Identifier: GPL-2.0-or-later
"""native/vcpu/unicorn_abi.h and guest/boot.h against the real thing."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from livedumpfs.machines import boot, ledger_block, ledger_pages

TOP = Path(__file__).resolve().parents[2]
ABI = TOP / "native" / "vcpu" / "unicorn_abi.h"


def compile_only(source: str, folder: Path, *includes: Path) -> None:
    path = folder / "check.c"
    path.write_text(source)
    command = ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-c", "-o", "/dev/null", path]
    command += [f"-I{include}" for include in includes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_numbers_and_prototypes_are_unicorns(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("unicorn")
    assert spec and spec.submodule_search_locations
    include = Path(spec.submodule_search_locations[0], "include")
    if not (include / "unicorn" / "unicorn.h").exists():
        pytest.skip("the unicorn package brings no headers")
    text = ABI.read_text()
    names = re.findall(r"^\tLDFS_(UC_\w+) =", text, re.MULTILINE)
    assert len(names) > 40
    checks = [
        f'_Static_assert((int)LDFS_{name} == (int){name}, "{name}");'
        for name in names
        if name != "UC_API_MAJOR"
    ]
    checks += ['_Static_assert(LDFS_UC_API_MAJOR == UC_API_MAJOR, "major");']
    checks += [
        f'_Static_assert(LDFS_UC_CTL_WRITE_1({c}) == (int)UC_CTL_WRITE({c}, 1), "{c}");'
        for c in ("UC_CTL_TLB_TYPE", "UC_CTL_TCG_BUFFER_SIZE")
    ]
    flush = "UC_CTL_TLB_FLUSH"
    checks += [
        f'_Static_assert(LDFS_UC_CTL_WRITE_0({flush}) == (int)UC_CTL_WRITE({flush}, 0), "flush");'
    ]
    # Enums and ints have the same ABI but are not the same type: compare through sizes.
    checks += [f'_Static_assert(sizeof({t}) == sizeof(int), "{t}");' for t in ("uc_err", "uc_arch")]
    checks += ['_Static_assert(sizeof(uc_hook) == sizeof(size_t), "uc_hook");']
    checks += [
        f"_Static_assert(__builtin_offsetof(struct ldfs_uc_tlb_entry, {f}) =="
        f' __builtin_offsetof(uc_tlb_entry, {f}), "{f}");'
        for f in ("paddr", "perms")
    ]
    # Argument counts and pointer types: calls as native/vcpu/ makes them.
    checks += [
        "void calls(uc_engine *uc, void *p, size_t *hook, const void *value, void *out);",
        "void calls(uc_engine *uc, void *p, size_t *hook, const void *value, void *out) {",
        "uint64_t a = 0; uint32_t perms = 7; size_t count = 0;",
        "uc_mem_map_ptr(uc, a, a, perms, p); uc_hook_add(uc, hook, 1, p, p, a, a);",
        "uc_reg_write(uc, 1, value); uc_reg_read(uc, 1, out);",
        "uc_emu_start(uc, a, a, a, count); uc_emu_stop(uc); }",
    ]
    headers = ("<unicorn/unicorn.h>", "<unicorn/x86.h>", '"unicorn_abi.h"')
    source = [f"#include {header}" for header in headers]
    compile_only("\n".join(source + checks) + "\n", tmp_path, include, ABI.parent)


def test_boot_and_ledger_layout_are_the_guests(tmp_path: Path) -> None:
    offsets = {
        "vcpu": 12,
        "ranges": 20,
        "ram_size": 24,
        "seed": 32,
        "dirty_share": 40,
        "burst": 44,
        "range": 56,
        "ledger": 120,
    }
    checks = [
        f'_Static_assert(__builtin_offsetof(struct boot_params, {n}) == {o}, "{n}");'
        for n, o in offsets.items()
    ]
    same = {
        "BOOT_PARAMS": boot.PARAMS,
        "BOOT_PARAMS_STRIDE": boot.STRIDE,
        "BOOT_STACK_TOP": boot.STACK_TOP,
        "BOOT_STACK_SIZE": boot.STACK_SIZE,
        "BOOT_END": boot.END,
        "BOOT_MAGIC": boot.MAGIC,
        "BOOT_VERSION": boot.VERSION,
        "BOOT_VCPUS_MAX": boot.VCPUS_MAX,
        "BOOT_RANGES": boot.RANGES_MAX,
        "BOOT_ALL_PAGES": boot.ALL_PAGES,
        "sizeof(struct boot_params)": boot.SIZE,
        "LEDGER_MAGIC": ledger_block.MAGIC,
        "LEDGER_TAG": ledger_pages.TAG,
        "LEDGER_ACCOUNTS": ledger_block.ACCOUNTS,
        "LEDGER_INITIAL": ledger_block.INITIAL,
        "LEDGER_HASH_PFN": ledger_pages.HASH_PFN,
        "LEDGER_HASH_K": ledger_pages.HASH_K,
        "__builtin_offsetof(struct ledger, journal)": 72,
        "sizeof(struct journal)": 88,
    }
    checks += [
        f'_Static_assert({name} == {value}UL, "number {i}");'
        for i, (name, value) in enumerate(same.items())
    ]
    compile_only('#include "ledger.h"\n' + "\n".join(checks) + "\n", tmp_path, TOP / "guest")


def test_boot_params_survive_packing() -> None:
    params = boot.BootParams(1, 2, 3 << 20, ((0, 1 << 20), (4 << 30, 2 << 20)), 7, 99, 5, 2, 0x5000)
    assert boot.BootParams.unpack(params.pack()) == params


def test_pace() -> None:
    assert boot.pace_of(0) == (0, 1)
    assert boot.pace_of(5000) == (5, 1)
    assert boot.pace_of(10) == (1, 100)
    with pytest.raises(ValueError, match="rate is -1"):
        boot.pace_of(-1)
    with pytest.raises(ValueError, match="share of memory"):
        boot.share_of(0)
