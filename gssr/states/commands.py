"""`gssr inspect` and `gssr state capture | show | blend | generate`."""

import argparse


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    del subparsers
