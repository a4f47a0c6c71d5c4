"""Whether the hub answers."""

from huggingface_hub import constants
from huggingface_hub.utils import get_session

SECONDS = 5.0


def hub_answers() -> bool:
    """Whether the hub answers within seconds. Its client would try each file for half a minute, up to two in all."""
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception:  # of the HTTP library, of a proxy or of the socket
        return False
    return True
