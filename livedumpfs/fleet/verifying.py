# SPDX-License-Identifier: GPL-2.0-or-later
"""The dumps of a fleet dump beside its manifest: whether they are those that it names."""

from __future__ import annotations

from collections.abc import Iterator

from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import InvalidDump, LivedumpError
from livedumpfs.fleet.landing import chunks_checksum, table_checksum
from livedumpfs.fleet.manifest import Manifest, MemberRecord
from livedumpfs.stores import is_store, open_store


def problems_of(manifest: Manifest) -> Iterator[str]:
    """A sentence for each dump that is not there, or is another than the manifest says. They are
    looked for on this computer. The pages themselves are not read: that is `livedump verify`."""
    for one in manifest.members:
        if one.dump is None:
            continue
        try:
            _compare(one, one.dump)
        except LivedumpError as error:
            yield f"{one.name}: {error}"


def _compare(one: MemberRecord, path: str) -> None:
    """LivedumpError: what is wrong."""
    place, mark, name = path.rpartition("#")
    stored = bool(mark) and is_store(place)
    with open_dump(path) as dump:
        found = dump.dump_id.hex(), dump.verdict
        checksum = None if stored else table_checksum(dump)
    if stored:
        with open_store(place) as store:
            checksum = chunks_checksum(store, name)
    for what, is_now, was in (
        ("dump id", found[0], one.dump_id),
        ("verdict", found[1], one.verdict),
        ("checksum", checksum, one.checksum),
    ):
        if was is not None and is_now != was:
            raise InvalidDump(f"the {what} of {path} is {is_now}, and the manifest says {was}")
