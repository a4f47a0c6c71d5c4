"""The structure that docs and CONTRIBUTING promise: arrows between rooms, no circles, small files, small classes."""

import ast
import importlib
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gssr", "callbacks", "datamodules")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
DATA_SETS = re.compile(r"storm|strikes\b|\bsines\b|time.?mmd|hurricane", re.IGNORECASE)

LEAVES = {
    f"gssr{leaf}"
    for leaf in ("", ".checkpoint", ".domains", ".files", ".metrics", ".ranks", ".shown", ".threads", ".yaml_files")
}
BELOW = {
    f"gssr.{room}"
    for room in [
        "sequences",
        "backbone",
        "states",
        "training",
        "network",
        "reasoning",
        "control",
        "search",
        "evaluation",
        "understanding",
    ]
}
EVERYTHING = BELOW | {"gssr.runs", "gssr.commands", "datamodules", "callbacks"}
# What each room may import besides itself and the leaves.
ARROWS: dict[str, set[str]] = {
    "gssr.sequences": set(),
    "gssr.backbone": set(),
    "gssr.states": {"gssr.backbone"},
    "gssr.training": {"gssr.backbone"},
    "gssr.reasoning": {"gssr.backbone", "gssr.states", "gssr.training"},
    "gssr.control": {"gssr.backbone", "gssr.states", "gssr.training"},
    "gssr.network": {"gssr.sequences", "gssr.backbone", "gssr.states"},
    "gssr.evaluation": {"gssr.sequences"},
    "gssr.search": {"gssr.sequences", "gssr.backbone", "gssr.states", "gssr.network", "gssr.training"},
    "gssr.understanding": {"gssr.sequences", "gssr.backbone", "gssr.states"},
    "datamodules": {"gssr.sequences", "gssr.backbone", "gssr.evaluation"},
    "callbacks": EVERYTHING - {"gssr.commands"},
    "gssr.runs": EVERYTHING - {"gssr.commands"},
    "gssr.commands": EVERYTHING,
    **{leaf: set() for leaf in LEAVES},
}


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def room_of(module: str) -> str:
    return max((room for room in ARROWS if f"{module}.".startswith(f"{room}.")), key=len)


def imports(file: Path, lazy: bool) -> Iterator[str]:
    """Modules of the project that a file imports, those for type checkers left out; with ``lazy`` in functions, too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef) and not lazy:
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [
                full if (full := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names
            ]
        else:
            continue
        yield from (name for name in found if name in MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_one_way(module: str) -> None:
    room = room_of(module)
    allowed = ARROWS[room] | LEAVES | {room}
    wrong = sorted({name for name in imports(MODULES[module], lazy=True) if room_of(name) not in allowed})
    assert not wrong, f"{module} is in {room}, which may import {sorted(ARROWS[room])}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: set(imports(file, lazy=False)) - {module} for module, file in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("file", [*FILES, ROOT / "train.py"], ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_is_a_small_room(file: Path) -> None:
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= (80 if file.name == "train.py" else 300)


def classes(module: str) -> Iterator[type]:
    for _, found in inspect.getmembers(importlib.import_module(module), inspect.isclass):
        if found.__module__ == module:
            yield found


def is_ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] in PACKAGES


@pytest.mark.parametrize("module", [name for name in MODULES if "build" not in name])
def test_a_class_has_few_public_methods_and_no_mixins(module: str) -> None:
    for kind in classes(module):
        hooks = {name for base in kind.__mro__ if not is_ours(base) for name in vars(base)}
        methods = (inspect.isfunction, inspect.ismethoddescriptor, inspect.isdatadescriptor)
        own = [
            name
            for name, member in vars(kind).items()
            if not name.startswith("_") and name not in hooks and any(test(member) for test in methods)
        ]
        fields = set(getattr(kind, "__dataclass_fields__", ())) | set(getattr(kind, "_fields", ()))
        assert len(set(own) - fields) <= 12, f"{kind.__qualname__} has {sorted(set(own) - fields)}"
        if module.startswith("gssr.network"):
            assert len([base for base in kind.__bases__ if is_ours(base)]) <= 1, f"{kind.__qualname__} mixes classes"


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("datamodules")])
def test_no_data_set_is_named_outside_of_the_data_modules(module: str) -> None:
    """Names and comments never; texts only as examples of a command."""
    source = MODULES[module].read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if DATA_SETS.search(token.string):
            assert token.type == tokenize.STRING, f"{module}, line {token.start[0]}: {token.line.strip()}"
            for line in filter(DATA_SETS.search, token.string.splitlines()):
                assert re.search(r"gssr |train\.py|runs/|--|\.csv|\.safetensors|\"[A-Z][^\"]+\"", line), line
