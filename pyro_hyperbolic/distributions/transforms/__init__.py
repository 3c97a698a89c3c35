r"""Transforms on manifolds: the exponential map, translations, and couplings in the tangent space at the origin."""

from .base import ManifoldTransform, TangentModule
from .continuous_flow import ConditionalContinuousFlow, ContinuousFlow, continuous_flow
from .coupling import ConditionalCoupling, Coupling
from .exponential_map import ExponentialMap
from .factor_coupling import FactorCoupling, factor_coupling
from .fields import AnchorField, DenseField, MixtureField, VectorField, farthest_points
from .networks import AttentionNN
from .polar_coupling import PolarCoupling, polar_coupling
from .projection import Projection
from .reflection import Reflection
from .set_transform import SetTransform
from .tangent import TangentTransform
from .tangent_coupling import (
    ConditionalTangentCoupling,
    TangentCoupling,
    conditional_tangent_coupling,
    tangent_coupling,
)
from .translation import Translation
from .wrapped_hyperboloid_coupling import (
    ConditionalWrappedHyperboloidCoupling,
    WrappedHyperboloidCoupling,
    conditional_wrapped_hyperboloid_coupling,
    wrapped_hyperboloid_coupling,
)

__all__ = [
    "AnchorField",
    "AttentionNN",
    "ConditionalContinuousFlow",
    "ConditionalCoupling",
    "ConditionalTangentCoupling",
    "ConditionalWrappedHyperboloidCoupling",
    "ContinuousFlow",
    "Coupling",
    "DenseField",
    "ExponentialMap",
    "FactorCoupling",
    "ManifoldTransform",
    "MixtureField",
    "PolarCoupling",
    "Projection",
    "Reflection",
    "SetTransform",
    "TangentCoupling",
    "TangentModule",
    "TangentTransform",
    "Translation",
    "VectorField",
    "WrappedHyperboloidCoupling",
    "conditional_tangent_coupling",
    "conditional_wrapped_hyperboloid_coupling",
    "continuous_flow",
    "factor_coupling",
    "farthest_points",
    "polar_coupling",
    "tangent_coupling",
    "wrapped_hyperboloid_coupling",
]
