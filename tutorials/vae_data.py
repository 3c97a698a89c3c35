"""The spaces and data of hyperbolic_vae.py, a branching diffusion or MNIST, and its picture."""

import functools

import geoopt
import torch
from matplotlib.figure import Figure
from mnist import load_mnist

import pyro_hyperbolic as ph
from pyro_hyperbolic import viz

read_mnist = functools.cache(load_mnist)


def latent(names):
    """Returns the manifold of names such as h2 or h2,h2,e2, whose curvatures are learned, and its dimension."""
    kinds = {"h": lambda: ph.manifolds.Lorentz(learnable=True), "e": lambda: geoopt.Euclidean(1)}
    factors = [(kinds[name[0]](), int(name[1:])) for name in names.split(",")]
    dim = sum(n for _, n in factors)
    if len(factors) == 1:
        return factors[0][0], dim
    return ph.manifolds.Product(*((M, n + isinstance(M, ph.manifolds.Lorentz)) for M, n in factors)), dim


def load(seed, path=None, device="cpu"):
    """Returns a function that yields the batches of an epoch, the test data, and options of the model."""
    generator = torch.Generator().manual_seed(seed)
    if path is None:
        data = ph.datasets.branching_diffusion(seed)
        train_x, test_x, batch_size, options = data.x[data.train], data.x[data.test], 100, {"hidden_dim": 200}
    else:
        data = read_mnist(path)
        train_x, test_x, batch_size = data.train_images, (data.test_images > 0.5).float(), 128
        options = {"hidden_dim": 600, "likelihood": "bernoulli"}

    def batches():
        for index in torch.randperm(len(train_x), generator=generator).split(batch_size):
            x = train_x[index]
            if path is not None:
                x = (x > torch.rand(x.shape, generator=generator)).float()  # binarised again in each epoch
            yield x.to(device)

    return batches, test_x.to(device), options


@torch.no_grad()
def picture(vaes, seed):
    """Returns a picture of ``{name: vae}``, without flows: means of posteriors of test points, and the true tree."""
    data, style = ph.datasets.branching_diffusion(seed), {"cmap": "viridis_r", "clim": (0, 5)}
    figure = Figure(figsize=(4.6 * len(vaes) + 0.6, 5.0), layout="constrained")
    for ax, letter, (name, vae) in zip(
        figure.subplots(1, len(vaes), squeeze=False)[0], "ab", vaes.items(), strict=False
    ):
        nodes, z = (vae.posterior(x).mean for x in (data.nodes, data.x[data.test]))
        viz.frame(ax, vae.manifold)
        ax.set(adjustable="datalim", box_aspect=1)  # planes as large as disks
        depth = data.node_depth[data.edges[:, 1]]
        viz.tree(ax, vae.manifold, nodes, data.edges, array=depth, linewidth=1.2, alpha=0.6, **style)
        artist = viz.points(ax, vae.manifold, z, c=data.depth[data.test], s=26, **style)
        viz.scale_bar(ax, vae.manifold)
        ax.set_title(f"({letter}) {name}")
    figure.colorbar(artist, ax=figure.axes, shrink=0.6, label="depth in the tree")
    return figure
