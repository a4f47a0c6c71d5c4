"""Damaged and strange files, made from good ones, and what every reader must do with them."""

from __future__ import annotations

import copy
import io
import json
import os
import re
import resource
import signal
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from gssr.runs.folders import RunError

T = TypeVar("T")
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
SECONDS, MEGABYTES = 30, 512  # that a reader of a file of a few kB may take

NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**9, 10**30]), st.integers(-5, 300)
)
PLAIN = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.floats(allow_subnormal=False), st.text(max_size=12),
    st.sampled_from(["last", "os.system", "../x", "{value}", "{when}", "nan", "1e999", "!!python/name:os.system"]),
)  # fmt: skip
TREES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def fuzz(examples: int) -> settings:
    """So many examples, always the same ones, and the first failure as it is; a smaller one takes minutes to find.

    With HYPOTHESIS_PROFILE=long 100 times as many, each time others, and failures made small.
    """
    return settings(
        max_examples=100 * examples if LONG else examples, deadline=None, derandomize=not LONG, database=None,
        suppress_health_check=list(HealthCheck), phases=list(Phase) if LONG else [Phase.generate],
    )  # fmt: skip


class TooSlow(BaseException):
    """Not an Exception, so that no reader catches it."""


def read_or_refuse(read: Callable[[], T]) -> T | None:
    """What a reader returns, None where it refuses; any other exception, a long time and much memory are failures."""

    def stop(*_: Any) -> None:
        raise TooSlow(f"the reader took more than {SECONDS} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except (ValueError, RunError) as error:
        said = str(error)
        assert said.strip(), "an error without words"
        assert "weights_only" not in said, f"advice that runs code: {said}"
        assert len(said) < 5000, "an error that nobody can read"
        return None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert grown < MEGABYTES, f"the reader took {grown:.0f} MB"


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes flipped, cut, repeated, moved or written over; numbers in words and in binary replaced."""
    raw = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        if not raw:
            break
        at = draw(st.one_of(st.integers(0, len(raw) - 1), st.integers(0, min(len(raw), 200) - 1)))
        end = min(len(raw), at + draw(st.integers(1, 64)))
        kind = draw(st.sampled_from(["bit", "cut", "drop", "repeat", "splice", "fill", "word", "number"]))
        if kind == "bit":
            raw[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del raw[at:]
        elif kind == "drop":
            del raw[at:end]
        elif kind == "repeat":
            raw[at:at] = raw[at:end] * draw(st.integers(1, 50))
        elif kind == "splice":
            other = draw(st.integers(0, len(raw) - 1))
            raw[at:end] = raw[other : other + end - at]
        elif kind == "fill":
            raw[at:end] = bytes([draw(st.integers(0, 255))]) * (end - at)
        elif kind == "word":
            raw[at : at + 8] = struct.pack("<Q", draw(NUMBERS) % 2**64)
        else:
            found = list(re.finditer(rb"-?\d+", bytes(raw[:4096])))
            if found:
                chosen = found[draw(st.integers(0, len(found) - 1))]
                raw[chosen.start() : chosen.end()] = str(draw(NUMBERS)).encode()
    return bytes(raw)


@st.composite
def changed(draw: st.DrawFn, tree: Any) -> Any:
    """A tree of plain values with one to three places replaced, removed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        node = tree
        while isinstance(node, (dict, list)) and node:
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            if not isinstance(node[key], (dict, list)) or not node[key] or draw(st.booleans()):
                break
            node = node[key]
        if not isinstance(node, (dict, list)) or not node:
            return draw(TREES)
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if kind == "replace":
            node[key] = draw(TREES)
        elif kind == "remove":
            del node[key]
        elif isinstance(node, dict):
            node[draw(st.text(max_size=8))] = draw(TREES)
        else:
            node.insert(0, draw(TREES))
    return tree


@st.composite
def strange_safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    """Another header, with its right length, before the same numbers."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.dumps(draw(changed(json.loads(content[8 : 8 + size])))).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


@st.composite
def strange_zip(draw: st.DrawFn, content: bytes) -> bytes:
    """One member damaged, with the right checksum; now and then a member is left out or doubled."""
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        members = {name: parts.read(name) for name in parts.namelist()}
    name = draw(st.sampled_from(sorted(members, key=lambda name: not name.endswith("data.pkl"))))
    if draw(st.integers(0, 5)) == 0:
        del members[name]
    else:
        members[name] = draw(damaged(members[name]))
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as parts:
        for member, part in members.items():
            parts.writestr(member, part)
    return written.getvalue()
