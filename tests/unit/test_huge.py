# SPDX-License-Identifier: GPL-2.0-or-later
"""Sentences about huge pages that there are none of, for what a kernel may say."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from livedumpfs import Arena, huge
from livedumpfs.errors import UsageError
from livedumpfs.huge import why_none

MIB = 1 << 20


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of a kernel with 100 huge pages, of which 12 are free."""
    pool, thp = tmp_path / "pool", tmp_path / "thp"
    (thp / "hugepages-2048kB").mkdir(parents=True)
    pool.mkdir()
    for name, value in {"nr": 100, "free": 14, "resv": 2}.items():
        (pool / f"{name}_hugepages").write_text(f"{value}\n")
    (tmp_path / "meminfo").write_text("Hugepagesize:       2048 kB\n")
    monkeypatch.setattr(huge, "_POOL", pool)
    monkeypatch.setattr(huge, "_THP", thp)
    monkeypatch.setattr(huge, "_MEMINFO", tmp_path / "meminfo")
    return tmp_path


def test_too_few_in_the_pool(kernel: Path) -> None:
    assert why_none("2M", 64 * MIB, errno.ENOSPC) == (
        "it needs 32 huge pages of 2 MiB, and 12 are free",
        "echo 120 > /proc/sys/vm/nr_hugepages",
    )
    (kernel / "meminfo").write_text("Hugepagesize:    1048576 kB\n")
    told = why_none("2M", 64 * MIB, errno.ENOSPC)
    assert told and told[1] == f"echo 120 > {kernel / 'pool' / 'nr_hugepages'}"


def test_enough_in_the_pool_and_none_to_be_had(kernel: Path) -> None:
    told = why_none("2M", 4 * MIB, errno.ENOSPC)
    assert told and "hugetlb.2MB.max" in told[1]


def test_a_kernel_without_a_pool(kernel: Path) -> None:
    (kernel / "pool" / "nr_hugepages").unlink()
    assert why_none("2M", 4 * MIB, errno.EOPNOTSUPP) == (
        "the kernel has no huge pages of 2 MiB",
        "huge pages thp, or none",
    )


@pytest.mark.parametrize("word", ["never", "deny"])
@pytest.mark.parametrize("one", ["", "always [inherit] within_size advise never\n"])
def test_shared_memory_has_none(kernel: Path, word: str, one: str) -> None:
    path = kernel / "thp" / "shmem_enabled"
    path.write_text(f"always within_size advise [{word}] force\n")
    if one:
        (kernel / "thp" / "hugepages-2048kB" / "shmem_enabled").write_text(one)
    assert why_none("thp", 4 * MIB, errno.EOPNOTSUPP) == (
        f"shared memory has no transparent huge pages: {path} is '{word}'",
        f"echo advise > {path}",
    )


def test_the_setting_of_the_size_counts_before_the_common_one(kernel: Path) -> None:
    (kernel / "thp" / "shmem_enabled").write_text("always within_size [advise] never\n")
    path = kernel / "thp" / "hugepages-2048kB" / "shmem_enabled"
    path.write_text("always inherit within_size advise [never]\n")
    told = why_none("thp", 4 * MIB, errno.EOPNOTSUPP)
    assert told and told[1] == f"echo advise > {path}"


def test_allowed_but_memory_is_in_pieces(kernel: Path) -> None:
    (kernel / "thp" / "shmem_enabled").write_text("always within_size [advise] never\n")
    told = why_none("thp", 4 * MIB, errno.EOPNOTSUPP)
    assert told and "in one piece" in told[0]


def test_a_kernel_without_transparent_ones(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge, "_THP", kernel / "none")
    told = why_none("thp", 4 * MIB, errno.EOPNOTSUPP)
    assert told and told[0] == "the kernel has no transparent huge pages"


@pytest.mark.parametrize(
    ("kind", "size", "said"),
    [
        ("1G", 4 * MIB, "no such huge pages: '1G' (thp or 2M)"),
        ("thp", MIB, "an arena of 1 MiB has no room for a huge page (2 MiB or more)"),
        ("2M", 5 * MIB, "no multiple of 2 MiB (6291456 has room for it)"),
        ("2M", 0, "no multiple of 2 MiB (2097152 has room for it)"),
    ],
)
def test_sizes_that_do_not_go_with_them(kind: str, size: int, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Arena(size, kind)  # type: ignore[arg-type]
    assert str(caught.value).endswith(said)


@pytest.mark.parametrize("kind", [None, "thp", "2M"])
def test_other_errors_are_not_about_huge_pages(kind: str | None) -> None:
    assert why_none(kind, 4 * MIB, errno.ENOMEM) is None
