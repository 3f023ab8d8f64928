"""Data classes for the modules that every run imports.

``dataclasses`` itself imports ``inspect``: with the classes that are made at start-up that is a
fifth of the time in which a short guest program has to run (docs/decisions/0004-start-up.md).
This one knows what those modules use: ``slots``, ``frozen``, ``eq``, defaults, ``__post_init__``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform, overload

_T = TypeVar("_T")
_MISSING: Any = object()


class _Field:
    __slots__ = ("default", "default_factory", "init")

    def __init__(self, default: Any, default_factory: Any, init: bool) -> None:
        self.default, self.default_factory, self.init = default, default_factory, init


def field(*, default: Any = _MISSING, default_factory: Any = _MISSING, init: bool = True) -> Any:
    """A field with a default made anew for each object, or one that is no argument."""
    return _Field(default, default_factory, init)


@overload
def dataclass(cls: type[_T], /) -> type[_T]: ...
@overload
def dataclass(
    *, slots: bool = ..., frozen: bool = ..., eq: bool = ...
) -> Callable[[type[_T]], type[_T]]: ...
@dataclass_transform(field_specifiers=(field,))
def dataclass(
    cls: type[_T] | None = None, /, *, slots: bool = False, frozen: bool = False, eq: bool = True
) -> Any:
    """As :func:`dataclasses.dataclass`; a base class's fields come first."""
    if cls is None:
        return lambda made: _make(made, slots, frozen, eq)
    return _make(cls, slots, frozen, eq)


def _make(cls: type[Any], slots: bool, frozen: bool, eq: bool) -> type[Any]:
    own = list(cls.__dict__.get("__annotations__", {}))  # noqa: RUF063 - that is in `inspect`
    fields: dict[str, _Field] = dict(getattr(cls, "__data_fields__", {}))
    namespace = dict(cls.__dict__)
    for name in own:
        default = namespace.pop(name, _MISSING)
        fields[name] = default if isinstance(default, _Field) else _Field(default, _MISSING, True)
    for dropped in ("__dict__", "__weakref__"):
        namespace.pop(dropped, None)
    if slots:
        namespace["__slots__"] = tuple(own)
    namespace["__data_fields__"] = fields
    namespace["__match_args__"] = tuple(name for name, spec in fields.items() if spec.init)
    names = list(fields)
    scope: dict[str, Any] = {"set_": object.__setattr__, "missing": _MISSING}
    parameters, body = [], []
    for name, spec in fields.items():
        value = name
        if spec.default_factory is not _MISSING:
            scope[f"make_{name}"] = spec.default_factory
            made = f"make_{name}()"
            value = f"{made} if {name} is missing else {name}" if spec.init else made
            parameters += [f"{name}=missing"] if spec.init else []
        elif spec.default is not _MISSING:
            scope[f"default_{name}"] = spec.default
            parameters += [f"{name}=default_{name}"] if spec.init else []
            value = name if spec.init else f"default_{name}"
        elif spec.init:
            parameters.append(name)
        else:
            continue
        body.append(f" set_(self, {name!r}, {value})" if frozen else f" self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    lines = [f"def __init__(self, {', '.join(parameters)}):", *(body or [" pass"])]
    everything = "".join(f"self.{name}, " for name in names)
    others = "".join(f"other.{name}, " for name in names)
    if eq:
        lines += [
            "def __eq__(self, other):",
            " if other.__class__ is not self.__class__: return NotImplemented",
            f" return ({everything}) == ({others})",
        ]
        if frozen:
            lines += ["def __hash__(self):", f" return hash(({everything}))"]
        else:
            namespace.setdefault("__hash__", None)
    shown = ", ".join(f"{name}={{self.{name}!r}}" for name in names)
    lines += ["def __repr__(self):", f' return f"{cls.__name__}({shown})"']
    exec("\n".join(lines), scope)  # as the library does; the text is made of names
    for name in ("__init__", "__eq__", "__hash__", "__repr__"):
        if name in scope and name not in cls.__dict__:
            namespace[name] = scope[name]
    if frozen:
        namespace["__setattr__"] = _refuse
    metaclass: Any = type(cls)
    result: type[Any] = metaclass(cls.__name__, cls.__bases__, namespace)
    return result


def _refuse(self: object, name: str, value: object) -> None:
    raise AttributeError(f"cannot assign to {name!r}: {type(self).__name__} is frozen")
