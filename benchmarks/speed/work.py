"""The work to measure: a network with storms, texts behind prefixes, a text likelihood of any model."""

import random
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules import Storms
from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.backbone.cross_entropy import token_nats
from gssr.network import GoalNetwork
from gssr.network.objective import ObjectiveConfig
from gssr.network.options import ValuesConfig
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch


@cache
def storms() -> Storms:
    data = Storms()
    data.setup("fit")
    return data


def network_and_batch(size: int, text_steps: int = 10**6, dtype: str = "float32") -> tuple[GoalNetwork, Batch]:
    """A new nano network, by default with every text in the text loss, and some training windows."""
    data = storms()
    network = GoalNetwork(
        backbone=BackboneConfig(dtype=dtype),
        objective=ObjectiveConfig(text_steps=text_steps),
        values=ValuesConfig(data.value_names, data.value_units, data.value_resolution),
    )
    network.world.fit_units(data.scaler, data.value_resolution)
    batch = collate([data.train_records[(0, 37 * i)] for i in range(size)])
    network.world.table.add([text for row in batch.text for text in row if text is not None], keep=False)
    return network, batch


def update(optimizer: torch.optim.Optimizer, terms: dict[str, torch.Tensor]) -> None:
    """One optimizer step on the sum of losses."""
    optimizer.zero_grad()
    sum(terms.values()).backward()
    optimizer.step()


def prefix_and_texts(backbone: FrozenBackbone, count: int) -> tuple[Tensor, list[str]]:
    """Random prefixes (N, P, E), P = 4, that require a gradient, and N texts of storms."""
    texts = storms().texts()
    chosen = random.Random(0).sample(texts, count)
    generator = torch.Generator().manual_seed(0)
    prefix = torch.randn(count, 4, backbone.hidden_size, generator=generator) * backbone.embedding_scale
    return prefix.requires_grad_(), chosen


def text_call(model: torch.nn.Module, batch: int, length: int, path: str) -> Callable[[], None]:
    """Text likelihood forward and backward to a prefix of 4; the library's path has logits of all positions at once."""
    device, weight = model.get_input_embeddings().weight.device, model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(weight.shape[0], (batch, length + 1), generator=generator).to(device)
    prefix = (
        torch.randn(batch, 4, weight.shape[1], generator=generator).to(device, weight.dtype).mul(0.02).requires_grad_()
    )
    scaling = model.config.logits_scaling

    def ours() -> None:
        embedded = torch.cat([prefix, model.get_input_embeddings()(ids[:, :-1])], 1)
        hidden = model.get_decoder()(inputs_embeds=embedded, use_cache=False).last_hidden_state[:, 4:].flatten(0, 1)
        rows = max(1, 2**24 // weight.shape[0])
        nats = token_nats(hidden, ids[:, 1:].flatten(), lambda h: model.get_output_embeddings()(h) / scaling, rows)
        nats.sum().backward()

    def plain() -> None:
        embedded = torch.cat([prefix, model.get_input_embeddings()(ids[:, :-1])], 1)
        logits = model(inputs_embeds=embedded, use_cache=False).logits[:, 4:]
        F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum").backward()

    return plain if path == "library" else ours
