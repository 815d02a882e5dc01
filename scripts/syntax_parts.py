# SPDX-License-Identifier: GPL-2.0-or-later
"""Parts of Python's syntax trees: what names are bound to, what a call gives to a parameter, and
the words that stand for values."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final

Function = ast.FunctionDef | ast.AsyncFunctionDef
Texts = tuple[str, ...]
"""The variants of one text."""
MOST: Final = 12
"""Variants of one text."""


def bindings(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    """Names and what they are bound to, also of `a, b = x, y`."""
    for node in nodes:
        if isinstance(node, ast.AnnAssign) and node.value and isinstance(node.target, ast.Name):
            yield node.target.id, node.value
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple):
                value = node.value
                parts = value.elts if isinstance(value, ast.Tuple) else [value] * len(target.elts)
                for one, part in zip(target.elts, parts, strict=False):
                    if isinstance(one, ast.Name):
                        yield one.id, part


def is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return is_text(node.body) and is_text(node.orelse)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and is_text(node.left) and is_text(node.right)
    text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return text or isinstance(node, ast.JoinedStr)


def parameters_of(scope: Function) -> list[str]:
    given = scope.args
    return [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def defaults_of(scope: Function) -> Iterator[tuple[str, ast.expr]]:
    given = scope.args
    plain = (*given.posonlyargs, *given.args)
    yield from zip(
        (a.arg for a in plain[len(plain) - len(given.defaults) :]), given.defaults, strict=True
    )
    for one, value in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        if value is not None:
            yield one.arg, value


def given_for(site: ast.Call, scope: Function, parameters: list[str], name: str) -> ast.expr | None:
    """The argument of a call for one parameter."""
    for keyword in site.keywords:
        if keyword.arg == name:
            return keyword.value
    bound = parameters[1:] if parameters[:1] in (["self"], ["cls"]) else parameters
    at = bound.index(name) if name in bound else len(site.args)
    if at < len(site.args) and not any(isinstance(one, ast.Starred) for one in site.args[: at + 1]):
        return site.args[at]
    return dict(defaults_of(scope)).get(name)


def argument_of(call: ast.Call, at: int, name: str) -> ast.expr | None:
    found = next((one.value for one in call.keywords if one.arg == name), None)
    return found or (call.args[at] if 0 <= at < len(call.args) else None)


def last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def placeholder(node: ast.expr) -> str:
    """What stands for a value: the last word of its expression, in capitals."""
    if isinstance(node, ast.Call) and last_name(node.func) in (
        "len",
        "str",
        "repr",
        "join",
        "int",
    ):
        return (
            "NUMBER"
            if last_name(node.func) in ("len", "int")
            else (placeholder(node.args[0]) if node.args else "VALUE")
        )
    if isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
        return placeholder(node)
    name = last_name(node).strip("_")
    known = {"error": "CAUSE", "os_cause": "CAUSE", "strerror": "CAUSE", "why": "CAUSE"}
    return known.get(name, re.sub(r"^format_", "", name).upper() or "VALUE")


def joined(parts: Iterable[Texts]) -> Texts:
    found = itertools.islice(itertools.product(*parts), MOST)
    return tuple(dict.fromkeys("".join(one) for one in found))


def plain_text(text: str) -> str:
    return " ".join(text.split())
