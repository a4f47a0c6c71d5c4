"""Whether the hub answers."""

from huggingface_hub import constants
from huggingface_hub.utils import get_session

SECONDS = 5.0


def hub_answers() -> bool:
    """Asked once, for a few seconds: the hub's client tries each file of an unreachable one for half a minute, which adds up to two."""
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception:  # of the HTTP library, of a proxy or of the socket
        return False
    return True
