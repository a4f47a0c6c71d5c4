"""Options as nested dataclasses: kept in checkpoints as plain values, and built again from them.

A field of type ``Callable[..., Base]`` is a strategy. It holds a class (or a ``functools.partial`` of one), which a
configuration names by ``class_path`` and ``init_args``.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import field, fields, is_dataclass
from functools import partial
from importlib import import_module
from typing import Any, TypeVar, get_args, get_type_hints

Options = TypeVar("Options")


def fixed(default: Any) -> Any:
    """A dataclass field whose value a checkpoint fixes: with another one its weights mean something else."""
    return field(default=default, metadata={"fixed": True})


def fixed_names(kind: type) -> list[str]:
    """Names of the fields of an options class that a checkpoint fixes."""
    return [item.name for item in fields(kind) if item.metadata.get("fixed")]


def plain(value: Any) -> Any:
    """Options as dictionaries, lists and plain values, which YAML and a checkpoint can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, (type, partial)):
        strategy, given = _class_of(value), value.keywords if isinstance(value, partial) else {}
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(strategy).parameters.items()
            if parameter.default is not parameter.empty
        }
        path = f"{strategy.__module__}.{strategy.__qualname__}"
        return {"class_path": path, "init_args": plain(defaults | given)}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def restore(kind: type[Options], value: Options | Mapping[str, Any]) -> Options:
    """An options object from itself or from what ``plain`` made of one.

    Raises:
        ValueError: an option that the class lacks, or a class path that names no strategy of the field's type.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{kind.__name__} was given {value!r}; expected an object of that class or a mapping")
    hints = get_type_hints(kind)
    if unknown := sorted(set(value) - set(hints)):
        near = difflib.get_close_matches(unknown[0], hints, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(hints)}"
        raise ValueError(f"{kind.__name__} has no option {unknown[0]!r}; {hint}")
    return kind(**{name: _restored(name, hints[name], part) for name, part in value.items()})


def _restored(name: str, hint: Any, value: Any) -> Any:
    if isinstance(value, Mapping) and "class_path" in value:
        return _strategy(name, get_args(hint)[-1], value["class_path"], value.get("init_args") or {})
    return tuple(value) if isinstance(value, list) else value


def _strategy(name: str, base: type, path: str, init_args: Mapping[str, Any]) -> Callable[..., Any]:
    module, _, short = str(path).rpartition(".")
    # A checkpoint may come from others: it must not make Python import what the user's own program did not.
    if module.split(".")[0] == "gssr" or module in sys.modules:
        found = getattr(import_module(module), short, None)
        if isinstance(found, type) and issubclass(found, base):
            return partial(found, **init_args)
    raise ValueError(
        f"{name} is {path!r}, which is no {base.__name__} of gssr or of a module that is imported; import the module "
        "of your own class first, or name another class"
    )


def _class_of(value: type | partial[Any]) -> type:
    # jsonargparse makes a partial of a function of its own, with the class among the positional arguments.
    candidates = (value,) if isinstance(value, type) else (value.func, *value.args)
    return next(part for part in candidates if isinstance(part, type))
