"""Other families than Granite: the same likelihoods, states and texts as the plain model gives one at a time."""

import inspect
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    BambaConfig,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Mamba2Config,
    PretrainedConfig,
)

from datamodules.text.corpus import train_tokenizer
from gssr.backbone import FrozenBackbone
from gssr.states.prompts import ReadPrompts
from tests.conftest import SENTENCES

E, LAYERS = 32, 3
SIZES = {"vocab_size": 400, "hidden_size": E, "num_hidden_layers": LAYERS}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 48}
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 2, "mamba_chunk_size": 16}

# Falcon-H1, Cohere and Gemma with factors far from 1, so that one which is forgotten shows.
FAMILIES: dict[str, PretrainedConfig] = {
    "mamba2": Mamba2Config(**SIZES, **IDS, num_heads=4, head_dim=16, state_size=8, n_groups=2, chunk_size=16),
    "bamba": BambaConfig(**SIZES, **IDS, **HEADS, **MAMBA, attn_layer_indices=[1]),
    "falcon_h1": FalconH1Config(
        **SIZES, **IDS, **HEADS, **MAMBA, mamba_d_ssm=64, head_dim=16, embedding_multiplier=5.0,
        lm_head_multiplier=0.25,
        key_multiplier=0.5, ssm_in_multiplier=1.5,
    ),
    "llama": LlamaConfig(**SIZES, **IDS, **HEADS),
    "gpt_neox": GPTNeoXConfig(**SIZES, **IDS, num_attention_heads=2, intermediate_size=48),
    "gpt2": GPT2Config(vocab_size=400, n_embd=E, n_layer=LAYERS, n_head=2, **IDS),
    "gemma2": Gemma2Config(**SIZES, **IDS, **HEADS, head_dim=16, final_logit_softcapping=0.5),
    "cohere": CohereConfig(**SIZES, **IDS, **HEADS, logit_scale=0.3),
}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FrozenBackbone:
    folder: Path = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(FAMILIES[request.param])
    with torch.no_grad():
        for parameter in model.parameters():  # far enough from zero that every layer tells
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(folder)
    train_tokenizer(SENTENCES * 4, 400).save_pretrained(folder)
    return FrozenBackbone(str(folder))


def naive_nats(backbone: FrozenBackbone, before: list[int], text: str) -> torch.Tensor:
    """Nats of one text behind the tokens ``before``, from token ids, by the model's own logits."""
    ids = [*before, backbone.start_id, *backbone.tokenize([text])[0], backbone.tokenizer.eos_token_id]
    log_probs = F.log_softmax(backbone.model(input_ids=torch.tensor([ids[:-1]])).logits[0].float(), -1)
    return -sum(log_probs[i - 1, ids[i]] for i in range(len(before) + 1, len(ids)))


def test_nats_behind_a_prefix_of_words_are_the_models_own(backbone: FrozenBackbone) -> None:
    before = [[7, 20, 33], [8, 5, 300], [150, 151, 9], [40, 41, 42]]
    nats, _ = backbone.text_nats(backbone.embed(torch.tensor(before)), SENTENCES)
    expected = [naive_nats(backbone, ids, text) for ids, text in zip(before, SENTENCES, strict=True)]
    assert torch.allclose(nats, torch.stack(expected), rtol=1e-4)


def test_texts_behind_prompts_of_unequal_length_are_the_models_own(backbone: FrozenBackbone) -> None:
    prompts, texts = [f"{text}\n" for text in SENTENCES], SENTENCES[1:] + SENTENCES[:1]
    between = [[7, 20], [8, 5], [150, 151], [40, 41]]
    read = ReadPrompts(backbone, prompts)
    embedded = backbone.embed(torch.tensor(between))
    nats, tokens = backbone.text_nats(embedded, texts, read.last, read.read_on)
    written = backbone.generate(embedded, 4, read.write)
    end = backbone.tokenizer.eos_token_id
    for row, (prompt, inside, text) in enumerate(zip(prompts, between, texts, strict=True)):
        *first, last = backbone.tokenize([prompt])[0]
        before = [backbone.start_id, *first, *inside, last]
        ids = [*before, *backbone.tokenize([text])[0], end]
        log_probs = F.log_softmax(backbone.model(input_ids=torch.tensor([ids[:-1]])).logits[0].float(), -1)
        expected = -sum(log_probs[i - 1, ids[i]] for i in range(len(before), len(ids)))
        assert torch.allclose(nats[row], expected, rtol=1e-4) and tokens[row] == len(ids) - len(before)
        new = before
        while len(new) < len(before) + 4 and (new is before or new[-1] != end):
            new = [*new, int(backbone.model(input_ids=torch.tensor([new])).logits[0, -1].argmax())]
        assert written[row] == backbone.tokenizer.decode(new[len(before) :], skip_special_tokens=True).strip()


def test_neither_batch_nor_padding_changes_a_text_and_gradients_reach_its_prefix_alone(
    backbone: FrozenBackbone,
) -> None:
    noise = torch.randn(len(SENTENCES), 2, E, generator=torch.Generator().manual_seed(3))
    prefix = (noise * backbone.embedding_scale).requires_grad_()
    together, _ = backbone.text_nats(prefix, SENTENCES)
    (gradient,) = torch.autograd.grad(together[1], prefix)
    single, _ = backbone.text_nats(prefix[1:2], SENTENCES[1:2])
    (expected,) = torch.autograd.grad(single[0], prefix)
    assert torch.allclose(together[1], single[0], rtol=1e-5)
    assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    assert gradient[1].abs().sum() > 0 and not gradient[[0, 2, 3]].any()


def test_states_of_each_layer_are_those_that_the_model_reports(backbone: FrozenBackbone) -> None:
    for layer in range(1, LAYERS):  # what the model reports of its last layer is behind the final norm
        states, mask = backbone.token_states(SENTENCES, layer)
        for text, row, m in zip(SENTENCES, states, mask, strict=True):
            ids = torch.tensor([[backbone.start_id, *backbone.tokenize([text])[0]]])
            reported = backbone.model(input_ids=ids, output_hidden_states=True).hidden_states
            expected = reported[layer - (backbone.config.model_type == "mamba2")]  # which leaves its embeddings out
            assert torch.allclose(row[m], expected[0, 1:], atol=1e-4 * expected.abs().max().item())


def test_generation_goes_on_greedily_as_without_a_cache(backbone: FrozenBackbone) -> None:
    before = [[7, 20, 33], [8, 5, 300]]
    texts = backbone.generate(backbone.embed(torch.tensor(before)), max_new_tokens=5)
    for start, text in zip(before, texts, strict=True):
        ids = [*start, backbone.start_id]
        for _ in range(5):
            ids.append(int(backbone.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == backbone.tokenizer.eos_token_id:
                break
        assert text == backbone.tokenizer.decode(ids[len(start) + 1 :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("backbone", ["mamba2", "bamba", "falcon_h1"], indirect=True)
def test_the_fast_scan_of_the_cpu_gives_what_the_librarys_gives(
    backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    modeling = sys.modules[type(backbone.model).__module__]
    prefix = torch.zeros(len(SENTENCES), 1, E)
    fast, _ = backbone.text_nats(prefix, SENTENCES)
    for name in ("mamba2_chunk_scan", "causal_conv1d_fn"):
        assert inspect.unwrap(getattr(modeling, name)) is not getattr(modeling, name)
        monkeypatch.setattr(modeling, name, inspect.unwrap(getattr(modeling, name)))
    assert torch.allclose(backbone.text_nats(prefix, SENTENCES)[0], fast, rtol=1e-4)


def test_it_is_frozen(backbone: FrozenBackbone) -> None:
    assert not any(module.training for module in backbone.model.modules())
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert len(backbone.layers) == LAYERS


def test_bfloat16_gives_nearly_the_same(backbone: FrozenBackbone) -> None:
    coarse = FrozenBackbone(backbone.name, dtype="bfloat16")
    prefix = torch.zeros(len(SENTENCES), 1, E)
    fine, _ = backbone.text_nats(prefix, SENTENCES)
    assert torch.allclose(coarse.text_nats(prefix, SENTENCES)[0], fine, rtol=0.05)
