"""Tiny GGUF files, written by the package `gguf`."""

from pathlib import Path
from typing import Any

import numpy as np

E, LAYERS, HEADS, MLP, CONTEXT = 32, 2, 2, 64, 64


def alphabet() -> list[str]:
    """The characters that stand for the 256 bytes in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def write(path: Path, leave_out: str = "", **changed: Any) -> dict[str, np.ndarray]:
    """Write a llama of two layers with random weights, and return them by name.

    Args:
        leave_out: a tensor that is not written. changed: other values of keys, such as ``block_count``.
    """
    import gguf

    writer = gguf.GGUFWriter(path, changed.pop("architecture", "llama"))
    keys = {"context_length": CONTEXT, "embedding_length": E, "block_count": LAYERS, "feed_forward_length": MLP}
    keys |= {"head_count": HEADS, "head_count_kv": HEADS, "rope_dimension_count": E // HEADS}
    keys |= {"layer_norm_rms_eps": 1e-5}
    for name, value in (keys | changed).items():
        getattr(writer, f"add_{name}")(value)
    words = [*alphabet(), "<|endoftext|>", "Wi"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([1] * 256 + [3, 1])
    writer.add_token_merges(["W i"])
    for special in ("bos", "eos", "unk", "pad"):
        getattr(writer, f"add_{special}_token_id")(256)
    writer.add_tokenizer_pre("gpt-2")
    writer.add_chat_template("{{ raise_exception('never run') }}")
    draw = np.random.default_rng(0)
    shapes = {"token_embd.weight": (len(words), E), "output_norm.weight": (E,)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.attn_{part}.weight": (E, E) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.ffn_{part}.weight": (MLP, E) for part in ("gate", "up")}
        shapes |= {f"blk.{i}.{part}_norm.weight": (E,) for part in ("attn", "ffn")}
        shapes |= {f"blk.{i}.ffn_down.weight": (E, MLP)}
    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = draw.normal(1.0 if "norm" in name else 0.0, 0.1, shape).astype(np.float32)
        if name != leave_out:
            writer.add_tensor(name, tensors[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors
