"""Share trained goal networks through a folder or the Hugging Face hub.

A shared network is a folder. It holds model.safetensors (the trained weights), config.json (the network's options),
README.md (the model card with the run's test table) and config.yaml (the run's options). It does not hold the backbone.
`GoalNetwork.from_pretrained` reads such a folder.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml
from huggingface_hub import HfApi

from gssr import checkpoint as checkpoints
from gssr import shown
from gssr.files import atomic_path, atomic_write, read_plain, require_room, writing
from gssr.network.compatibility import CheckpointMismatch
from gssr.network.pretrained import (
    CARD,
    CONFIG,
    FILES,
    LARGEST,
    SETTINGS,
    WEIGHTS,
    fetch,
    is_hub_id,
    read_files,
    read_network,
    write_network,
)
from gssr.runs.config import read_run_config
from gssr.runs.folders import BEST, CHECKPOINTS, LAST, RUNS, Found, RunError, checkpoint_file, find_checkpoint, run_path

ROOM = 1 << 20  # bytes for all but the weights
# Absolute paths and those that begin at home, here or above, in words, too; an address in the web is none.
_PATH = re.compile(r"(?<![\w.~/\\])(?:file://)?(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?!/)[^\s'\"`|<>(),;]+")
_FILE = re.compile(r"\S+\.[A-Za-z]\w{1,7}")


def push(
    checkpoint_or_run: str, destination: str | Path, run: str | None = None, hub: bool = False, private: bool = False
) -> str:
    """Write a trained network, its options and its model card to a folder or to the hub.

    A folder is written beside and then exchanged: one that breaks off leaves what was there before. What else lies in
    it is kept. To the hub no path of this machine goes out: options and card have the names of files alone.

    Args:
        checkpoint_or_run: ``best`` or ``last``, the path of a checkpoint, or a run, which means its best checkpoint.
        destination: A local folder, new or of an earlier push; with ``hub`` a hub id, owner/name.
        run: The run of ``best`` and ``last``; the newest by default.
        hub: Push to the hub.
        private: Make a new hub repository private.

    Returns:
        The folder, or the address on the hub.

    Raises:
        ValueError: There is no such checkpoint, it is damaged, the folder holds something else or cannot be written, or
            the hub refuses.
    """
    found = _find(checkpoint_or_run, run)
    if not hub and Path(destination, CHECKPOINTS).is_dir():
        raise ValueError(f"the folder {destination} holds a run; give another one for the shared network")
    size = found.checkpoint.stat().st_size + ROOM
    folder = Path(tempfile.gettempdir(), "gssr") if hub else _free_folder(Path(destination), size)
    checkpoint, options = checkpoints.read(found.checkpoint), _run_options(found, hub)
    try:
        if hub:
            own = checkpoint.get("gssr")
            checkpoint |= {"hyper_parameters": _without_paths(checkpoint.get("hyper_parameters"))}
            checkpoint["gssr"] = _without_paths(own) if isinstance(own, dict) else own
            with writing(folder), tempfile.TemporaryDirectory() as temporary:
                draft = Path(temporary, "push")
                _write(draft, checkpoint, options, str(destination), found, hub)
                return _upload(draft, str(destination), private)
        with writing(folder), _replacing(folder) as draft:
            _write(draft, checkpoint, options, str(destination), found, hub)
    except CheckpointMismatch as error:
        raise ValueError(f"{found.checkpoint}: {error}") from error
    return str(destination)


def pull(
    source: str | Path, destination: str | Path | None = None, revision: str | None = None, offline: bool = False
) -> Path:
    """Fetch a shared network into a folder that `train.py test` and `predict` take as a run.

    The folder is written beside and then exchanged, as by `push`. No link in the source is followed.

    Args:
        source: A local folder or a hub id.
        destination: A new folder; ``runs/<name>`` by default.
        revision: Branch, tag or commit of a hub id.
        offline: Use only what the hub cache already holds.

    Raises:
        ValueError: The network cannot be fetched, it is damaged, or the destination holds something else or cannot be
            written.
    """
    folder = Path(destination) if destination is not None else RUNS / Path(source).name
    _free_folder(folder)
    here = fetch(source, revision, offline)
    files = read_files(here)
    checkpoint = read_network(files, here)
    target = _free_folder(folder, 2 * len(files[WEIGHTS]) + ROOM)
    with writing(folder), _replacing(target) as draft:
        for name, content in files.items():
            with atomic_write(draft / name, "wb") as file:
                file.write(content)
        if CONFIG in files:
            _refuse_config(draft, here)
        checkpoints.write(checkpoint, checkpoint_file(draft, BEST))
    return folder


def model_card(name: str, place: str, checkpoint: dict[str, Any], found: Found) -> str:
    """Markdown after the hub's front matter: values, backbone, widths, usage and the test table."""
    p, backbone = checkpoint["hyper_parameters"], checkpoint["gssr"]["backbone"]
    front: dict[str, Any] = {"library_name": "gssr", "tags": ["goal-network", "world-model", "state-space-model"]}
    if is_hub_id(backbone["name"]):
        front["base_model"] = backbone["name"]
    names, world = p["values"], p["world"]
    values = ", ".join(f"{n} ({u})" if u else n for n, u in zip(names["names"], names["units"], strict=True))
    weights = sum(tensor.numel() for tensor in checkpoint["state_dict"].values())
    pins = [key for key in ("revision", "commit", "fingerprint") if backbone.get(key)]
    pinned = ", ".join(f"{key} {shown.code(backbone[key])}" for key in pins)
    lines = [
        "---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "",
        f"# {shown.markdown(name)}", "",
        f"A goal network of [gssr]: {weights:,} trained numbers around a frozen language model, after "
        f"{checkpoint['global_step']:,} steps. "
        "It forecasts sequences of values and texts, and imagines how they would unfold if a goal in words came true.",
        "",
        f"- values: {shown.markdown(values)}",
        f"- backbone, not in these files: {shown.code(backbone['name'])} ({pinned}), "
        f"in {shown.markdown(p['backbone']['dtype'])}",
        f"- latent width {world['latent_dim']}, GRU width {world['hidden_dim']}, "
        f"{p['speech']['prefix_tokens']} prefix tokens, schedule {shown.code(p['steering']['schedule']['class_path'])}",
        "", "## Use", "",
        "```bash", f"gssr pull {_argument(place)}", f"python train.py predict --run {_argument(name, RUNS)}", "```", "",
        "```python", "from gssr.network import GoalNetwork", "",
        f"network = GoalNetwork.from_pretrained({place!r})", "```", "",
        'Where the backbone lies elsewhere, add `backbone={"name": folder}`.', "",
        "## Results", "", _test_table(found),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _argument(text: str, folder: Path = Path(".")) -> str:
    """A name in `folder` as a word of a command line inside of a block of code; no name becomes an option."""
    return shown.argument((f"{folder}/{text}" if text.startswith("-") else text).replace("`", "'"))


def _test_table(found: Found) -> str:
    """The run's newest test report; tests score the best checkpoint, so an older report belongs to another one."""
    reports: list[Path] = []
    if found.run is not None and found.checkpoint == checkpoint_file(found.run, BEST):
        reports = sorted(found.run.glob("test*/*_test.md"), key=lambda file: file.stat().st_mtime)
    if not reports or reports[-1].stat().st_mtime < found.checkpoint.stat().st_mtime:
        return "This checkpoint was not tested."
    text = read_plain(reports[-1], LARGEST).decode("utf-8", "replace").strip()
    return re.sub(r"^(#+ )", r"#\1", text, flags=re.MULTILINE)


def _find(which: str, run: str | None) -> Found:
    is_run = which not in (BEST, LAST) and not Path(which).is_file() and run is None
    return find_checkpoint(BEST, which) if is_run and run_path(which).is_dir() else find_checkpoint(which, run)


def _write(draft: Path, checkpoint: dict[str, Any], options: bytes | None, place: str, found: Found, hub: bool) -> None:
    write_network(checkpoint, draft, options)
    try:
        card = model_card(Path(place).name, place, checkpoint, found)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointMismatch(f"its options are not those of a goal network ({error})") from error
    with atomic_write(draft / CARD) as file:
        file.write(_without_paths(card) if hub else card)


def _refuse_config(draft: Path, source: Path) -> None:
    """Refuse options that no run may have, with the words of the reader, but for the place."""
    try:
        read_run_config(draft)
    except RunError as error:
        raise RunError(str(error).replace(str(draft), str(source))) from error


def _run_options(found: Found, hub: bool) -> bytes | None:
    """The config of the checkpoint's run, for the hub without paths of this machine; None where it is of no run."""
    if found.run is None or not (found.run / CONFIG).exists():
        return None
    content = read_plain(found.run / CONFIG, LARGEST)
    options = read_run_config(found.run)
    return yaml.safe_dump(_without_paths(options), sort_keys=False, allow_unicode=True).encode() if hub else content


def _without_paths(value: Any) -> Any:
    """Plain values with names of files and folders in place of paths, which are private and of use to nobody else."""
    if isinstance(value, dict):
        clean = {name: part if str(name).endswith("values") else _without_paths(part) for name, part in value.items()}
        # A hub id looks like a relative path.
        return clean | (
            {"name": value["name"]} if {"name", "revision"} <= set(value) and is_hub_id(value["name"]) else {}
        )
    if isinstance(value, (list, tuple)):
        return [_without_paths(part) for part in value]
    return "".join(map(_without_path, re.split(r"([,;\n])", value))) if isinstance(value, str) else value


def _without_path(text: str) -> str:
    if _is_local(text):
        return PureWindowsPath(text).name
    return _PATH.sub(lambda found: PureWindowsPath(found[0]).name if _is_local(found[0]) else found[0], text)


def _is_local(text: str) -> bool:
    """Whether a text is a path of this machine, and not a unit such as m/s or an address."""
    text = text.removeprefix("file://")
    if not re.search(r"[/\\]", text) or "://" in text:
        return False
    begins = bool(_PATH.match(text)) and (text[0] in "~." or len(PureWindowsPath(text).parts) > 2)
    return begins or os.path.exists(os.path.expanduser(text)) or bool(_FILE.fullmatch(text))


def _free_folder(folder: Path, size: int = ROOM) -> Path:
    """The folder itself, behind links. Refuses one that cannot be written, or that holds something else.

    It must be new, empty, or hold a shared network, which may be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not ((folder / SETTINGS).exists() and (folder / WEIGHTS).exists()):
        raise ValueError(f"the folder {folder} holds something else; give a new one")
    folder = folder.resolve()
    require_room(folder, size, make_folders=True)
    return folder


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A draft of a folder with what else lies in it; it replaces the folder when the block ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder) as draft:
        draft.mkdir()
        if folder.is_dir():
            own = {folder / name for name in FILES} | {checkpoint_file(folder, BEST)}

            def replaced(place: str, names: list[str]) -> list[str]:
                return [name for name in names if Path(place, name) in own]

            shutil.copytree(folder, draft, symlinks=True, dirs_exist_ok=True, ignore=replaced)
        yield draft


def _upload(draft: Path, hub_id: str, private: bool) -> str:
    api = HfApi()
    try:
        api.create_repo(hub_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=hub_id, folder_path=draft, commit_message="Goal network")
    except Exception as error:  # the hub's client, its HTTP library and the socket each raise errors of their own
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"the hub refused {hub_id!r}: {reason}\nexpected owner/name, with an owner that you may write to; "
            "log in with `hf auth login`"
        ) from error
    return f"https://huggingface.co/{hub_id}"
