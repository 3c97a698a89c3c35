r"""What Pyro's inference needs beyond the registered bijection."""

from . import kl

__all__ = ["kl"]
