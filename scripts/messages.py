# SPDX-License-Identifier: GPL-2.0-or-later
"""Every error message of a Python package, read from its source: the sentences that are given to
the classes of errors, with what is put into them.

A sentence is a template: what differs from case to case is a word in capitals. What a helper
function puts around its arguments is followed to the calls of that function."""

from __future__ import annotations

import ast
import errno
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from syntax_parts import (
    MOST,
    Function,
    Texts,
    argument_of,
    bindings,
    defaults_of,
    given_for,
    is_text,
    joined,
    last_name,
    parameters_of,
    placeholder,
    plain_text,
)

ROOT_CLASS: Final = "LivedumpError"
USAGE: Final = "UsageError"
_PLAIN_USAGE: Final = ("ArgumentTypeError",)
"""Of argparse."""
_TEXT_FIRST: Final = {ROOT_CLASS, "InconsistentDump"}
"""Classes with an __init__ that takes the sentence."""
_DEEPEST: Final = 3
"""Calls of calls that are followed."""

Env = dict[str, "Texts"]


@dataclass(frozen=True, order=True)
class Message:
    """One sentence that can be said."""

    text: str
    hint: str
    kind: str
    """Name of the class."""
    file: str
    """Of the package, as "targets/check.py"."""


@dataclass
class Module:
    """One file."""

    name: str
    """As "livedumpfs.targets.check"."""
    file: str
    tree: ast.Module
    texts: dict[str, ast.expr] = field(default_factory=dict)
    """Names of the module that are bound once."""
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name -> module, name there."""


class Package:
    """The source of a package."""

    def __init__(self, top: Path) -> None:
        self.modules: dict[str, Module] = {}
        self.above: dict[ast.AST, ast.AST] = {}
        self.home: dict[ast.AST, Module] = {}
        self._bound_in: dict[Function, list[tuple[str, ast.expr]]] = {}
        for path in sorted(top.rglob("*.py")):
            parts = path.relative_to(top.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            module = Module(name, str(path.relative_to(top)), ast.parse(path.read_text()))
            self.modules[name] = module
            self._note(module)
        self.bases = self._bases()
        self.making = {
            owner.name
            for node in self.above
            if isinstance(node, ast.FunctionDef) and node.name == "__init__"
            if (owner := self.owner(node)) and owner.name in self.bases.keys() - _TEXT_FIRST
        }
        """Classes of errors that make their sentence themselves, from other arguments."""
        self.calls: dict[str, list[ast.Call]] = {}
        for node in self.above:
            if isinstance(node, ast.Call):
                self.calls.setdefault(last_name(node.func), []).append(node)

    def _note(self, module: Module) -> None:
        for node in ast.walk(module.tree):
            self.home[node] = module
            for child in ast.iter_child_nodes(node):
                self.above[child] = node
            if isinstance(node, ast.ImportFrom) and node.module:
                for one in node.names:
                    module.imports[one.asname or one.name] = node.module, one.name
        for name, value in bindings(module.tree.body):
            module.texts[name] = value

    def _bases(self) -> dict[str, str]:
        """Class of errors -> the first of its bases that is one; the root's is itself."""
        classes = {
            node.name: [last_name(base) for base in node.bases]
            for node in self.above
            if isinstance(node, ast.ClassDef)
        }
        found = {ROOT_CLASS: ROOT_CLASS}
        while True:
            more = {
                name: next(base for base in bases if base in found)
                for name, bases in classes.items()
                if name not in found and set(bases) & found.keys()
            }
            if not more:
                return found
            found |= more

    def is_a(self, kind: str, other: str) -> bool:
        """Whether the class is `other` or comes from it."""
        while kind != other and self.bases.get(kind, kind) != kind:
            kind = self.bases[kind]
        return kind == other

    # ------------------------------------------------------------------- where a node is

    def function(self, node: ast.AST) -> Function | None:
        """The innermost one around it."""
        while node in self.above:
            node = self.above[node]
            if isinstance(node, Function):
                return node
        return None

    def bound_in(self, scope: Function) -> list[tuple[str, ast.expr]]:
        """Names that a function binds."""
        if scope not in self._bound_in:
            self._bound_in[scope] = list(bindings(ast.walk(scope)))
        return self._bound_in[scope]

    def owner(self, node: ast.AST | None) -> ast.ClassDef | None:
        """The class around it."""
        while node is not None:
            if isinstance(node, ast.ClassDef):
                return node
            node = self.above.get(node)
        return None

    def callers(self, function: Function) -> Iterator[ast.Call]:
        """Calls of that function: in its own file, or where it is imported."""
        home = self.home[function]
        name = function.name
        owner = self.owner(function)
        if name == "__init__" and owner:
            name = owner.name
        for call in self.calls.get(name, ()):
            there = self.home[call]
            if there is home or there.imports.get(name) == (home.name, name):
                yield call
            elif isinstance(call.func, ast.Attribute) and not isinstance(call.func.value, ast.Name):
                continue
            elif isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
                module = there.imports.get(call.func.value.id)
                if module and ".".join(module) == home.name:
                    yield call

    # --------------------------------------------------------------------------- text

    def render(self, node: ast.expr | None, env: Env, scope: Function | None) -> Texts:
        """The variants of an expression."""
        if node is None:
            return ("",)
        if isinstance(node, ast.Constant):
            return (str(node.value),) if node.value is not None else ("",)
        if isinstance(node, ast.JoinedStr):
            return joined(self.render(part, env, scope) for part in node.values)
        if isinstance(node, ast.FormattedValue):
            return self.render(node.value, env, scope)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return joined(self.render(part, env, scope) for part in (node.left, node.right))
        if isinstance(node, ast.IfExp):
            parts = (self.render(part, env, scope) for part in (node.body, node.orelse))
            return tuple(dict.fromkeys(itertools.chain(*parts)))[:MOST]
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            constant = [self.render(one, env, scope) for one in node.values[-1:]]
            return constant[0]
        if isinstance(node, ast.Name):
            return self._named(node, env, scope)
        if isinstance(node, ast.Call) and last_name(node.func) == "format":
            assert isinstance(node.func, ast.Attribute)
            said = self.render(node.func.value, env, scope)
            return tuple(
                re.sub(r"\{(\w*).*?\}", lambda m: m[1].upper() or "VALUE", t) for t in said
            )
        return (placeholder(node),)

    def _named(self, node: ast.Name, env: Env, scope: Function | None) -> Texts:
        if node.id in env:
            return env[node.id]
        if scope is not None:
            found = [value for name, value in self.bound_in(scope) if name == node.id]
            if found and all(is_text(value) for value in found):
                inner = {**env, node.id: (placeholder(node),)}
                texts = (self.render(value, inner, scope) for value in found)
                return tuple(dict.fromkeys(itertools.chain(*texts)))[:MOST]
            if found or node.id in parameters_of(scope):
                return (placeholder(node),)
        module = self.home[node]
        if node.id in module.texts and is_text(module.texts[node.id]):
            return self.render(module.texts[node.id], {}, None)
        if node.id in module.imports:
            name, there = module.imports[node.id]
            other = self.modules.get(name)
            if other and there in other.texts and is_text(other.texts[there]):
                return self.render(other.texts[there], {}, None)
        return (placeholder(node),)

    def render_in(self, module: Module, table: ast.expr) -> list[tuple[str, str]]:
        """Cause and cure of a table of the module: rows or values that end with the two texts. Of a
        text alone, which is a cure, the cause is the system's sentence for the errno that is the
        key."""
        keys: list[ast.expr | None] = list(table.keys) if isinstance(table, ast.Dict) else []
        values = table.values if isinstance(table, ast.Dict) else getattr(table, "elts", [])
        found = []
        for key, value in zip(keys or [None] * len(values), values, strict=True):
            if isinstance(value, ast.Name | ast.Constant):
                pair = [key, value]
            elif isinstance(value, ast.Tuple) and isinstance(value.elts[-1], ast.expr):
                pair = [*value.elts[-2:]]
            else:  # a row of another table, which is there already
                continue
            cause, cure = (self.render(one, {}, None)[0] for one in pair)
            number = getattr(errno, cause, 0) if isinstance(key, ast.Attribute) else 0
            found.append((plain_text(os.strerror(number) if number else cause), plain_text(cure)))
        assert found, f"{module.name} has no such table"
        return found

    # ------------------------------------------------------------------------ messages

    def messages(self) -> Iterator[Message]:
        """All of them, each once."""
        seen = set()
        for node in self.above:
            if isinstance(node, ast.Call):
                for message in self._said(node):
                    if message not in seen and re.search(r"[a-z]{2}", message.text):
                        seen.add(message)
                        yield message

    def _said(self, call: ast.Call) -> Iterator[Message]:
        scope = self.function(call)
        name = last_name(call.func)
        text, hint = argument_of(call, 0, "message"), argument_of(call, -1, "hint")
        if (name == "error" and "parser" in ast.unparse(call.func)) or name in _PLAIN_USAGE:
            kinds: Iterable[str] = (USAGE,)
        else:
            kinds = self._kinds(call, scope)
        if not kinds or text is None or isinstance(text, ast.Starred):
            return
        file = self.home[call].file
        for env in self._environments(call, scope, (text, hint), _DEEPEST):
            said = self.render(text, env, scope), self.render(hint, env, scope)
            for one, other in itertools.product(*said):
                for kind in kinds:
                    given = env.get("\0kind", (kind,))
                    yield Message(plain_text(one), plain_text(other), given[0], file)

    def _kinds(self, call: ast.Call, scope: Function | None) -> tuple[str, ...]:
        """Classes of errors that the call may make; none: it makes no error."""
        name = last_name(call.func)
        owner = self.owner(call)
        if name in self.bases and isinstance(call.func, ast.Name | ast.Attribute):
            return () if name in self.making else (name,)
        inside = owner is not None and owner.name in self.bases
        made = ast.unparse(call.func) if owner and inside else ""
        if owner and (made == "cls" or (made == "super().__init__" and owner.name != ROOT_CLASS)):
            return (owner.name,)
        if isinstance(call.func, ast.Name) and scope:
            values = [value for one, value in self.bound_in(scope) if one == name]
            values += [value for one, value in defaults_of(scope) if one == name]
            found = {last_name(n) for v in values for n in ast.walk(v) if isinstance(n, ast.Name)}
            return tuple(sorted(found & self.bases.keys()))
        return ()

    def _environments(
        self, call: ast.AST, scope: Function | None, parts: tuple[ast.expr | None, ...], depth: int
    ) -> list[Env]:
        """What the parameters that `parts` use are, at each call of the function around."""
        if scope is None or not depth:
            return [{}]
        parameters = parameters_of(scope)
        used = self._used(parts, scope) & set(parameters)
        func = call.func if isinstance(call, ast.Call) else None
        if isinstance(func, ast.Name) and func.id in parameters:
            used.add(func.id)
        if not used:
            return [{}]
        found: list[Env] = []
        for site in self.callers(scope):
            outer = self.function(site)
            given = {one: given_for(site, scope, parameters, one) for one in used}
            for env in self._environments(site, outer, tuple(given.values()), depth - 1):
                made: Env = {}
                for one, value in given.items():
                    if isinstance(func, ast.Name) and one == func.id:
                        if value is not None and last_name(value) in self.bases:
                            made["\0kind"] = (last_name(value),)
                    elif value is not None:
                        made[one] = self.render(value, env, outer)
                if made not in found:
                    found.append(made)
        return found or [{}]

    def _used(self, parts: Iterable[ast.expr | None], scope: Function) -> set[str]:
        names = {n.id for part in parts if part for n in ast.walk(part) if isinstance(n, ast.Name)}
        for _ in range(2):
            for name, value in self.bound_in(scope):
                if name in names:
                    names |= {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
        return names
