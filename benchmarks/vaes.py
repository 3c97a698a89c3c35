"""SVI steps of the tutorial's VAE, 784-300, with different posteriors and written in different ways."""

import sys
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from pyro.nn import PyroModule, pyro_method

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT

sys.path.append(str(Path(__file__).parent.parent / "tutorials"))
from hyperbolic_vae import VAE

# The tutorial keeps parameters in modules; SVI, which is also measured here, needs them in Pyro's store.
pyro.settings.set(module_local_params=False)

DATA_DIM, HIDDEN_DIM, LATENT_DIM = 784, 300, 6


class NormalVAE(VAE):
    """The same networks and likelihood with Pyro's Normal: the cost of a VAE without this package."""

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.dim), x.new_ones(self.dim)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def posterior(self, x):
        loc, log_scale = self.encoder(x)
        return dist.Normal(loc, torch.nn.functional.softplus(log_scale)).to_event(1)


class AllVAEs(PyroModule):
    """Gives each VAE its own parameter names in Pyro's store."""


VAES = AllVAEs()


def vae(name, device, coupling=None, kind=VAE):
    manifold = geoopt.Euclidean(1) if kind is NormalVAE else ph.manifolds.Lorentz()
    options = {"hidden_dim": HIDDEN_DIM, "likelihood": "bernoulli"}
    setattr(VAES, name, kind(DATA_DIM, LATENT_DIM, manifold, coupling, **options).to(device))
    return getattr(VAES, name)


def data(batch, device):
    return (torch.rand(batch, DATA_DIM, device=device) < 0.2).float()


def posteriors(batch, device):
    """Returns SVI steps that differ in the posterior."""
    x = data(batch, device)
    models = {
        "VAE, Normal": vae("normal", device, kind=NormalVAE),
        "VAE, WrappedNormal": vae("wrapped", device),
        "VAE, WrappedNormal + 2 TC": vae("tangent", device, HT.tangent_coupling),
        "VAE, WrappedNormal + 2 WHC": vae("boosted", device, HT.wrapped_hyperboloid_coupling),
    }
    return {name: svi_step(model, x, Trace_ELBO()) for name, model in models.items()}


def svi_step(model, x, elbo, validate=False):
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-3}), elbo)

    def step():
        with pyro.validation_enabled(validate):
            svi.step(x.detach())

    return step


def torch_step(model, x, loss, **options):
    """Returns a step with one torch optimiser for all parameters; ``pyro.optim`` keeps one for each."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **options)

    def step():
        optimizer.zero_grad()
        loss(model, x.detach()).backward()
        optimizer.step()

    return step


def traced_loss(elbo):
    return lambda model, x: elbo.differentiable_loss(model.model, model.guide, x)


def loss_by_hand(model, x):
    """Returns minus the ELBO of the same distributions without pyro.sample: no handlers, traces or plates."""
    q = model.posterior(x)
    z = q.rsample()
    prior = hdist.WrappedNormal(ph.geometry.origin(model.manifold, model.dim), 1.0, model.manifold)
    likelihood = dist.Bernoulli(logits=model.decoder(ph.geometry.log0(model.manifold, z))).to_event(1)
    return (q.log_prob(z) - prior.log_prob(z) - likelihood.log_prob(x)).sum()


IDIOMS = {
    "SVI, pyro.optim.Adam": lambda model, x: svi_step(model, x, Trace_ELBO()),
    "the same, validation on": lambda model, x: svi_step(model, x, Trace_ELBO(), validate=True),
    "SVI, pyro.optim.Adam, JitTrace_ELBO": lambda model, x: svi_step(model, x, JitTrace_ELBO()),
    "one torch.optim.Adam": lambda model, x: torch_step(model, x, traced_loss(Trace_ELBO())),
    "one torch.optim.Adam, fused": lambda model, x: torch_step(model, x, traced_loss(Trace_ELBO()), fused=True),
    "no pyro.sample, one torch.optim.Adam, fused": lambda model, x: torch_step(model, x, loss_by_hand, fused=True),
}


def idioms(batch, device):
    """Returns steps of the wrapped-normal VAE that differ in how the step is written."""
    x = data(batch, device)
    return {name: make(vae(f"idiom_{i}", device), x) for i, (name, make) in enumerate(IDIOMS.items())}
