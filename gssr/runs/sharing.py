"""Share trained goal networks through a folder or the Hugging Face hub.

A shared network is a folder. It holds model.safetensors (the trained weights), config.json (the network's options),
README.md (the model card with the run's test table) and config.yaml (the run's options). It does not hold the backbone.
`GoalNetwork.from_pretrained` reads such a folder.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import HfApi

from gssr.network.pretrained import CARD, SETTINGS, WEIGHTS, fetch, is_hub_id, read_network, write_network
from gssr.runs.checkpoint_file import read_checkpoint
from gssr.runs.folders import BEST, CONFIG, LAST, RUNS, Found, checkpoint_file, find_checkpoint, run_path

FILES = (WEIGHTS, SETTINGS, CARD, CONFIG)


def push(
    checkpoint_or_run: str, destination: str | Path, run: str | None = None, hub: bool = False, private: bool = False
) -> str:
    """Write a trained network, its options and its model card to a folder or to the hub.

    Args:
        checkpoint_or_run: ``best`` or ``last``, the path of a checkpoint, or a run, which means its best checkpoint.
        destination: A local folder, new or of an earlier push; with ``hub`` a hub id, owner/name.
        run: The run of ``best`` and ``last``; the newest by default.
        hub: Push to the hub.
        private: Make a new hub repository private.

    Returns:
        The folder, or the address on the hub.

    Raises:
        ValueError: There is no such checkpoint, the folder holds something else, or the hub refuses.
    """
    found = _find(checkpoint_or_run, run)
    checkpoint = read_checkpoint(found.checkpoint)
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
        source: A local folder or a hub id.
        destination: A new folder; ``runs/<name>`` by default.
        revision: Branch, tag or commit of a hub id.
        offline: Use only what the hub cache already holds.

    Raises:
        ValueError: The network cannot be fetched, it is damaged, or the destination holds something else.
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
    """Markdown after the hub's front matter: values, backbone, widths, usage and the test table."""
    p, backbone = checkpoint["hyper_parameters"], checkpoint["gssr"]["backbone"]
    front: dict[str, Any] = {"library_name": "gssr", "tags": ["goal-network", "world-model", "state-space-model"]}
    if is_hub_id(backbone["name"]):
        front["base_model"] = backbone["name"]
    names, world = p["values"], p["world"]
    values = ", ".join(f"{n} ({u})" if u else n for n, u in zip(names["names"], names["units"], strict=True))
    weights = sum(tensor.numel() for tensor in checkpoint["state_dict"].values())
    pinned = [f"{key} `{backbone[key]}`" for key in ("revision", "commit", "fingerprint") if backbone.get(key)]
    lines = [
        "---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "",
        f"# {name}", "",
        f"A goal network of [gssr]: {weights:,} trained numbers around a frozen language model, after "
        f"{checkpoint['global_step']:,} steps. "
        "It forecasts sequences of values and texts, and imagines how they would unfold if a goal in words came true.",
        "",
        f"- values: {values}",
        f"- backbone, not in these files: `{backbone['name']}` ({', '.join(pinned)}), "
        f"in {p['backbone']['dtype']}",
        f"- latent width {world['latent_dim']}, GRU width {world['hidden_dim']}, "
        f"{p['speech']['prefix_tokens']} prefix tokens, schedule {p['steering']['schedule']['class_path']}",
        "", "## Use", "",
        "```bash", f"gssr pull {place}", f"python train.py predict --run {name}", "```", "",
        "```python", "from gssr.network import GoalNetwork", "",
        f"network = GoalNetwork.from_pretrained({place!r})", "```", "",
        'Where the backbone lies elsewhere, add `backbone={"name": folder}`.', "",
        "## Results", "", _test_table(found),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _test_table(found: Found) -> str:
    """The run's newest test report; tests score the best checkpoint, so an older report belongs to another one."""
    reports: list[Path] = []
    if found.run is not None and found.checkpoint == checkpoint_file(found.run, BEST):
        reports = sorted(found.run.glob("test*/*_test.md"), key=lambda file: file.stat().st_mtime)
    if not reports or reports[-1].stat().st_mtime < found.checkpoint.stat().st_mtime:
        return "This checkpoint was not tested."
    text = reports[-1].read_text(encoding="utf-8").strip()
    return re.sub(r"^(#+ )", r"#\1", text, flags=re.MULTILINE)


def _find(which: str, run: str | None) -> Found:
    is_run = which not in (BEST, LAST) and not Path(which).is_file() and run is None
    return find_checkpoint(BEST, which) if is_run and run_path(which).is_dir() else find_checkpoint(which, run)


def _hide_folder(checkpoint: dict[str, Any]) -> None:
    """Replace the path of a local backbone by its name: others cannot use the path, and it is private."""
    for backbone in (checkpoint["hyper_parameters"]["backbone"], checkpoint["gssr"]["backbone"]):
        if Path(backbone["name"]).exists():
            backbone["name"] = Path(backbone["name"]).name


def _refuse_occupied(folder: Path) -> None:
    """Refuse a folder unless it is new, empty, or holds a shared network, which may be replaced."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not ((folder / SETTINGS).exists() and (folder / WEIGHTS).exists()):
        raise ValueError(f"the folder {folder} holds something else; give a new one")


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
