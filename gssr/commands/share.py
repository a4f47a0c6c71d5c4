"""Trained goal networks to a folder or the hub, and back: `gssr push` and `gssr pull`.

    gssr push best exports/storms                 the newest run's best checkpoint, into a folder
    gssr push best someone/storms --hub           the same, to the hub
    gssr pull someone/storms                      into runs/storms, for train.py test and predict

A shared network is a folder with model.safetensors (the trained parts alone), config.json, README.md, the model card with the
run's test table, and config.yaml, the run's options. `GoalNetwork.from_pretrained` reads it; the backbone is not in it.
"""

import argparse
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import HfApi

from gssr.network.pretrained import CARD, SETTINGS, WEIGHTS, fetch, is_hub_id, read_network, write_network
from gssr.runs.folders import BEST, CONFIG, LAST, RUNS, Found, checkpoint_file, find_checkpoint, run_path

FILES = (WEIGHTS, SETTINGS, CARD, CONFIG)


def push(
    checkpoint_or_run: str, destination: str | Path, run: str | None = None, hub: bool = False, private: bool = False
) -> str:
    """Write a trained network, its options and its model card to a folder or to the hub.

    Args:
        checkpoint_or_run: ``best`` or ``last`` (of ``run``, or the newest), the path of a checkpoint, or a run: its best.
        destination: a local folder, new or of an earlier push; with ``hub`` a hub id, owner/name.
        private: of a hub repository that is made for it.

    Returns:
        The folder, or the address on the hub.

    Raises:
        ValueError: no such checkpoint, a folder of something else, or the hub refuses.
    """
    found = _find(checkpoint_or_run, run)
    try:
        checkpoint = torch.load(found.checkpoint, weights_only=True, map_location="cpu")
    except Exception as error:  # anything a damaged or hostile file makes the unpickler say
        raise ValueError(f"{found.checkpoint} cannot be read as a checkpoint: {error}") from error
    name = Path(destination).name
    if hub:
        _hide_folder(checkpoint)
    with tempfile.TemporaryDirectory() as temporary:
        draft = Path(temporary)
        write_network(checkpoint, draft)
        (draft / CARD).write_text(model_card(name, str(destination), checkpoint, found), encoding="utf-8")
        if found.run is not None:
            shutil.copyfile(found.run / CONFIG, draft / CONFIG)
        if hub:
            return _upload(draft, str(destination), private)
        folder = Path(destination)
        _refuse_occupied(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for file in draft.iterdir():
            shutil.move(file, folder / file.name)
    return str(folder)


def pull(
    source: str | Path, destination: str | Path | None = None, revision: str | None = None, offline: bool = False
) -> Path:
    """Fetch a shared network into a folder that `train.py test` and `predict` take as a run.

    Args:
        source: a local folder or a hub id; ``revision`` and ``offline`` are for the latter.
        destination: a new folder, ``runs/<name>`` unless given.

    Raises:
        ValueError: it cannot be fetched, is damaged, or the destination is in use.
    """
    folder = Path(destination) if destination is not None else RUNS / Path(source).name
    _refuse_occupied(folder)
    here = fetch(source, revision, offline)
    checkpoint = read_network(here)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (here / name).is_file():
            shutil.copyfile(here / name, folder / name)
    file = checkpoint_file(folder, BEST)
    file.parent.mkdir(exist_ok=True)
    torch.save(checkpoint, file)
    return folder


def model_card(name: str, place: str, checkpoint: dict[str, Any], found: Found) -> str:
    """What the network is, how to use it, and how it did: Markdown behind the hub's front matter."""
    p, backbone = checkpoint["hyper_parameters"], checkpoint["gssr"]["backbone"]
    front: dict[str, Any] = {"library_name": "gssr", "tags": ["goal-network", "world-model", "state-space-model"]}
    if is_hub_id(backbone["name"]):
        front["base_model"] = backbone["name"]
    units = p.get("value_units") or [""] * len(p["value_names"])
    values = ", ".join(f"{n} ({u})" if u else n for n, u in zip(p["value_names"], units, strict=True))
    weights = sum(tensor.numel() for tensor in checkpoint["state_dict"].values())
    pinned = [f"{key} `{backbone[key]}`" for key in ("revision", "commit", "fingerprint") if backbone.get(key)]
    lines = [
        "---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "",
        f"# {name}", "",
        f"A goal network of [gssr]: {weights:,} trained numbers around a frozen language model, after {checkpoint['global_step']:,} "
        "steps. It forecasts sequences of values and texts, and imagines how they would unfold if a goal in words came true.",
        "",
        f"- values: {values}",
        f"- backbone, not in these files: `{backbone['name']}` ({', '.join(pinned)}), in {p.get('backbone_dtype', 'float32')}",
        f"- latent width {p['latent_dim']}, GRU width {p['hidden_dim']}, {p['prefix_tokens']} prefix tokens, schedule {p['schedule']}",
        "", "## Use", "",
        "```bash", f"gssr pull {place}", f"python train.py predict --run {name}", "```", "",
        "```python", "from gssr.network import GoalNetwork", "",
        f"network = GoalNetwork.from_pretrained({place!r})  # backbone=... where the same weights lie elsewhere", "```", "",
        "## Results", "", _test_table(found),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _test_table(found: Found) -> str:
    """The run's newest test report, if it can be of this checkpoint: of the best one, and not older than it."""
    if found.run is None or found.checkpoint != checkpoint_file(found.run, BEST):
        return "This checkpoint was not tested."
    reports = sorted(found.run.glob("test*/*_test.md"), key=lambda file: file.stat().st_mtime)
    if not reports or reports[-1].stat().st_mtime < found.checkpoint.stat().st_mtime:
        return "This checkpoint was not tested."
    text = reports[-1].read_text(encoding="utf-8").strip()
    return re.sub(r"^(#+ )", r"#\1", text, flags=re.MULTILINE)


def _find(which: str, run: str | None) -> Found:
    is_run = which not in (BEST, LAST) and not Path(which).is_file() and run is None
    return find_checkpoint(BEST, which) if is_run and run_path(which).is_dir() else find_checkpoint(which, run)


def _hide_folder(checkpoint: dict[str, Any]) -> None:
    """A local backbone's path says nothing to others, and where its owner keeps files is not theirs to know."""
    for part in (checkpoint["hyper_parameters"], checkpoint["gssr"]["backbone"]):
        key = "backbone" if "backbone" in part else "name"
        if Path(part[key]).exists():
            part[key] = Path(part[key]).name


def _refuse_occupied(folder: Path) -> None:
    """A folder may be new, empty, or hold a shared network, which is replaced."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not ((folder / SETTINGS).exists() and (folder / WEIGHTS).exists()):
        raise ValueError(f"the folder {folder} holds something else; give a new one")


def _upload(draft: Path, hub_id: str, private: bool) -> str:
    api = HfApi()
    try:
        api.create_repo(hub_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=hub_id, folder_path=draft, commit_message="Goal network")
    except Exception as error:  # of the hub's client, of its HTTP library or of the socket
        told = str(error).strip().split("\n")[0]
        raise ValueError(
            f"the hub did not take {hub_id!r}: {told}\nThe form is owner/name, of an owner that is yours; log in with `hf auth login`"
        ) from error
    return f"https://huggingface.co/{hub_id}"


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register push and pull; what runs is in ``run`` of the namespace."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "push",
        help="share a trained goal network: to a folder or the hub",
        description="Write a trained goal network as safetensors, with its options and a model card that holds the run's test table.",
        epilog="examples:\n  gssr push best exports/storms\n  gssr push best someone/storms --hub --private",
        formatter_class=raw,
    )
    parser.add_argument("checkpoint", help="best or last, the path of a checkpoint, or a run (its best)")
    parser.add_argument("destination", help="a folder, new or of an earlier push; with --hub owner/name")
    parser.add_argument(
        "--run", dest="run_folder", metavar="NAME", help="the run meant by best and last; default: the newest"
    )
    parser.add_argument("--hub", action="store_true", help="push to the Hugging Face hub, not to a folder")
    parser.add_argument("--private", action="store_true", help="if the hub repository is new, make it private")
    parser.set_defaults(run=_run_push)
    parser = subparsers.add_parser(
        "pull",
        help="fetch a shared goal network: from a folder or the hub",
        description="Fetch a shared goal network into a folder that train.py takes as a run (--run) for test and predict.",
        epilog="examples:\n  gssr pull someone/storms\n  gssr pull exports/storms runs/storms",
        formatter_class=raw,
    )
    parser.add_argument("source", help="a folder that push wrote, or owner/name on the hub")
    parser.add_argument("destination", nargs="?", help="a new folder; default: runs/<name>")
    parser.add_argument("--revision", metavar="REV", help="of a hub id: branch, tag or commit")
    parser.add_argument("--offline", action="store_true", help="use only what the hub cache already holds")
    parser.set_defaults(run=_run_pull)


def _run_push(options: argparse.Namespace) -> None:
    print(f"Shared: {push(options.checkpoint, options.destination, options.run_folder, options.hub, options.private)}")


def _run_pull(options: argparse.Namespace) -> None:
    folder = pull(options.source, options.destination, options.revision, options.offline)
    print(f"Fetched: {folder}\n  from Python   GoalNetwork.from_pretrained({str(folder)!r})")
    if (folder / CONFIG).exists():
        named = folder.name if folder.parent == RUNS else folder
        print(
            f"  test          python train.py test --run {named}\n  plan          python train.py predict --run {named}"
        )
