"""Texts behind what was said before and the values in words: measured, written, fed back, and off by default."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import DynamicCache

from gssr.network import GoalNetwork
from gssr.network.prompt import Prompts, Said
from gssr.network.speaker import SpeechConfig
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record
from gssr.sequences.row_in_words import RowInWords
from gssr.states.intervention import steer
from gssr.states.prompts import ReadPrompts
from gssr.states.rules import Offset
from tests.network.test_speaker import TEXTS, network, noise

PROMPTS = ["Tropical storm Alex near 30.0 north.\n", "Weaken.\nwind 35 kt: "]
ROW = RowInWords("wind {wind} kt:", ["wind"], ["kt"], [5.0])
SAID = ["one", None, "three", "four"]


def record(texts: list[str | None], value: list[float] | None = None) -> Record:
    steps = len(texts)
    value = value or [30.0 + 5 * t for t in range(steps)]
    return Record("Ian", 6.0 * torch.arange(steps).numpy(), [[v] for v in value], texts, goal_start=1)


def prompting(folder: Path, injection: str = "prefix", **speech: object) -> GoalNetwork:
    net = network(folder, injection)
    net.speaker.prompts = Prompts(**speech)
    return net


@pytest.mark.parametrize(
    ("options", "step", "prompt"),
    [
        ({}, 3, None),
        ({"history": 1}, 0, None),
        ({"history": 1}, 1, "one\n"),
        ({"history": 1}, 2, "one\n"),
        ({"history": 2}, 3, "one\nthree\n"),
        ({"history": 9, "between": " | "}, 3, "one | three | "),
        ({"row": ROW}, 3, "wind 45 kt: "),
        ({"history": 1, "row": ROW}, 3, "three\nwind 45 kt: "),
        ({"history": 1, "between": " "}, 0, None),
        ({"history": 1, "row": ROW, "rows": True}, 3, "wind 40 kt: three\nwind 45 kt: "),
        ({"history": 2, "row": ROW, "rows": True}, 3, "wind 30 kt: one\nwind 40 kt: three\nwind 45 kt: "),
        ({"history": 2, "rows": True}, 3, "one\nthree\n"),
    ],
)
def test_a_prompt_holds_the_last_texts_said_before_and_the_own_row(
    options: dict[str, object], step: int, prompt: str | None
) -> None:
    batch = collate([record(SAID), record(SAID)])
    assert Prompts(**options).of(batch, [(1, step)]) == [prompt]


def test_what_was_not_heard_is_in_no_prompt_and_an_unknown_value_in_no_row() -> None:
    batch = collate([record(SAID, [30, 35, 40, float("nan")]), record(SAID)])
    prompts = Prompts(1, row=ROW).of(batch, [(0, 3), (1, 3)], torch.tensor([False, False]))
    assert prompts == [None, "wind 45 kt: "]


def test_training_also_sees_prompts_without_the_newest_texts() -> None:
    batch, steps = collate([record(["one", "two", "three", "four"])]), [(0, 3), (0, 1), (0, 0)] * 40
    drawn, again = (Prompts(1).of(batch, steps, None, torch.Generator().manual_seed(0)) for _ in range(2))
    assert drawn == again and set(drawn[1::3]) == {"one\n"} and set(drawn[2::3]) == {None}
    share = {text: drawn[::3].count(text) / 40 for text in ("one\n", "two\n", "three\n")}
    assert 0.3 < share["three\n"] < 0.7 and min(share.values()) > 0


@pytest.mark.parametrize("injection", ["prefix", "state", "both"])
def test_kept_states_and_reading_the_prompt_again_agree(
    tiny_folder: Path, injection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(tiny_folder, injection)
    x = noise(2, 4).requires_grad_()
    nats, tokens = net.speaker.text_nats(x, TEXTS, PROMPTS)
    (gradient,) = torch.autograd.grad(nats.sum(), x)
    texts = net.speaker.write(x, 8, PROMPTS)
    monkeypatch.setattr("gssr.states.prompts.can_keep", lambda backbone: False)
    again, same = net.speaker.text_nats(x, TEXTS, PROMPTS)
    torch.testing.assert_close(nats, again, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, torch.autograd.grad(again.sum(), x)[0], rtol=1e-3, atol=1e-4)
    assert torch.equal(tokens, same) and any(texts)
    if injection == "prefix":
        assert texts == net.speaker.write(x, 8, PROMPTS)
    # Prompts matter, and so does their order.
    assert (nats - net.speaker.text_nats(x, TEXTS)[0]).abs().min() > 1e-3
    assert (nats - net.speaker.text_nats(x, TEXTS, PROMPTS[::-1])[0]).abs().min() > 1e-3


@pytest.mark.parametrize("injection", ["prefix", "state", "both"])
def test_what_is_trained_behind_a_prompt_is_what_is_written(tiny_folder: Path, injection: str) -> None:
    net, x = network(tiny_folder, injection), noise(2, 4)
    nats, _ = net.speaker.text_nats(x, TEXTS, PROMPTS)
    for row, (text, prompt) in enumerate(zip(TEXTS, PROMPTS, strict=True)):
        assert nats[row].item() == pytest.approx(token_by_token(net, x[row], text, prompt), rel=1e-4)


@torch.no_grad()
def token_by_token(net: GoalNetwork, x: torch.Tensor, text: str, prompt: str) -> float:
    """Nats of a text behind a prompt, fed token by token to the steered model, with nothing kept."""
    backbone = net.backbone
    prefix, change = net.speaker(x[None], prompted=True)
    bare = prompt.rstrip(" ")
    read = [backbone.start_id, *backbone.tokenize([bare])[0]]
    targets = [*backbone.tokenize([prompt[len(bare) :] + text])[0], backbone.tokenizer.eos_token_id]
    cache, total = DynamicCache(config=backbone.model.config), 0.0
    lead = torch.cat([backbone.embed(torch.tensor([read[:-1]])), prefix, backbone.embed(torch.tensor([read[-1:]]))], 1)
    given = {"inputs_embeds": lead}
    with steer(backbone.model, Offset(change)) if change else torch.no_grad():
        for target in targets:
            logits = backbone.model(**given, past_key_values=cache, use_cache=True).logits[0, -1]
            total -= F.log_softmax(logits, -1)[target].item()
            given = {"input_ids": torch.tensor([[target]])}
    return total


def test_rows_with_and_without_a_prompt_do_not_depend_on_each_other(tiny_folder: Path) -> None:
    net, x = network(tiny_folder, "prefix"), noise(4, 4)
    texts, prompts = TEXTS * 2, [PROMPTS[0], None, PROMPTS[1], PROMPTS[0]]
    together, tokens = net.speaker.text_nats(x, texts, prompts)
    silent = net.speaker.silent_nats(texts, prompts)[0]
    written = net.speaker.write(x, 6, prompts)
    for i in range(4):
        alone = [x[i : i + 1], texts[i : i + 1], prompts[i : i + 1]]
        nats, count = net.speaker.text_nats(*alone)
        torch.testing.assert_close(together[i : i + 1], nats, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(silent[i : i + 1], net.speaker.silent_nats(*alone[1:])[0], rtol=1e-4, atol=1e-4)
        assert written[i] == net.speaker.write(alone[0], 6, alone[2])[0] and tokens[i] == count[0]
    assert torch.equal(together[1:2], net.speaker.text_nats(x[1:2], texts[1:2])[0])


def test_equal_prompts_are_read_once(tiny_folder: Path) -> None:
    backbone = network(tiny_folder, "prefix").backbone
    read = ReadPrompts(backbone, [PROMPTS[0]] * 3 + [PROMPTS[1]])
    assert read.state is not None and read.state.rows == 2
    assert len(read.last) == 4 and torch.equal(read.last[0], read.last[2])


def test_without_earlier_texts_all_numbers_are_those_of_a_network_without_history(tiny_folder: Path) -> None:
    batch = collate([record([None, "one", None, None]), record([None, None, "one", None])])
    losses, plans = [], []
    for history in (0, 1):
        net = prompting(tiny_folder, history=history)
        net.world.scaler.fit(torch.tensor([[20.0], [150.0]]))
        losses.append(net.objective(batch, torch.Generator().manual_seed(0), training=True).total)
        quiet = collate([record([None] * 4)] * 2)
        plans.append(net.plan(quiet.select([0]), [None], 4, max_new_tokens=4))
    assert torch.equal(*losses)
    assert plans[0].text[0][0] == plans[1].text[0][0]


def test_texts_that_a_plan_has_written_stand_before_its_next_ones(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = prompting(tiny_folder, history=1, row=ROW)
    net.world.scaler.fit(torch.tensor([[20.0], [150.0]]))
    batch: Batch = collate([record(SAID), record([None] * 4)])
    asked: list[list[str | None]] = []

    def write(x: torch.Tensor, most: int, prompts: list[str | None], numbers: torch.Tensor) -> list[str]:
        asked.append(prompts)
        return ["" if len(asked) == 1 and row else f"own {len(asked)} {row}" for row in range(len(x))]

    monkeypatch.setattr(net.speaker, "write", write)
    plan = net.plan(batch, [None, None], samples=2)
    rows = [[f"{ROW([v])} " for v in values] for values in plan.spoken[..., 0].tolist()]
    assert torch.equal(plan.spoken, 5 * (plan.spoken / 5).round())
    told = plan.rollouts.mean.gather(0, plan.futures[0].rollout[None, :, None, None].expand(1, -1, 2, 1))[0]
    assert 0 < (plan.spoken - told).abs().max() <= 2.5
    assert plan.text == [["own 1 0", "own 2 0"], ["", "own 2 1"]]
    # The horizon's own texts are never read; an empty text says nothing.
    assert asked == [[f"one\n{rows[0][0]}", rows[1][0]], [f"own 1 0\n{rows[0][1]}", rows[1][1]]]


def test_a_plan_is_what_writing_step_by_step_gives(tiny_folder: Path) -> None:
    net = prompting(tiny_folder, history=2)
    net.world.scaler.fit(torch.tensor([[20.0], [150.0]]))
    batch = collate([record(SAID)])
    plan = net.plan(batch, [None], samples=1, max_new_tokens=5)
    x, said = plan.rollouts.x[0, 0], ["one"]
    for step, text in enumerate(plan.text[0]):
        assert text == net.speaker.write(x[step : step + 1], 5, ["".join(f"{t}\n" for t in said[-2:])])[0]
        said += [text] if text else []


def test_a_checkpoint_fixes_history_and_row(tiny_folder: Path) -> None:
    from gssr.network.compatibility import fixed_options
    from gssr.network.options import KINDS
    from tests.networks import make_network

    made = make_network(tiny_folder, history=1, row="{values}:", text_layers=(2,), goal_layer=2, names=["wind"])
    fixed = fixed_options(made.hparams, KINDS)
    assert (fixed["speech.history"], fixed["speech.between"], fixed["speech.row"]) == (1, "\n", "{values}:")
    assert made.speaker.prompts([Said("a", [2.0])], [3.0]) == "a\nwind 3: "
    with pytest.raises(ValueError, match="the row in words"):
        make_network(tiny_folder, row="{pressure}", text_layers=(2,), goal_layer=2, names=["wind"])


@pytest.mark.parametrize(
    ("given", "row"),
    [
        ('"{values}:"', "{values}:"),
        ('"{values}\\n"', "{values}\n"),
        ("{values}", "{values}"),
        ("7", "7"),
        (None, None),
        ("None", None),
    ],
)
def test_quotes_of_the_command_line_are_no_part_of_a_row(given: str | None, row: str | None) -> None:
    assert SpeechConfig(row=given).row == row and SpeechConfig(between=f"{given}").between in (row, "None")


@pytest.mark.parametrize("own", [True, False])
def test_a_plan_reads_its_own_texts_with_the_values_they_were_written_at_or_observed_ones_alone(
    own: bool, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = prompting(tiny_folder, history=1, row=ROW, rows=True, own=own)
    asked: list[list[str | None]] = []

    def write(x: torch.Tensor, most: int, prompts: list[str | None], numbers: torch.Tensor) -> list[str]:
        asked.append(prompts)
        return [f"text {len(asked)}" for _ in prompts]

    monkeypatch.setattr(net.speaker, "write", write)
    plan = net.plan(collate([record(["one", None, "three", "four"])]), [None], samples=2)
    first, second = (ROW(values) for values in plan.spoken[0].tolist())
    if own:
        assert asked == [[f"wind 30 kt: one\n{first} "], [f"{first} text 1\n{second} "]]
    else:
        assert asked == [[f"wind 30 kt: one\n{first} ", f"wind 30 kt: one\n{second} "]]
    assert len(plan.text[0]) == 2


@pytest.mark.parametrize("injection", ["prefix", "state"])
def test_what_speaks_reads_the_values_of_the_texts_step_and_their_change(tiny_folder: Path, injection: str) -> None:
    net = network(tiny_folder, injection, values=True)
    net.world.scaler.fit(torch.tensor([[20.0], [150.0]]))
    steps = [30.0, 35.0, 50.0, 35.0]
    net.world.scaler.usual_change.fill_(5.0)
    numbers = net.forecaster.numbers(collate([record(SAID, steps)]))[0]
    mean, std = net.world.scaler.mean.item(), net.world.scaler.std.item()
    level = (35 - mean) / std
    assert numbers[3, :3].tolist() == pytest.approx([level, 1, -15 / 5], abs=1e-5)
    waves = [wave(2 * math.pi * level / period) for period in (8, 4, 2, 1, 0.5) for wave in (math.sin, math.cos)]
    assert numbers[3, 3:].tolist() == pytest.approx(waves, abs=1e-4)
    assert torch.equal(numbers[1, :2], numbers[3, :2])
    unknown = net.forecaster.numbers(collate([record(SAID, [30, float("nan"), 50, 35])]))[0]
    assert unknown[1].tolist() == [0] * 13 and unknown[2, 2] == 0 and torch.equal(unknown[3], numbers[3])
    x, texts = noise(1, 4).expand(4, -1), TEXTS[:1] * 4
    nats, _ = net.speaker.text_nats(x, texts, None, numbers)
    assert (nats[1] - nats[3]).abs() > 1e-4  # of the same value, risen or fallen
    torch.testing.assert_close(
        net.speaker.text_nats(x[:1], texts[:1], PROMPTS[:1], numbers[1:2])[0],
        net.speaker.text_nats(x[:2], texts[:2], PROMPTS[:1] * 2, numbers[:2])[0][1:],
        rtol=1e-4,
        atol=1e-4,
    )
    without = network(tiny_folder, injection)
    assert torch.equal(*(without.speaker.text_nats(x, texts, None, given)[0] for given in (None, numbers)))


def test_a_plan_speaks_from_its_imagined_values_and_training_from_true_ones(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, given = network(tiny_folder, "prefix", values=True), []
    net.world.scaler.fit(torch.tensor([[20.0], [150.0]]))
    batch = collate([record(["one"] * 4), record(["one"] * 4)])
    forward = net.speaker.forward

    def noted(x: torch.Tensor, prompted: bool = False, numbers: torch.Tensor | None = None) -> object:
        given.append(numbers)
        return forward(x, prompted, numbers)

    monkeypatch.setattr(net.speaker, "forward", noted)
    plan = net.plan(batch, [None, None], samples=2, max_new_tokens=2)
    told = torch.cat([torch.full((2, 1), 35.0), plan.spoken[..., 0]], 1)
    scaled = net.world.scaler.transform(told[..., None])[..., 0]
    expected = torch.stack([scaled[:, 1:], torch.ones(2, 2), told.diff(dim=1)], -1)
    torch.testing.assert_close(torch.cat(given).view(2, 2, 13)[..., :3], expected, rtol=1e-4, atol=1e-4)
    given.clear()
    net.objective(batch, torch.Generator().manual_seed(0), training=False)
    true = net.forecaster.numbers(batch).flatten(0, 1).tolist()
    assert sum(len(part) for part in given if part is not None) == 3  # text_steps
    assert all(row in true for part in given if part is not None for row in part.tolist())


@pytest.mark.parametrize("values", [True, False])
def test_beside_values_words_are_learned_behind_beliefs_that_have_not_read_their_text(
    tiny_folder: Path, values: bool
) -> None:
    net, seen = network(tiny_folder, "prefix", values=values), []
    net.world.scaler.fit(torch.tensor([[20.0], [150.0]]))
    for last in ("one", "three"):
        batch = collate([record(["one", "one", "one", last])])
        filtered = net.world.observe(batch, torch.zeros(1, 4, net.world.config.latent_dim))
        seen.append(net.objective.spoken_from(filtered, torch.Generator().manual_seed(0))[0, 3])
    assert torch.equal(*seen) == values
    assert net.forecaster.prior_samples(batch).shape[-1] == len(seen[0])
