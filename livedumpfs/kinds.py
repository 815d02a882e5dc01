# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of values that options have.

A kind says how a value is written and shown, which values are refused and with which sentence, and
which number stands for it in the ioctl interface and in the core. This module is a leaf: the
command line reads the table of options at its start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from livedumpfs.errors import UsageError, WrongType
from livedumpfs.units import format_size, parse_duration, parse_size

PATH_MAX: Final = 4096
"""Most bytes of a path, the NUL included: LIVEDUMP_PATH_MAX."""
MOST: Final = (1 << 63) - 1
"""The largest size that can be set."""
LONGEST: Final = 1e9
"""Upper limit of a time in seconds, exclusive."""
_NS: Final = 1e9
AUTO: Final = "auto"
AUTO_NUMBER: Final = (1 << 64) - 1
"""The same in the ioctl interface: LIVEDUMP_POOL_AUTO."""


class ValueKind:
    """The values that an option can have."""

    types: ClassVar[tuple[type, ...]] = (int,)
    called: ClassVar[str] = "a whole number"
    metavar: ClassVar[str | None] = "N"
    nothing: ClassVar[Any] = 0
    """The value for "not given" on the command line and in a request."""

    def parse(self, text: str) -> Any:
        """A value from the text of a file of control/. ValueError."""
        raise NotImplementedError

    def argument(self, text: str) -> Any:
        """A value from the command line. The default cannot be written there: the option is left
        out. ValueError."""
        return self.parse(text)

    def show(self, value: Any) -> str:
        """The text of a value, as parse() accepts it."""
        return f"{value:.15g}"

    def usual(self, value: Any) -> str:
        """The text of a default, for people."""
        return self.show(value)

    def values(self) -> str:
        """The possible values, for the documents."""
        raise NotImplementedError

    def limits(self) -> str:
        """The range of values, if the option's help does not contain it already."""
        return ""

    def check(self, noun: str, value: Any) -> None:
        """UsageError: the value is out of range. `noun`: the name of the value in the sentence."""

    def check_type(self, name: str, value: Any) -> None:
        """WrongType (UsageError, TypeError): the value has another type."""
        wrong = isinstance(value, bool) and bool not in self.types
        if wrong or not isinstance(value, self.types):
            raise WrongType(f"{name} must be {self.called}, not {value!r}")

    def to_ioctl(self, value: Any) -> int:
        """The number in struct livedump_init and livedump_status; 0: not set."""
        return int(value)

    def from_ioctl(self, number: int) -> Any:
        """The value of such a number. ValueError: there is none."""
        return number

    def to_core(self, value: Any) -> int:
        """The number in struct ldfs_dump_config."""
        return self.to_ioctl(value)


@dataclass(frozen=True)
class Choice(ValueKind):
    """One of several words. Their numbers start with 1 in the ioctl interface, with 0 in the
    core."""

    words: tuple[str, ...]
    unset: str = ""
    """The word for "" in a file of control/, where "" is a value, too; else empty."""

    types: ClassVar[tuple[type, ...]] = (str,)
    called: ClassVar[str] = "text"
    metavar: ClassVar[str | None] = None
    nothing: ClassVar[Any] = None

    def argument(self, text: str) -> str:
        """The text as it is: argparse checks the words, with a sentence of its own."""
        return text

    def parse(self, text: str) -> str:
        """See ValueKind."""
        if self.unset and text == self.unset:
            return ""
        possible = (self.unset, *self.words) if self.unset else self.words
        if text not in self.words:
            raise ValueError(f"{text!r} is none of {', '.join(possible)}")
        return text

    def show(self, value: str) -> str:
        """See ValueKind."""
        return value or self.unset

    def values(self) -> str:
        """See ValueKind."""
        *first, last = [f"`{one}`" for one in (*self.words, self.unset) if one]
        return f"{', '.join(first)} or {last}"

    def check(self, noun: str, value: str) -> None:
        """See ValueKind."""
        if value not in self.words and (value or not self.unset):
            raise UsageError(f"unknown {noun} {value!r}", hint=f"one of {', '.join(self.words)}")

    def to_ioctl(self, value: str) -> int:
        """See ValueKind."""
        return self.to_core(value) + 1

    def from_ioctl(self, number: int) -> str:
        """See ValueKind."""
        if not 0 < number <= len(self.words):
            raise ValueError(f"no word has number {number}")
        return self.words[number - 1]

    def to_core(self, value: str) -> int:
        """See ValueKind."""
        return self.words.index(value)


@dataclass(frozen=True)
class Count(ValueKind):
    """A whole number of `things`, from 1 to `high`; 0: the default."""

    things: str = "things"
    high: int = MOST

    def parse(self, text: str) -> int:
        """See ValueKind."""
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"not a number of 0 or more: {text!r}")
        return int(text)

    def values(self) -> str:
        """See ValueKind."""
        return f"1 to {self.high}"

    def limits(self) -> str:
        """See ValueKind."""
        return self.values()

    def check(self, noun: str, value: int) -> None:
        """See ValueKind."""
        if not 0 <= value <= self.high:
            raise UsageError(
                f"{value} {self.things} are not possible", hint=f"from 1 to {self.high}"
            )


@dataclass(frozen=True)
class Size(ValueKind):
    """A number of bytes, or in `unit`."""

    low: int = 0
    high: int = MOST
    power: bool = False
    """Only powers of two, or 0."""
    unit: str = "bytes"
    metavar: ClassVar[str | None] = "SIZE"

    def parse(self, text: str) -> int:
        """See ValueKind."""
        return parse_size(text)

    def argument(self, text: str) -> int:
        """See ValueKind."""
        value = self.parse(text)
        if value <= 0:
            raise ValueError(f"not a size above 0: {text!r}")
        return value

    def usual(self, value: int) -> str:
        """See ValueKind."""
        return format_size(value)

    def values(self) -> str:
        """See ValueKind."""
        return f"{self.unit}, {self._range()}" if self.power else self.unit

    def limits(self) -> str:
        """See ValueKind."""
        return self._range() if self.power else ""

    def _range(self) -> str:
        if self.power:
            return f"a power of two from {self.low} to {self.high}"
        return f"from {self.low} on, less than 8 EiB"

    def check(self, noun: str, value: int) -> None:
        """See ValueKind."""
        power = not self.power or value & (value - 1) == 0
        if not (power and self.low <= value <= self.high) and (value or not self.power):
            raise UsageError(f"a {noun} of {value} {self.unit} is not possible", hint=self._range())


@dataclass(frozen=True)
class AutoSize(Size):
    """A size, or "auto"."""

    start: int = 0
    """What `auto` begins with, in bytes."""

    types: ClassVar[tuple[type, ...]] = (int, str)
    called: ClassVar[str] = f'a whole number, or "{AUTO}"'

    def parse(self, text: str) -> Any:
        """See ValueKind."""
        return AUTO if text == AUTO else super().parse(text)

    def argument(self, text: str) -> Any:
        """See ValueKind."""
        return AUTO if text == AUTO else super().argument(text)

    def show(self, value: Any) -> str:
        """See ValueKind."""
        return AUTO if value == AUTO else super().show(value)

    def usual(self, value: Any) -> str:
        """See ValueKind."""
        return AUTO if value == AUTO else super().usual(value)

    def values(self) -> str:
        """See ValueKind."""
        return f"{self.unit}, or `{AUTO}`"

    def check(self, noun: str, value: Any) -> None:
        """See ValueKind."""
        if isinstance(value, str) and value != AUTO:
            raise UsageError(f"unknown {noun} {value!r}", hint=f"a size, or {AUTO}")
        if value != AUTO:
            super().check(noun, value)

    def to_ioctl(self, value: Any) -> int:
        """See ValueKind."""
        return AUTO_NUMBER if value == AUTO else int(value)

    def from_ioctl(self, number: int) -> Any:
        """See ValueKind."""
        return AUTO if number == AUTO_NUMBER else number

    def to_core(self, value: Any) -> int:
        """See ValueKind."""
        return self.start if value == AUTO else int(value)


class Seconds(ValueKind):
    """A time above 0, written as a number of seconds."""

    types: ClassVar[tuple[type, ...]] = (int, float)
    called: ClassVar[str] = "a number of seconds"
    metavar: ClassVar[str | None] = "SECONDS"
    lowest: ClassVar[str] = "above 0 s"

    def parse(self, text: str) -> float:
        """See ValueKind."""
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < LONGEST:
            raise ValueError(f"not a time in seconds above 0: {text!r}")
        return value

    def usual(self, value: float) -> str:
        """See ValueKind."""
        return f"{self.show(value)} s"

    def values(self) -> str:
        """See ValueKind."""
        return "seconds"

    def check(self, noun: str, value: float) -> None:
        """See ValueKind."""
        if not (math.isfinite(value) and self._long_enough(value) and value < LONGEST):
            raise UsageError(
                f"a {noun} of {value:g} s is not possible",
                hint=f"{self.lowest}, less than {LONGEST:g} s",
            )

    def _long_enough(self, value: float) -> bool:
        return value > 0

    def to_ioctl(self, value: float) -> int:
        """In nanoseconds."""
        return round(value * _NS)

    def from_ioctl(self, number: int) -> float:
        """See ValueKind."""
        return number / _NS


class Duration(Seconds):
    """A time that may be written 30s, 5min or 2h; 0: none."""

    metavar: ClassVar[str | None] = "TIME"
    lowest: ClassVar[str] = "from 0 s on"

    def parse(self, text: str) -> float:
        """See ValueKind."""
        return parse_duration(text)

    def argument(self, text: str) -> float:
        """See ValueKind."""
        value = self.parse(text)
        if not 0 < value < LONGEST:
            raise ValueError(f"not a time above 0: {text!r}")
        return value

    def values(self) -> str:
        """See ValueKind."""
        return "30, 30s, 5min or 2h"

    def limits(self) -> str:
        """See ValueKind."""
        return self.values()

    def _long_enough(self, value: float) -> bool:
        return value >= 0


class Flag(ValueKind):
    """Yes or no. In the ioctl interface it is a flag and not a member: set, or as in control/."""

    types: ClassVar[tuple[type, ...]] = (bool,)
    called: ClassVar[str] = "True or False"
    metavar: ClassVar[str | None] = None
    nothing: ClassVar[Any] = False

    def parse(self, text: str) -> bool:
        """See ValueKind."""
        if text not in ("0", "1"):
            raise ValueError(f"neither 0 nor 1: {text!r}")
        return text == "1"

    def show(self, value: bool) -> str:
        """See ValueKind."""
        return str(int(value))

    def values(self) -> str:
        """See ValueKind."""
        return "0 or 1"


class FilePath(ValueKind):
    """A path, or in Python also an open file; None: not set."""

    called: ClassVar[str] = "a path"
    metavar: ClassVar[str | None] = "FILE"
    nothing: ClassVar[Any] = None

    def parse(self, text: str) -> str | None:
        """See ValueKind."""
        if len(text.encode(errors="surrogateescape")) >= PATH_MAX:
            raise ValueError("the path is too long")
        if "\0" in text:
            raise ValueError("the path has a NUL in it")
        return text or None

    def argument(self, text: str) -> str:
        """The text as it is: an error comes when the file is opened."""
        return text

    def show(self, value: object) -> str:
        """See ValueKind."""
        return str(value or "")

    def values(self) -> str:
        """See ValueKind."""
        return "a path"

    def check_type(self, name: str, value: Any) -> None:
        """Any type: the function that opens it checks it."""
