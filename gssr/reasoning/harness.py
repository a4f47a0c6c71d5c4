"""A model with thoughts for lm-evaluation-harness (``pip install 'gssr[eval]'``), so that its tasks can be run.

from gssr.reasoning.harness import harness_model
lm_eval.simple_evaluate(model=harness_model(answering), tasks=["arc_easy"])
"""

from collections.abc import Sequence
from typing import Any

import torch

from gssr.reasoning.evaluation import Answering


def harness_model(answering: Answering, tokens: int = 256) -> Any:
    """An ``lm_eval.api.model.LM`` that thinks behind each context. ``tokens``: of a written answer at most.

    Raises ValueError where lm-evaluation-harness is not installed.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError as error:
        raise ValueError("lm-evaluation-harness is not installed; pip install 'gssr[eval]'") from error

    class Thinking(LM):
        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            return [_likelihood(answering, *request.args) for request in requests]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            """Of whole texts. There is no prompt behind which to think, so no thought is taken."""
            plain = Answering(answering.thinker)
            return [_likelihood(plain, "", *request.args)[0] for request in requests]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            texts = []
            for request in requests:
                context, how = request.args
                until = how.get("until") or ()
                until = [until] if isinstance(until, str) else until
                most = int(how.get("max_gen_toks", tokens))
                texts.append(answering.write(answering.behind(context)[0], most, until))
            return texts

    return Thinking()


def _likelihood(answering: Answering, context: str, continuation: str) -> tuple[float, bool]:
    """Log-likelihood of a continuation, and whether it is what greedy decoding writes."""
    backbone = answering.thinker.backbone
    (ids,) = backbone.tokenize([continuation])
    if not context:
        start = torch.tensor([[backbone.start_id, *ids]], device=backbone.device)
        with torch.no_grad():
            hidden = backbone.decoder(input_ids=start[:, :-1], use_cache=False).last_hidden_state
            said = backbone.logits(hidden[0]).float().log_softmax(-1)
    else:
        said = answering.log_probabilities(answering.behind(context)[0], ids)
    wanted = torch.tensor(ids, device=said.device)
    return said.gather(1, wanted[:, None]).sum().item(), bool((said.argmax(-1) == wanted).all())
