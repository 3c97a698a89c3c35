r"""Starting points for inference: layouts of trees and graphs on a manifold, and trees from distances.

Latents that interact only through their distances are at a saddle while they are all at one point, and end in a poor
optimum from random points. Start a guide at a layout, with ``init_to_value`` of
``pyro.infer.autoguide.initialization``::

    guide = ph.infer.AutoWrappedNormal(model, init_loc_fn=init_to_value(values={"z": ph.embeddings.tree(M, edges)}))

Everything is computed in float64 on the CPU, without gradients.
"""

from .distances import complete_distances, neighbour_joining, path_lengths
from .layouts import graph, tree

__all__ = ["complete_distances", "graph", "neighbour_joining", "path_lengths", "tree"]
