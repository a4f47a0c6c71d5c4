"""What holds for every callback that draws: a picture that cannot be drawn ends no run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.rank_zero import rank_zero_warn


@contextmanager
def drawing(what: str) -> Iterator[None]:
    """Turn an error of the block into a warning that nothing more is drawn. A disk that fails is an error all the same.

    Args:
        what: is drawn, in the plural.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # whatever it is, the scores and weights beside the picture are worth more
        rank_zero_warn(f"{what} are not drawn: {error or type(error).__name__}. All else goes on.")
