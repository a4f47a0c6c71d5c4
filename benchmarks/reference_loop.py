"""The plain loop that gssr is compared with: one sequence and one step at a time, nothing kept, nothing shared.

Each step reads its text anew through all layers of the frozen model, and the likelihood of a text computes logits at
every position: prefix, start token and text. The arithmetic is that of ``gssr.network.objective.Objective`` with every
text in the text loss; ``benchmarks.speed`` checks that the losses agree. Shapes: B sequences, T steps, D latent
dimensions, F features of a text.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.network import GoalNetwork
from gssr.network.gaussian import kl
from gssr.network.losses import value_nll
from gssr.network.posterior import observed
from gssr.network.rssm import Belief
from gssr.sequences.record import Batch

LOSSES = ("value", "text", "kl")


def losses(network: GoalNetwork, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
    """Value NLL and KL a step, text loss a token, of the filtered pass under each sequence's goal; noise (B, T, D)."""
    world, free_nats = network.world, network.objective.free_nats
    sums = {name: torch.zeros(()) for name in LOSSES}
    counts = dict.fromkeys(LOSSES, 0)
    scaled = world.scaler.transform(batch.value, batch.value_mask)
    for b in range(len(batch)):
        one = batch.select([b])
        pull = world.steering.towards(world.encode_goals(one, one.goal))
        belief = world.rssm.initial(1)
        for t in range(int(batch.step_mask[b].sum())):
            value, value_mask, text = scaled[b, t][None], batch.value_mask[b, t][None], batch.text[b][t]
            text_mask = torch.tensor([text is not None])
            state = torch.zeros(1, world.table.width) if text is None else read(network, text)
            h, prior, steered, _ = world.rssm.step(belief, t, pull)
            observation = observed(value, value_mask, world.text_projection(state), text_mask)
            posterior = world.rssm.posterior(h, prior, observation)
            anything = bool(value_mask.any() or text_mask)
            x = (posterior if anything else prior).sample(noise[b, t][None])
            known, seen = torch.where(value_mask, value, torch.zeros_like(value)), value_mask.to(value.dtype)
            belief = Belief(h, x, known, seen, (known - belief.value) * belief.seen * seen)
            if value_mask.any():
                sums["value"] = sums["value"] + value_nll(world.decode(x), value, value_mask).sum()
                counts["value"] += 1
            if anything:
                sums["kl"] = sums["kl"] + kl(posterior, steered).sum().clamp(min=free_nats)
                counts["kl"] += 1
            if text is not None:
                nats, tokens = text_nats(network, x, text)
                sums["text"], counts["text"] = sums["text"] + nats, counts["text"] + tokens
    return {name: sums[name] / max(1, counts[name]) for name in LOSSES}


@torch.no_grad()
def read(network: GoalNetwork, text: str) -> Tensor:
    """Mean token states (1, F) of a text, from a pass through all layers."""
    backbone = network.backbone
    ids = torch.tensor([[backbone.start_id, *backbone.tokenize([text])[0]]])
    states = backbone.model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
    return torch.cat([states[layer][0, 1:].float().mean(0) for layer in network.world.table.layers])[None]


def text_nats(network: GoalNetwork, x: Tensor, text: str) -> tuple[Tensor, int]:
    """Nats of one text behind the prefix of x (1, D), from the logits of every position; and its targets."""
    backbone = network.backbone
    ids = torch.tensor([backbone.start_id, *backbone.tokenize([text])[0], backbone.tokenizer.eos_token_id])
    prefix = network.speaker.prefix(x).to(backbone.table.weight.dtype)
    logits = backbone.model(
        inputs_embeds=torch.cat([prefix, backbone.table(ids[None, :-1])], 1), use_cache=False
    ).logits
    return F.cross_entropy(logits[0, prefix.shape[1] :].float(), ids[1:], reduction="sum"), len(ids) - 1
