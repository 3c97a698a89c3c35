"""torch.compile: whole flows in one graph, no recompilation with each batch, right where inductor could overflow."""

import itertools
import shutil
from functools import partial

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor import config as inductor

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import lorentz, shaken

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
M = lorentz(2.0)


@pytest.fixture(autouse=True)
def _fresh():
    """Without what was compiled before, and without workers, each of which would import torch to compile one graph."""
    torch._dynamo.reset()
    with inductor.patch(compile_threads=1):
        yield
    torch._dynamo.reset()


def flow(coupling, manifold=M, dim=4):
    return shaken(ph.flows.coupling_flow(dim, 2, coupling, [8], manifold))


def results(transform, x):
    """Value, log-determinant, inverse, and the gradient of both in the parameters."""
    y = transform(x)
    log_det = transform.log_abs_det_jacobian(x, y)
    gradients = torch.autograd.grad(y.sum() + log_det.sum(), list(transform.parameters()))
    return [y, log_det, transform.inv(y.detach().clone()), *gradients]


@pytest.mark.parametrize(
    ("coupling", "backend"),
    [
        (HT.wrapped_hyperboloid_coupling, "eager"),
        pytest.param(HT.wrapped_hyperboloid_coupling, "inductor", marks=pytest.mark.slow),
        pytest.param(HT.tangent_coupling, "inductor", marks=pytest.mark.slow),
    ],
)
def test_a_flow_is_one_graph_and_one_for_all_batches(coupling, backend):
    eager, compiled = flow(coupling), flow(coupling)
    counter = CompileCounterWithBackend(backend)
    compiled.compile(fullgraph=True, backend=counter)
    for batch in (3, 8, 5, 17):
        x = ph.geometry.exp0(M, torch.randn(batch, 4, dtype=torch.float64))
        for found, expected in zip(results(compiled, x), results(eager, x), strict=True):
            assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    # Each direction once for the first batch, and once for every other.
    assert 2 <= counter.frame_count <= 4


def test_a_masked_flow_of_sets_is_one_graph():
    coupling = partial(HT.tangent_coupling, hypernet=partial(HT.AttentionNN, hidden_dim=8, heads=2, layers=1))
    layers = shaken(ph.flows.coupling_flow(2, 1, coupling, manifold=M), 0.4)
    eager, compiled = (HT.SetTransform(layers, torch.tensor([[True, True, False]])) for _ in range(2))
    compiled.compile(fullgraph=True, backend="eager")  # inductor takes minutes over attention
    x = ph.geometry.exp0(M, torch.randn(4, 3, 2, dtype=torch.float64))
    y = compiled(x)
    assert torch.allclose(y, eager(x), rtol=1e-10, atol=1e-12)
    assert torch.allclose(compiled.log_abs_det_jacobian(x, y), eager.log_abs_det_jacobian(x, y.clone()), rtol=1e-10)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("manifold", [M, geoopt.Sphere()], ids=["h2", "s2"])
def test_the_field_of_a_continuous_flow_is_compiled(manifold, backend):
    eager, compiled = (shaken(HT.continuous_flow(2, manifold, None, 4, [8], 2), 0.3) for _ in range(2))
    compiled.load_state_dict(eager.state_dict())  # random anchors
    compiled.compile(backend=backend)
    x = ph.geometry.project(manifold, torch.randn(5, 3, dtype=torch.float64))
    with torch.no_grad():
        for found, expected in zip(compiled._forward(x), eager._forward(x), strict=True):
            assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
        for found, expected in zip(compiled._backward(x), eager._backward(x), strict=True):
            assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


bind = ph.geometry.bind
KERNELS = {
    "exp0": (lambda M, v: bind(M).exp0(v), "v"),
    "log0": (lambda M, x: bind(M).log0(x), "x"),
    "exp_at": (lambda M, p, v: bind(M).exp_at(p, v), "pv"),
    "log_at": (lambda M, p, x: bind(M).log_at(p, x), "px"),
    "translate": (lambda M, p, x: (bind(M).translate(p, x),), "px"),
    "translate_tangent": (lambda M, p, v: bind(M).translate_tangent(p[..., 1:], v, bound=3.0), "pv"),
    "log_volume": (lambda M, v: (bind(M).log_volume(v),), "v"),
}
RADII = {torch.float32: (1e-4, 1.0, 20.0, 44.0, 60.0, 87.0), torch.float64: (1e-8, 1.0, 40.0, 88.0, 300.0, 350.0)}


#: With the guide below they run the functions of all others; each costs the C++ compiler ten seconds or more.
FAST = [("exp_at", torch.float32), ("log_at", torch.float64)]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(*case, marks=[] if case in FAST else [pytest.mark.slow])
        for case in itertools.product(KERNELS, RADII)
    ],
    ids=str,
)
def test_a_compiled_kernel_is_right_at_every_radius(name, dtype):
    """Inductor's sinh, cosh and acosh have overflowed before: values and gradients are those of eager mode, finite."""
    kernel, arguments = KERNELS[name]
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(len(RADII[dtype]), 3, generator=generator, dtype=torch.float64)
    v = 2**0.5 * torch.tensor(RADII[dtype])[:, None] * directions / directions.norm(dim=-1, keepdim=True)
    p = torch.randn(len(v), 3, generator=generator, dtype=torch.float64)
    inputs = {"v": v.to(dtype), "x": bind(M).exp0(v.to(dtype))[0], "p": bind(M).exp0(p.to(dtype))[0]}
    inputs = [inputs[argument].requires_grad_() for argument in arguments]

    def run(function):
        values = function(M, *inputs)
        # Coordinates over the largest of their event: their sum would overflow.
        total = sum((y / y.detach().abs().amax(-1, keepdim=True) if y.dim() > 1 else y).sum() for y in values)
        return [*values, *torch.autograd.grad(total, inputs)]

    for found, expected in zip(run(torch.compile(kernel, fullgraph=True)), run(kernel), strict=True):
        size = expected.abs().amax(-1, keepdim=True) if expected.dim() > 1 else expected.abs() + 1
        assert expected.isfinite().all()
        assert ((found - expected).abs() <= 500 * torch.finfo(dtype).eps * size).all()


def test_a_compiled_flow_in_a_guide():
    """Each step of SVI is that of the flow that is not compiled."""
    manifold = geoopt.Lorentz()
    base = hdist.WrappedNormal(ph.geometry.origin(manifold, 4), 1.0, manifold)
    seen = torch.tensor([0.5, -0.3, 0.2, 0.1])

    def model():
        pyro.sample("x", dist.Normal(ph.geometry.log0(manifold, pyro.sample("z", base)), 0.5).to_event(1), obs=seen)

    def losses(compiled):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        transform = flow(HT.wrapped_hyperboloid_coupling, manifold).float()
        if compiled:
            transform.compile(fullgraph=True)

        def guide():
            pyro.module("flow", transform)
            pyro.sample("z", dist.TransformedDistribution(base, [transform]))

        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        return torch.tensor([svi.step() for _ in range(5)])

    assert torch.allclose(losses(True), losses(False), rtol=1e-4)
    assert losses(False).unique().numel() == 5
