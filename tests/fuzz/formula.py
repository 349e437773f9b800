"""Formulas of hosts and dopants, and what a context is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator

from contextem.context import HOSTS, Context, find_host, parse_formula
from contextem.elements import SYMBOLS, atomic_shares
from fuzz.draw import Broken, Draw, expected

INSTRUMENTED = ("contextem.context", "contextem.elements", "contextem.micrograph")


def target(data: bytes) -> None:
    text, _, further = data.partition(b"\n")
    host = text.decode("utf-8", "surrogateescape")
    with expected(ValueError):
        metal, chalcogen = parse_formula(host)
        shares = atomic_shares(chalcogen)
        if metal not in SYMBOLS or metal in shares or not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-5):
            raise Broken(f"{host!r} is no MX2")
        if host not in (f"{metal}{chalcogen}2", f"{metal}({chalcogen})2"):
            raise Broken(f"{host!r} was read as {metal} and {chalcogen}")
        find_host(host)
    draw = Draw(further)
    names = [draw.choice((draw.text(), "Cr", "V", "W", "Se")) for _ in range(draw.below(4))]
    with expected(ValueError, TypeError):
        context = Context(
            draw.choice((host, "WSe2")),
            draw.choice((names, "Cr", draw.value())),
            energy=draw.choice((80e3, None, draw.real(), draw.value())),
            detector=draw.choice(("HAADF", None, draw.text(), draw.value())),
            fractions=draw.choice((None, {name: draw.real() for name in names}, draw.value())),
            lattice_constant=draw.choice((None, 3.3, draw.real(), draw.value())),
        )
        if Context.from_dict(context.to_dict()) != context:
            raise Broken("a context is not what it was written as")
        vector = context.vector(draw.choice(("roles", "composition")))
        if not ((vector >= 0) & (vector <= 1 + 1e-6)).all():
            raise Broken(f"shares of shells outside 0 to 1: {vector}")


def seeds() -> Iterator[bytes]:
    for name in HOSTS:
        yield name.encode()
    yield b"W(S0.6Se0.4)2\nCr"
    yield b"Mo(S0.25Se0.25Te0.5)2\n\x02\x01\x02\x00\x00\x01\x01\x00\x00"
    yield bytes(range(64))
