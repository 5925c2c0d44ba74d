"""What a caller of a package can break on, as plain values: one fact a name.

Annotations are no part of it: a caller breaks on names, on the order and kind of parameters, on
defaults and on values, not on the spelling of a type.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeAlias

Facts: TypeAlias = dict[str, object]

PACKAGES = ("pgqueuer", "pgq_fast")
SPECIAL_METHODS = {"__aenter__", "__aexit__", "__enter__", "__exit__", "__call__"}


def of_module(package: str, name: str, names: tuple[str, ...] = ()) -> Facts:
    """Facts of *names* of ``package.name``; without names, of all that it declares public."""
    module = importlib.import_module(f"{package}.{name}" if name else package)
    facts: Facts = {}
    if not names:
        names = tuple(sorted(module.__all__))
        facts["__all__"] = names
    for each in names:
        if hasattr(module, each):
            facts.update(_of_object(each, getattr(module, each)))
    return facts


def _of_object(path: str, obj: Any) -> Iterator[tuple[str, object]]:
    if isinstance(obj, typing.NewType):
        yield path, ("new type of", _plain(obj.__supertype__))
    elif typing.get_origin(obj) is typing.Literal:
        yield path, ("one of", typing.get_args(obj))
    elif isinstance(obj, type):
        yield from _of_class(path, obj)
    elif inspect.isroutine(obj):
        yield path, ("function", *_call(obj))
    elif typing.get_origin(obj) is not None:
        yield path, ("alias", _plain(obj))
    else:
        yield path, ("object", type(obj).__name__, getattr(obj, "name", None))


def _of_class(path: str, cls: type[Any]) -> Iterator[tuple[str, object]]:
    if issubclass(cls, BaseException):
        yield path, ("exception", tuple(sorted(_names_of(cls.__mro__))))
    elif issubclass(cls, enum.Enum):
        yield path, ("enum", tuple((member.name, member.value) for member in cls))
    else:
        yield path, "class"

    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        yield f"{path}()", cls._fields
        return
    if "model_fields" in dir(cls):
        yield from _model_fields(path, cls)
    elif dataclasses.is_dataclass(cls):
        yield from _dataclass_fields(path, cls)
    elif not getattr(cls, "_is_protocol", False) and _is_own(cls.__init__):
        yield f"{path}()", _parameters(cls.__init__)[1:]
    yield from _members(path, cls)


def _names_of(classes: tuple[type, ...]) -> set[str]:
    return {cls.__name__ for cls in classes}


def _model_fields(path: str, cls: Any) -> Iterator[tuple[str, object]]:
    optional = not any(field.is_required() for field in cls.model_fields.values())
    sample = cls() if optional and cls.model_fields else None
    for name, field in cls.model_fields.items():
        default: object = "required"
        if not field.is_required():
            # Only a whole object knows defaults that are made from other fields.
            made = field.default if sample is None else getattr(sample, name)
            default = "made on demand" if field.default_factory and sample is None else made
        yield f"{path}.{name}", ("field", _plain(default), _plain(field.validation_alias))


def _dataclass_fields(path: str, cls: Any) -> Iterator[tuple[str, object]]:
    parameters: list[tuple[object, ...]] = []
    for field in dataclasses.fields(cls):
        default: object = "required"
        if field.default_factory is not dataclasses.MISSING:
            default = ("made", _sample(field.default_factory))
        elif field.default is not dataclasses.MISSING:
            default = _plain(field.default)
        if field.init:
            parameters.append((field.name, bool(field.kw_only), default))
        elif not field.name.startswith("_"):
            yield f"{path}.{field.name}", ("attribute", default)
    yield f"{path}()", tuple(parameters)


def _sample(factory: Any) -> str:
    """What a factory makes: the value where values compare, else the type."""
    try:
        made = factory()
    except TypeError:
        return _plain(factory)
    plain = isinstance(made, (str, int, float, dict, list, set, tuple))
    return _plain(made) if plain or type(made).__module__ == "datetime" else type(made).__name__


def _members(path: str, cls: type) -> Iterator[tuple[str, object]]:
    seen: set[str] = set()
    fields = (
        {field.name for field in dataclasses.fields(cls)}
        if (dataclasses.is_dataclass(cls))
        else set()
    )
    for owner in cls.__mro__:
        if owner.__module__.partition(".")[0] not in PACKAGES:
            continue
        for name, raw in vars(owner).items():
            public = not name.startswith("_") or name in SPECIAL_METHODS
            if not public or name in seen or name in fields:
                continue
            seen.add(name)
            if isinstance(raw, (property, cached_property, types.GetSetDescriptorType)):
                yield f"{path}.{name}", "attribute"
            elif isinstance(raw, classmethod):
                yield f"{path}.{name}()", ("class method", *_call(raw.__func__, 1))
            elif isinstance(raw, staticmethod):
                yield f"{path}.{name}()", ("static method", *_call(raw.__func__))
            elif inspect.isroutine(raw):
                yield f"{path}.{name}()", ("method", *_call(raw, 1))


def _call(func: Any, skip: int = 0) -> tuple[object, ...]:
    return _manner(func), _parameters(func)[skip:]


def _manner(func: Any) -> str:
    """How the result is used: awaited, entered, iterated, or taken."""
    inner = getattr(func, "__wrapped__", None)
    if inner is not None and inspect.isasyncgenfunction(inner):
        return "async with"
    if inner is not None and inspect.isgeneratorfunction(inner):
        return "with"
    if inspect.isasyncgenfunction(func):
        return "async for"
    return "await" if inspect.iscoroutinefunction(func) else "call"


def _parameters(func: Any) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            parameter.name,
            parameter.kind.name,
            "required" if parameter.default is parameter.empty else _plain(parameter.default),
        )
        for parameter in inspect.signature(func).parameters.values()
    )


def _is_own(func: Any) -> bool:
    module = getattr(func, "__module__", None) or ""
    return module.partition(".")[0] in PACKAGES


def _plain(value: object) -> str:
    """The text of a value, without what differs by package, home module, run or machine."""
    if isinstance(value, (type, types.FunctionType)):
        return value.__qualname__
    text = re.sub(r"\b(?:pgqueuer|pgq_fast)(?:\.\w+)*\.(?=\w)", "", repr(value))
    return re.sub(r" at 0x[0-9a-f]+", "", text)
