"""NumPy arrays, DataFrames and lists: taken where numbers are only read, refused with the remedy elsewhere."""

import geoopt
import numpy as np
import pytest
import scipy.sparse
import torch
from matplotlib.figure import Figure

import pyro_hyperbolic as ph
from pyro_hyperbolic import metrics

M = geoopt.Lorentz()
D = np.array([[0.0, 3.0, 6.0, 7.0], [3.0, 0.0, 7.0, 8.0], [6.0, 7.0, 0.0, 3.0], [7.0, 8.0, 3.0, 0.0]])


class Frame:
    """What is used of a pandas.DataFrame."""

    def __init__(self, values):
        self.values, self.shape, self.ndim = np.asarray(values), np.shape(values), np.ndim(values)

    def __array__(self, dtype=None, copy=None):
        values = self.values.view()
        values.flags.writeable = False  # as those of pandas 3
        return values

    def to_numpy(self):
        return self.values


def frame(values):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(values) if np.ndim(values) == 2 else pandas.Series(values)


each_kind = pytest.mark.parametrize(
    "kind", [np.asarray, lambda x: np.asarray(x)[::-1][::-1], lambda x: np.asarray(x).tolist(), Frame, frame]
)


@each_kind
def test_metrics_and_embeddings_read_arrays(kind):
    scores, labels, near = np.array([0.1, 0.9, 0.1 + 1e-12]), np.array([False, True, True]), D == 3.0
    upper = np.array([2.0, 3.0, 4.1])
    cases = {
        metrics.roc_auc: (scores, labels),
        metrics.average_precision: (scores, labels.astype(int)),
        metrics.calibration_error: (scores, labels),
        metrics.coverage: (scores, upper, upper - 1),
        metrics.distortion: (upper, upper + 1),
        metrics.mean_average_precision: (D, near),
        metrics.mean_rank: (D, near, np.arange(4)),
        metrics.gromov_delta: (D,),
        ph.embeddings.complete_distances: (D,),
        ph.embeddings.path_lengths: (np.array([[0, 1], [1, 2]]), np.array([1.0, 2.6])),
        lambda D: ph.embeddings.neighbour_joining(D)[1]: (D,),
        lambda edges: ph.embeddings.tree(M, edges): (np.array([[0, 1], [1, 2]]),),
    }
    for function, arrays in cases.items():
        expected = function(*map(torch.as_tensor, arrays))
        torch.testing.assert_close(function(*map(kind, arrays)), expected, rtol=0, atol=0)  # lists are of float64


@pytest.mark.parametrize(
    ("array", "remedy"),
    [
        (np.ones((2, 3)), r"torch.as_tensor\(\.\.\.\)"),
        (Frame(np.ones((2, 3))), r"torch.as_tensor\(x.to_numpy\(\)\)"),
        (scipy.sparse.csr_array(np.ones((2, 3))), r"torch.as_tensor\(x.toarray\(\)\)"),
    ],
)
def test_maps_take_tensors_and_say_so(array, remedy):
    for function in (ph.geometry.exp0, ph.geometry.distance_matrix, ph.charts.to_klein):
        with pytest.raises(TypeError, match=remedy):
            function(M, array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_unsigned_integers(dtype):
    """Torch itself cannot sort all of them."""
    assert metrics.roc_auc(np.array([3, 1, 2], dtype), [1, 0, 0]) == 1
    assert metrics.gromov_delta(D.astype(dtype)) == 0
    edges = np.array([[0, 1], [1, 2], [2, 0]])  # as many as nodes, like a mask
    x, ax = ph.geometry.exp0(M, torch.eye(3, 2)), Figure().subplots()
    drawn = [ph.viz.tree(ax, M, x, each).get_segments() for each in (edges, edges.astype(dtype))]
    np.testing.assert_array_equal(*drawn)


def test_a_sparse_matrix_of_distances_is_made_full():
    with pytest.raises(TypeError, match=r"D.toarray\(\)"):
        ph.embeddings.neighbour_joining(scipy.sparse.csr_array(D))
