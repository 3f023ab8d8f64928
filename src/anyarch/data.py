"""Data classes for the modules that every run imports.

``dataclasses`` itself imports ``inspect``: with the classes that are made at start-up that is a
fifth of the time in which a short guest program has to run (docs/decisions/0004-start-up.md).
This one knows what those modules use: ``slots``, ``frozen``, ``eq``, defaults, ``__post_init__``.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
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
    made: dict[str, Any] = {
        "__init__": _lazy_init(fields, frozen, hasattr(cls, "__post_init__")),
        "__repr__": _repr_of(cls.__name__, tuple(fields)),
    }
    if eq:
        values = attrgetter(*fields) if fields else lambda _: ()
        made["__eq__"] = _eq_of(values)
        if frozen:
            made["__hash__"] = lambda self: hash(values(self))
        else:
            namespace.setdefault("__hash__", None)
    for name, function in made.items():
        if name not in cls.__dict__:
            namespace[name] = function
    if frozen:
        namespace["__setattr__"] = _refuse
    metaclass: Any = type(cls)
    result: type[Any] = metaclass(cls.__name__, cls.__bases__, namespace)
    return result


def _lazy_init(fields: dict[str, _Field], frozen: bool, has_post: bool) -> Any:
    """A constructor that is compiled when it is first called: many classes of a program are for
    what most runs never come to."""
    compiled: list[Any] = []

    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        if not compiled:
            compiled.append(_compile_init(fields, frozen, has_post))
            for owner in type(self).__mro__:
                if owner.__dict__.get("__init__") is initialise:
                    type.__setattr__(owner, "__init__", compiled[0])
        compiled[0](self, *args, **kwargs)

    return initialise


def _compile_init(fields: dict[str, _Field], frozen: bool, has_post: bool) -> Any:
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
    if has_post:
        body.append(" self.__post_init__()")
    lines = [f"def __init__(self, {', '.join(parameters)}):", *(body or [" pass"])]
    exec("\n".join(lines), scope)  # as the library does; the text is made of names
    return scope["__init__"]


def _eq_of(values: Callable[[Any], Any]) -> Any:
    def equals(self: Any, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    return equals


def _repr_of(title: str, names: tuple[str, ...]) -> Any:
    def show(self: Any) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{title}({shown})"

    return show


def _refuse(self: object, name: str, value: object) -> None:
    raise AttributeError(f"cannot assign to {name!r}: {type(self).__name__} is frozen")
