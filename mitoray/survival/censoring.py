"""Follow-up that ends at a given time for all."""

import numpy as np
from numpy.typing import NDArray

from mitoray.errors import BadOption

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def censored_after(time: FloatArray, event: BoolArray, limit: float) -> tuple[FloatArray, BoolArray]:
    """Times and events as if nobody had been followed beyond `limit`, in the unit of the times.

    time: (n,) float64; event: (n,) bool. An event exactly at the limit counts. Fick et al. 2024 show 10 years. Raises
    BadOption for a limit of 0 or less.
    """
    if not limit > 0:
        raise BadOption(f"Follow-up must be censored after more than 0 years, not {limit}.")
    return np.minimum(time, limit), event & (time <= limit)
