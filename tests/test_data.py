"""Our data classes behave as the library's, where we use them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from anyarch import data


def _classes(module: Any) -> tuple[type[Any], type[Any], type[Any]]:
    @module.dataclass(slots=True)
    class Plain:
        """Kept."""

        a: int
        b: str = "x"
        c: list[int] = module.field(default_factory=list)
        d: int = module.field(init=False)

        def __post_init__(self) -> None:
            self.d = self.a + 1

    @module.dataclass(frozen=True, slots=True)
    class Frozen:
        a: int
        b: tuple[int, ...] = ()

    @module.dataclass(slots=True, eq=False)
    class Identity:
        a: int

    return Plain, Frozen, Identity


@pytest.mark.parametrize("module", [dataclasses, data])
def test_same_behaviour(module: Any) -> None:
    plain, frozen, identity = _classes(module)
    one, other = plain(1), plain(a=1, b="x")
    assert one == other
    assert one.c is not other.c
    assert one.d == 2
    assert one != plain(1, "y")
    assert plain.__doc__ == "Kept."
    with pytest.raises(TypeError):
        plain()
    with pytest.raises(TypeError):
        hash(one)
    with pytest.raises(AttributeError):
        one.unknown = 1
    assert hash(frozen(1, (2,))) == hash(frozen(1, (2,)))
    assert frozen(1) == frozen(1, ())
    assert "a=1, b=()" in repr(frozen(1))
    with pytest.raises(AttributeError):
        frozen(1).a = 2
    assert identity(1) != identity(1)
    match frozen(5, (6,)):
        case frozen(a, b):
            assert (a, b) == (5, (6,))
