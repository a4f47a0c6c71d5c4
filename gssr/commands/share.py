"""`gssr push` and `gssr pull`: share a trained goal network and fetch a shared one."""

import argparse

from gssr import shown
from gssr.commands.options import Subparsers, add_command, hub_options, run_option


def add_commands(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "push",
        "write a trained goal network to a folder or the Hugging Face hub",
        ["gssr push best exports/mine", "gssr push best someone/mine --hub --private"],
        "The files are safetensors, the network's options and a model card with the run's test table.",
    )
    parser.add_argument("checkpoint", help="best or last, the path of a checkpoint, or a run (its best)")
    parser.add_argument("destination", help="a folder, new or of an earlier push; with --hub owner/name")
    run_option(parser)
    parser.add_argument("--hub", action="store_true", help="push to the Hugging Face hub, not to a folder")
    parser.add_argument("--private", action="store_true", help="make a new hub repository private")
    parser.set_defaults(run=push)

    parser = add_command(
        subparsers,
        "pull",
        "fetch a shared goal network from a folder or the hub",
        ["gssr pull someone/mine", "gssr pull exports/mine runs/mine"],
        "The result is a run folder: python train.py test and predict take it as --run.",
    )
    parser.add_argument("source", help="a folder that push wrote, or owner/name on the hub")
    parser.add_argument("destination", nargs="?", help="a new folder; default runs/<name>")
    hub_options(parser)
    parser.set_defaults(run=pull)


def push(options: argparse.Namespace) -> None:
    from gssr.runs import sharing

    place = sharing.push(options.checkpoint, options.destination, options.run_folder, options.hub, options.private)
    print(f"pushed: {shown.line(place)}")


def pull(options: argparse.Namespace) -> None:
    from gssr.runs import sharing
    from gssr.runs.folders import CONFIG, run_argument

    folder = sharing.pull(options.source, options.destination, options.revision, options.offline)
    print(f"pulled: {shown.line(folder)}\n  Python    GoalNetwork.from_pretrained({str(folder)!r})")
    if (folder / CONFIG).exists():
        run = run_argument(folder)
        print(f"  test      python train.py test --run {run}\n  predict   python train.py predict --run {run}")
