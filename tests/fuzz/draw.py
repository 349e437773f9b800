"""What a target makes of bytes, and what it expects of the answer."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

SPECIAL_INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    255,
    4096,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**53,
    2**62,
    2**63,
    2**64,
    10**400,
)
SPECIAL_REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-3, 5e-324, 1e-300, 1e9, 1e18, 1e300, math.inf, -math.inf, math.nan)


class Draw:
    """Choices taken from bytes, one after the other; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        self.at += count
        return part.ljust(count, b"\0")

    def rest(self) -> bytes:
        part, self.at = self.data[self.at :], len(self.data)
        return part

    def below(self, end: int) -> int:
        return int.from_bytes(self.take(1 if end <= 256 else 4), "little") % end

    def choice(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]

    def chance(self, of: int = 2) -> bool:
        """True once in so many; False when the bytes are used up."""
        return self.below(of) == of - 1

    def integer(self) -> int:
        if self.chance(4):
            return int(self.choice(SPECIAL_INTEGERS))
        return self.below(64)

    def real(self) -> float:
        kind = self.below(4)
        if kind == 0:
            return float(self.below(256)) / 4
        if kind == 1:
            return float(self.choice(SPECIAL_REALS))
        return float(struct.unpack("<d" if kind == 2 else "<f", self.take(8 if kind == 2 else 4))[0])

    def text(self) -> str:
        return self.take(self.below(24)).decode("utf-8", "surrogateescape")

    def value(self, depth: int = 2) -> Any:
        """Anything that JSON may hold, and what it may not."""
        kind = self.below(10 if depth else 7)
        if kind < 7:
            return (None, True, self.integer(), self.real(), self.text(), "", False)[kind]
        if kind == 9:
            return {self.text(): self.value(depth - 1) for _ in range(self.below(4))}
        return [self.value(depth - 1) for _ in range(self.below(4))]


class Broken(AssertionError):
    """The contract is broken."""


@contextmanager
def expected(*kinds: type[BaseException], lines: int = 1) -> Iterator[None]:
    """Let pass what is refused in one sentence."""
    try:
        yield
    except kinds as error:
        told = str(error)
        if not told.strip() or len(told.splitlines()) > lines:
            raise Broken(f"expected one sentence, got {type(error).__name__}: {told[:2000]!r}") from error
