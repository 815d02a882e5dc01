# SPDX-License-Identifier: GPL-2.0-or-later
"""The symbol table that volatility3 wants for a Linux kernel (ISF), made of its debug symbols.

    python examples/volatility_symbols.py VMLINUX FILE.json.xz

What dwarf2json does, for the types that can be reached from those that volatility's plugins for
Linux ask for: drgn reads the types, pyelftools the symbols. Put the file into a folder
`symbols/linux` and name `symbols` by `vol -s`.
"""

from __future__ import annotations

import base64
import json
import lzma
import sys
from typing import Any

from drgn import Program, Type, TypeKind
from elftools.elf.elffile import ELFFile

ROOTS = (
    "task_struct", "module", "vm_area_struct", "mount", "dentry", "file", "super_block",
    "inode", "vfsmount", "socket", "sock", "inet_sock", "unix_sock", "netlink_sock",
    "packet_sock", "vsock_sock", "net_device", "kobject", "pid", "pid_namespace",
    "uts_namespace", "new_utsname", "latch_tree_root", "elf64_sym", "elf64_hdr", "elf64_phdr",
    "bpf_prog", "fdtable", "files_struct", "fs_struct", "qstr", "tty_struct", "tty_driver",
    "idr", "maple_tree", "maple_node", "radix_tree_root", "xarray", "page", "inet6_dev",
    "inet6_ifaddr", "in_device", "in_ifaddr", "net", "cred", "bpf_map", "kernel_param",
    "kparam_array", "module_kobject", "module_attribute", "module_sect_attrs", "timekeeper",
    "printk_ringbuffer", "printk_info", "prb_desc", "rb_root", "hlist_head",
)  # fmt: skip
"""Where there is one of that name."""
VARIABLES = (
    "init_task", "init_pid_ns", "init_mm", "init_uts_ns", "init_files", "modules", "mod_tree",
    "module_kset", "super_blocks", "tk_core", "taint_flags", "prb", "printk_rb_static",
    "idt_table", "net_namespace_list", "tty_drivers", "prog_idr", "iomem_resource",
    "ftrace_ops_list", "init_net", "socket_file_ops", "sockfs_dentry_operations",
)  # fmt: skip
"""Symbols that plugins read by their own type."""
BANNER = "linux_banner"


class Types:
    """Descriptions of types, and of all that they have in them."""

    def __init__(self) -> None:
        self.base: dict[str, Any] = {
            "pointer": {"kind": "int", "size": 8, "signed": False, "endian": "little"},
            "void": {"kind": "void", "size": 0, "signed": False, "endian": "little"},
        }
        self.user: dict[str, Any] = {}
        self.enums: dict[str, Any] = {}
        self._known: set[str] = set()
        """Structures of which the fields are known, or are in `_left`."""
        self._left: list[Type] = []

    def add(self, root: Type) -> None:
        """A structure, and those that its fields lead to."""
        self.describe(root)
        while self._left:
            self._fill(self._left.pop())

    def describe(self, one: Type) -> dict[str, Any]:
        """How a field or a symbol says its type."""
        while one.kind == TypeKind.TYPEDEF:
            one = one.type
        if one.kind == TypeKind.POINTER:
            return {"kind": "pointer", "subtype": self.describe(one.type)}
        if one.kind == TypeKind.ARRAY:
            return {
                "kind": "array",
                "count": one.length or 0,
                "subtype": self.describe(one.type),
            }
        if one.kind == TypeKind.FUNCTION:
            return {"kind": "function"}
        if one.kind in (TypeKind.STRUCT, TypeKind.UNION, TypeKind.CLASS):
            return self._structure(one)
        if one.kind == TypeKind.ENUM:
            return self._enum(one)
        return self._base(one)

    def _base(self, one: Type) -> dict[str, Any]:
        name = "void" if one.kind == TypeKind.VOID else one.name
        if name not in self.base:
            kinds = {TypeKind.BOOL: "bool", TypeKind.FLOAT: "float"}
            kind = "char" if name.endswith("char") else kinds.get(one.kind, "int")
            signed = getattr(one, "is_signed", False) if one.kind == TypeKind.INT else False
            self.base[name] = {
                "kind": kind, "size": one.size, "signed": signed, "endian": "little",
            }  # fmt: skip
        return {"kind": "base", "name": name}

    def _structure(self, one: Type) -> dict[str, Any]:
        kind = "union" if one.kind == TypeKind.UNION else "struct"
        # Those without a name are told apart by what is in them.
        name = one.tag or f"unnamed_{hash(str(one)) & 0xFFFFFFFFFFFF:x}"
        self.user.setdefault(name, {"kind": kind, "size": 0, "fields": {}})
        if one.is_complete() and name not in self._known:
            self._known.add(name)
            self.user[name]["size"] = one.size
            self._left.append(one)
        return {"kind": kind, "name": name}

    def _fill(self, one: Type) -> None:
        name = self._structure(one)["name"]
        fields = self.user[name]["fields"]
        for number, member in enumerate(one.members):
            told = self.describe(member.type)
            if member.bit_field_size is not None:
                size = member.type.size if hasattr(member.type, "size") else 4
                start = member.bit_offset // (8 * size) * (8 * size)
                told = {
                    "kind": "bitfield",
                    "bit_length": member.bit_field_size,
                    "bit_position": member.bit_offset - start,
                    "type": told,
                }
                offset = start // 8
            else:
                offset = member.bit_offset // 8
            field = {"type": told, "offset": offset}
            if member.name is None:
                field["anonymous"] = True
            fields[member.name or f"unnamed_field_{number}"] = field

    def _enum(self, one: Type) -> dict[str, Any]:
        if one.tag is None and not one.is_complete():
            return self._base(one.type)
        constants = {each.name: each.value for each in one.enumerators or ()}
        name = one.tag or f"unnamed_enum_{next(iter(constants), 'none')}"
        if name not in self.enums:
            base = self._base(one.type)["name"] if one.is_complete() else "int"
            size = one.type.size if one.is_complete() else 4
            self.enums[name] = {"size": size, "base": base, "constants": constants}
        return {"kind": "enum", "name": name}


def symbols_of(elf: ELFFile, types: Types, program: Program) -> dict[str, Any]:
    """Addresses of all symbols, types of some, and the banner by which the file is found."""
    found: dict[str, Any] = {}
    for symbol in elf.get_section_by_name(".symtab").iter_symbols():
        if symbol.name and symbol["st_shndx"] != "SHN_UNDEF":
            found.setdefault(symbol.name, {"address": symbol["st_value"]})
            if symbol.name == BANNER:
                section = elf.get_section(symbol["st_shndx"])
                at = symbol["st_value"] - section["sh_addr"]
                data = section.data()[at : at + symbol["st_size"]]
                found[BANNER]["constant_data"] = base64.b64encode(data).decode()
    for name in VARIABLES:
        try:
            one = program.variable(name).type_
        except LookupError:  # another kernel's
            continue
        found[name]["type"] = types.describe(one)
        types.add(one)
    return found


def main(vmlinux: str, target: str) -> None:
    """Read, describe, write."""
    program = Program()
    program.extra_module(vmlinux, create=True).try_file(vmlinux, force=True)
    types = Types()
    for root in ROOTS:
        try:
            types.add(program.type(f"struct {root}"))
        except LookupError:
            continue
    with open(vmlinux, "rb") as file:
        symbols = symbols_of(ELFFile(file), types, program)
    table = {
        "metadata": {"format": "6.2.0", "producer": {"name": "livedumpfs", "version": "1"}},
        "base_types": types.base,
        "user_types": types.user,
        "enums": types.enums,
        "symbols": symbols,
    }
    with lzma.open(target, "wt", preset=1) as out:
        json.dump(table, out)
    print(f"{len(types.user)} structures, {len(types.enums)} enums, {len(symbols)} symbols")


if __name__ == "__main__":
    main(*sys.argv[1:])
