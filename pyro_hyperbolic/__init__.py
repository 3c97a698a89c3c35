r"""Hyperbolic distributions and normalizing flows for Pyro; every density is with respect to Riemannian volume.

``viz`` is imported on first use: it needs matplotlib (the extra ``viz``).
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from . import (
    charts,
    datasets,
    distributions,
    embeddings,
    flows,
    geometry,
    infer,
    manifolds,
    metrics,
    nn,
    numerics,
    testing,
)

if TYPE_CHECKING:
    from . import viz as viz

# viz is left out, so that ``from pyro_hyperbolic import *`` works without matplotlib.
__all__ = [
    "charts",
    "datasets",
    "distributions",
    "embeddings",
    "flows",
    "geometry",
    "infer",
    "manifolds",
    "metrics",
    "nn",
    "numerics",
    "testing",
]
__version__ = importlib.metadata.version("pyro-hyperbolic")


def __getattr__(name: str) -> Any:
    if name == "viz":
        try:
            return importlib.import_module(".viz", __name__)
        except ImportError as error:  # hasattr, help and completion expect an AttributeError
            raise AttributeError(str(error)) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "viz"})
