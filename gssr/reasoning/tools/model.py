"""A language model that uses tools."""

from gssr.backbone import FrozenBackbone
from gssr.reasoning.conversation import Conversation


class Model:
    """A language model as a policy: the likeliest line, up to ``tokens``. Nothing is read twice."""

    def __init__(self, backbone: FrozenBackbone, tokens: int = 64) -> None:
        self.talk, self.tokens = Conversation(backbone), tokens

    def __call__(self, text: str) -> str:
        self.talk.read(f"{text}\n")
        return self.talk.write(stop="\n", max_new_tokens=self.tokens, do_sample=False)
