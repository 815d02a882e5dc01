# SPDX-License-Identifier: GPL-2.0-or-later
"""What mkdocs does to docs/ beyond its own: the documents are also read in the repository, where
they link to files outside of docs/. Named in mkdocs.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TOP: Final = Path(__file__).resolve().parents[1]
DOCS: Final = TOP / "docs"
_HEADER: Final = "native/livedump_ioctl.h"
_PAGES: Final = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Documents at the top -> their page."""
_LINK: Final = re.compile(r"(\]\()([^)\s:]+?)(#[^)\s]*)?(\))")
_CODE: Final = re.compile(r"`[^`\n]+`")


def _header_page() -> str:
    text = (TOP / _HEADER).read_text()
    return (
        "# The C header\n\n"
        f"`{_HEADER}` of a source tree, in the folder of `livedumpfs.get_include()` where "
        "livedumpfs is installed. [What each call means](control.md#ioctls).\n\n"
        f"```c\n{text}```\n"
    )


def on_config(config: MkDocsConfig) -> None:
    """The plugin "offline" has run, whose script is from the network. Ours takes its place."""
    config.extra["polyfills"] = ["offline_worker.js"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose source lies elsewhere, and the files that documents link to."""
    for name, page in _PAGES.items():
        files.append(File.generated(config, page, content=_inside(TOP / name, DOCS / page)))
    files.append(File.generated(config, "c-header.md", content=_header_page()))
    for path in sorted({one for file in DOCS.rglob("*.md") for one in _linked_outside(file)}):
        name = f"source/{path.relative_to(TOP)}.txt"
        files.append(File.generated(config, name, content=path.read_text()))
    return files


def _linked_outside(document: Path) -> list[Path]:
    """Files of the tree outside of docs/ that have no page."""
    there = (document.parent / found[2] for found in _LINK.finditer(document.read_text()))
    resolved = (path.resolve() for path in there)
    return [path for path in resolved if path.is_file() and _place(path).startswith("source/")]


def _place(path: Path) -> str:
    """Where the site has a file of the tree, from its top."""
    if path.is_relative_to(DOCS):
        return str(path.relative_to(DOCS))
    name = str(path.relative_to(TOP))
    if name == "README.md":
        return "index.md"
    return _PAGES.get(name, f"source/{name}.txt")


def _inside(document: Path, page: Path) -> str:
    """The text of a document as `page`: its links lead to where the site has things."""

    def lead(found: re.Match[str]) -> str:
        path = (document.parent / found[2]).resolve()
        if not path.is_relative_to(TOP) or not path.is_file():
            return found[0]
        place = _place(path)
        anchor = "" if path.name == "README.md" else found[3] or ""
        up = "../" * len(page.relative_to(DOCS).parent.parts)
        return f"{found[1]}{up}{place}{anchor}{found[4]}"

    return _LINK.sub(lead, document.read_text())


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links, and bars within code in tables, which forges write as `\\|`."""
    source = page.file.abs_src_path
    if source and Path(source).is_relative_to(DOCS):
        path = Path(source)
        markdown = _inside(path, path)
    lines = (
        _CODE.sub(lambda code: code[0].replace("\\|", "|"), line) if line[:1] == "|" else line
        for line in markdown.split("\n")
    )
    return "\n".join(lines)
