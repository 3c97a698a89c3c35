"""Names that every doctest may use without importing them, and the options of the test suite."""

from typing import Any

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(
        torch=torch, geoopt=geoopt, pyro=pyro, dist=dist, ph=ph, hdist=hdist, HT=HT, geometry=ph.geometry
    )


@pytest.fixture(autouse=True)
def _clean_state() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    pyro.enable_validation(True)  # experiments turn it off in their own processes
