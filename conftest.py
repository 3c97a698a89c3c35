"""Names that every doctest may use without importing them, and a clean state before each test.

Libraries are imported in the fixtures: pytest-xdist's controller reads this file too, and runs no test.
"""

from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="session")
def _names(doctest_namespace: dict[str, Any]) -> None:
    import geoopt
    import pyro
    import pyro.distributions as dist
    import torch

    import pyro_hyperbolic as ph
    import pyro_hyperbolic.distributions as hdist
    import pyro_hyperbolic.distributions.transforms as HT

    doctest_namespace.update(
        torch=torch, geoopt=geoopt, pyro=pyro, dist=dist, ph=ph, hdist=hdist, HT=HT, geometry=ph.geometry
    )


@pytest.fixture(autouse=True)
def _clean_state() -> None:
    import pyro

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    pyro.enable_validation(True)  # experiments turn it off in their own processes
