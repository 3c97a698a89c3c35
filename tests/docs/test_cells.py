"""What the tutorial on single cells rests on: the lineage, the density of counts, and files of AnnData."""

import importlib
import itertools
import sys
from pathlib import Path

import networkx
import numpy as np
import pyro
import pytest
import scipy.sparse
import scipy.stats
import torch

import pyro_hyperbolic as ph
from tutorials import cells


def test_distances_are_path_lengths_of_the_lineage():
    lineage = cells.simulated(3, n=40, genes=2)[4]
    parent, child, time = lineage.tree.parent.tolist(), lineage.child.tolist(), lineage.time.tolist()
    graph, depth = networkx.Graph(), lineage.tree.node_depth.tolist()
    for node in range(1, len(parent)):  # each edge is cut at its cells
        on = sorted((time[i], f"cell {i}") for i in range(40) if child[i] == node)
        stops = [(depth[parent[node]], parent[node]), *on, (depth[node], node)]
        for (s, a), (t, b) in itertools.pairwise(stops):
            graph.add_edge(a, b, weight=t - s)
    paths = dict(networkx.all_pairs_dijkstra_path_length(graph))
    expected = torch.tensor([[paths[f"cell {i}"][f"cell {j}"] for j in range(40)] for i in range(40)])
    torch.testing.assert_close(lineage.distances(lineage), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["euclidean", "hyperbolic"])
def test_the_likelihood_is_an_integral_over_negative_binomials(name, monkeypatch):
    """In one dimension, where every manifold here is the line; densities of counts are those of scipy."""
    before = pyro.settings.get()
    monkeypatch.syspath_prepend(Path(cells.__file__).parent)
    single_cell = importlib.import_module("single_cell")
    pyro.set_rng_seed(0)
    data = cells.simulated(0, n=6, genes=5, depth=2)[0]
    data = cells.Cells(data, data.log1p(), torch.arange(6) % 2, None, [], torch.arange(6), torch.arange(6))
    vae = single_cell.CellVAE(5, 2, single_cell.MANIFOLDS[name](), n_latent=1)
    vae.px_r = torch.linspace(0.5, 2.0, 5)
    v = torch.linspace(-7, 7, 401)
    prior, z = scipy.stats.norm.pdf(v), ph.geometry.exp0(vae.manifold, v.unsqueeze(-1))
    expected = []
    for i in range(6):
        hidden = torch.cat([vae.planes(z).relu(), torch.eye(2)[i % 2].expand(401, 2)], -1)
        rate = (data.counts[i].sum() * vae.decoder(hidden).softmax(-1)).detach().numpy()
        px_r = vae.px_r.detach().numpy()
        density = scipy.stats.nbinom.pmf(data.counts[i].numpy(), px_r, px_r / (px_r + rate)).prod(-1)
        expected.append(torch.trapezoid(torch.from_numpy(prior * density), v).log().item())
    found = single_cell.log_likelihood(vae, data, 2000)
    pyro.settings.set(**before)
    assert found.tolist() == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_file_of_anndata_is_read(tmp_path, sparse):
    anndata = pytest.importorskip("anndata")
    counts = np.random.default_rng(0).poisson(2.0, (30, 7)).astype(np.float32)
    donors, types = np.array(["d2", "d1"])[np.arange(30) % 2], np.array(["T", "B", "NK"])[np.arange(30) % 3]
    data = anndata.AnnData(np.log1p(counts), obs={"donor": donors, "type": types})
    data.layers["counts"] = scipy.sparse.csr_matrix(counts) if sparse else counts
    data.write_h5ad(tmp_path / "cells.h5ad")
    found = cells.load(tmp_path / "cells.h5ad", 0, "donor", "type", "counts")
    assert found.counts.numpy().tolist() == counts.tolist()
    assert found.batch.tolist() == [1 - i % 2 for i in range(30)]
    assert [found.names[i] for i in found.label] == types.tolist()
    with pytest.raises(ValueError, match=r"X of .*layer"):
        cells.load(tmp_path / "cells.h5ad")


def test_without_anndata_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(ImportError, match=r'pip install "pyro-hyperbolic\[anndata\]"'):
        cells.load(tmp_path / "cells.h5ad")
