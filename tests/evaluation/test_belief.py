"""Text evidence and latent health with a network whose belief is known."""

import numpy as np
import pytest
import torch

from gssr.evaluation.belief import latent_health, text_evidence
from gssr.sequences.collate import collate
from tests.evaluation.fakes import FakeSpeaker, series


@pytest.fixture
def batch():
    return collate([record for n in range(8) for record in series(n)])


def test_a_belief_that_knows_its_series_gains_and_pairs_share_label_but_not_series(batch):
    asked = []

    class Asked(FakeSpeaker):
        def text_nats(self, x, texts, prompts, numbers):
            asked.append((x[:, 0].round().int().tolist(), texts, numbers.tolist()))
            return super().text_nats(x, texts, prompts, numbers)

    evidence = text_evidence(Asked(), batch, steps=50, batch_size=400)
    (own, texts, numbers), (other, same_texts, same_numbers), (changed, _, other_numbers) = asked
    assert texts == same_texts and 30 < len(texts) <= 50
    # Of what tells all, the values are of the other belief's step, too.
    assert changed == other and all(a != b for a, b in zip(other_numbers, numbers, strict=True))
    at = {batch.text[b][t]: batch.value[b, t].tolist() for b in range(len(batch)) for t in range(len(batch.text[b]))}
    assert numbers == same_numbers == [at[text] for text in texts]  # the other belief speaks at the own values
    labels = {(s, t): label for s, times, row in _steps(batch) for t, label in zip(times, row, strict=True)}
    said = [(text.split(" at ")[0], int(text.split(" at ")[1])) for text in texts]
    assert all(f"Storm {x}" == name for x, (name, _) in zip(own, said, strict=True))
    assert all(f"Storm {x}" != name for x, (name, _) in zip(other, said, strict=True))
    of_series = {}
    for (name, _), label in labels.items():
        of_series.setdefault(name, set()).add(label)
    assert all(labels[key] in of_series[f"Storm {x}"] for x, key in zip(other, said, strict=True))
    assert all(time >= 4 for _, time in said)  # no step of a window's context
    assert len(set(said)) == len(said)  # a step once, although windows overlap
    expected = np.mean([(x - int(name.split()[1])) ** 2 for x, (name, _) in zip(other, said, strict=True)]) / 2
    assert evidence.gain.value == pytest.approx(expected, rel=0.02)
    assert evidence.gain.low > 0 and evidence.gain_of_all == evidence.gain
    assert evidence.other.value - evidence.own.value == pytest.approx(evidence.gain.value)


def test_a_row_that_says_all_is_what_gains(batch):
    """The belief knows nothing here, and the prompt tells the wind of a step."""

    class Told(FakeSpeaker):
        def __init__(self):
            super().__init__()
            self.prompts.of = lambda batch, steps, told=None: [f"{batch.value[b, t, 0]}" for b, t in told or steps]

        def text_nats(self, x, texts, prompts, numbers):
            own = [at[text] for text in texts]
            nats = torch.tensor([float(float(prompt) != wind) for prompt, wind in zip(prompts, own, strict=True)])
            return nats, torch.ones(len(texts))

    at = {batch.text[b][t]: float(batch.value[b, t, 0]) for b in range(len(batch)) for t in range(len(batch.text[b]))}
    evidence = text_evidence(Told(), batch, steps=50)
    assert evidence.gain.value == 0 and evidence.gain_of_all.value == 1


def _steps(batch):
    for row in range(len(batch)):
        yield (
            batch.series[row],
            [int(text.split(" at ")[1]) for text in batch.text[row]],
            batch.step_label[row],
        )


def test_a_belief_without_content_gains_nothing(batch):
    class Mute(FakeSpeaker):
        def prior_samples(self, batch, generator):
            return torch.randn(*batch.value.shape[:2], 1, generator=generator)

    gain = text_evidence(Mute(), batch, steps=60).gain
    assert gain.low < 0 < gain.high


def test_the_same_seed_gives_the_same_evidence(batch):
    first, again = (text_evidence(FakeSpeaker(), batch, steps=30, seed=3, batch_size=16) for _ in range(2))
    assert first == again


def test_steps_without_text_or_partner_are_left_out(batch):
    for row in range(len(batch)):
        batch.text[row] = [None] * 12
    batch.text[0][6], batch.text[5][7] = "Storm 0 at 6", "Storm 1 at 9"
    batch.step_label[0][6], batch.step_label[5][7] = "weak", "strong"
    assert text_evidence(FakeSpeaker(), batch) is None
    batch.step_label[5][7] = "weak"
    assert text_evidence(FakeSpeaker(), batch).gain.windows == 2


def test_nats_without_a_belief_stand_beside_those_with_one(batch):
    evidence = text_evidence(FakeSpeaker(), batch, steps=50)
    assert evidence.none.value == 2.0 and evidence.own.value < evidence.none.value


def test_latent_health_counts_used_dimensions(batch):
    network = FakeSpeaker()
    health = latent_health(network, batch, windows=10)
    assert len(network.health_batch) == 10
    assert health.used == 0.5 and health.permuted_ratio == 2.5
