r"""The steps of a continuous flow: Runge and Kutta's method on states, its Jacobians, and Newton's method back."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pyro_hyperbolic.geometry import Complete, checks

__all__ = ["Field", "Steps"]

Field = Callable[..., Tensor]

#: Rounds of Newton's method, of two steps with one Jacobian each; two rounds nearly always reach rounding error.
_ROUNDS, _MOST_ROUNDS = 2, 30
_FOLD = "is not injective"
#: Up to this dimension an estimate costs about as much as the exact log-determinant, and is refused.
EXACT_DIM = 16


class Steps:
    """The steps of one flow for one call, on states."""

    def __init__(self, space: Complete, field: Field, count: int, *, reverse: bool) -> None:
        self.space, self.field = space, field
        times = [i / count for i in range(count + 1)]
        times = times[::-1] if reverse else times
        self.times = list(pairwise(times))

    def need_grad(self, s: Tensor) -> bool:
        """Returns whether results need gradients: of the state, the field, the manifold or the context."""
        return s.requires_grad or self._velocity(s, self.times[0][0]).requires_grad

    def explicit(self, s: Tensor, terms: int) -> tuple[Tensor, Tensor]:
        """Returns the end of the path, and the log-determinant, estimated if ``terms`` is positive."""
        if terms:
            return self._estimated(s, terms)
        states, jacobians = [s], []
        for begin, finish in self.times:
            s, jacobian = self._step_and_jacobian(s, begin, finish)
            states.append(s)
            jacobians.append(jacobian)
        fine, log_det = self._log_det(jacobians)
        found = torch.stack([state.detach().isfinite().all(-1) for state in states[1:]])
        self._check(states[0], self.times[0][0], {"reaches NaN or infinity": found, _FOLD: fine}, {})
        return s, log_det

    def _estimated(self, s: Tensor, terms: int) -> tuple[Tensor, Tensor]:
        """Returns the end of the path, and an estimate of the log-determinant without a whole Jacobian."""
        n = self.space.frame(s).size(-2)
        if n <= EXACT_DIM:
            raise ValueError(
                f"hutchinson_terms = {terms} in n = {n} dimensions, where the exact log-determinant costs no more; use "
                f"hutchinson_terms=0 up to n = {EXACT_DIM}."
            )
        start, log_det = s, s.new_zeros(())
        finite, short = [], []
        for begin, finish in self.times:
            s, estimate, converges = self._step_and_estimate(s, begin, finish, terms)
            log_det = log_det + estimate
            finite.append(s.detach().isfinite().all(-1))
            short.append(converges)
        fine = torch.stack(short)
        conditions = {"reaches NaN or infinity": torch.stack(finite), "is too long for its series": fine}
        self._check(start, self.times[0][0], conditions, {})
        return s, log_det.masked_fill(~fine.all(0), torch.nan)

    def _step_and_estimate(self, s: Tensor, begin: float, finish: float, terms: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the step, an estimate of its log-determinant, and whether the terms of its series fall.

        With the derivative :math:`D` of the step and the projection :math:`P` to the velocities at its start,
        :math:`B = P D - 1` is small, and :math:`\log\det P D = \sum_k (-1)^{k+1} \operatorname{tr} B^k / k`.
        """
        space, create_graph = self.space, torch.is_grad_enabled()
        # Noise is isotropic in the tangent space, which on a curved chart spreads the estimate far less.
        x = space.point(s)[0]
        size = space.vector_size(space.dim(x.shape))
        u = space.tangent(x, torch.randn(*s.shape[:-1], size, dtype=s.dtype, device=s.device))
        column, frame, dual = space.velocity(s, u), space.frame(s), _dual(space, s)
        (row,) = torch.func.vjp(lambda s: space.log(x, space.point(space.retract(s))[0]), s)[1](u)
        end, pull = self._step_and_pullback(s, begin, finish)
        first, log_det = row, s.new_zeros(())
        for k in range(1, terms + 1):
            row = ((frame @ pull(row).unsqueeze(-1)).mT @ dual).squeeze(-2) - row
            log_det = log_det - (-1) ** k / k * (row * column).sum(-1)
        turn = torch.linalg.slogdet(dual @ space.frame(end).mT)[1]
        converges = row.detach().norm(dim=-1) < first.norm(dim=-1)
        found = log_det - turn
        return (end, found, converges) if create_graph else (end.detach(), found.detach(), converges)

    def _step_and_pullback(self, s: Tensor, begin: float, finish: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Returns the step, and the product of covectors ``(*, p)`` at its end with its derivative."""
        if not _can_read(s):
            found: Any = torch.func.vjp(lambda s: self._step(s, begin, finish), s)
            return found[0], lambda row: found[1](row)[0]
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            s = s if s.requires_grad else s.detach().requires_grad_()
            end = self._step(s, begin, finish)
        return end, lambda row: torch.autograd.grad(end, s, row, create_graph=create_graph, retain_graph=True)[0]

    def implicit(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the start of the path to ``s``, and minus the log-determinant of the steps."""
        for rounds in (_ROUNDS, _MOST_ROUNDS):
            states = [s]
            jacobians: list[Tensor] = []
            gaps: list[Tensor] = []
            for begin, finish in reversed(self.times):
                start, gap = self._solve(states[0], begin, finish, rounds)
                states.insert(0, start)
                jacobians.insert(0, self._step_and_jacobian(start, begin, finish)[1])
                gaps.insert(0, gap)
            gap = torch.stack(gaps)
            close = gap <= _close(s)
            if not _can_read(s) or bool(close.all()):
                break
        fine, log_det = self._log_det(jacobians)
        what = "has no inverse that Newton's method finds"
        self._check(s, self.times[-1][1], {what: close, _FOLD: fine}, {what: gap})
        return states[0].masked_fill(~close.all(0).unsqueeze(-1), torch.nan), -log_det

    def _log_det(self, jacobians: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns whether each step keeps orientation, ``(steps, *)``, and the log-determinant, NaN if one does not."""
        sign, log_det = torch.linalg.slogdet(torch.stack(jacobians))
        # A step that does not folds space and counts mass more than once, which maximum likelihood would reward.
        fine = sign.detach() > 0
        return fine, log_det.sum(0).masked_fill(~fine.all(0), torch.nan)

    def _solve(self, target: Tensor, begin: float, finish: float, rounds: int) -> tuple[Tensor, Tensor]:
        """Returns the start of the step that ends at ``target``, and the size of the last correction, ``(*)``."""
        space = self.space
        with torch.no_grad():
            goal = target.detach()
            s, gap = self._step(goal, finish, begin), goal.new_full((), torch.inf)
            for _ in range(rounds):
                if rounds > _ROUNDS and not bool((gap > _close(s)).any()):  # a point that is NaN remains so
                    break
                frame = space.frame(s)
                reached, jacobian = self._step_and_jacobian(s, begin, finish, goal)
                factors = torch.linalg.lu_factor_ex(jacobian)[:2]
                s = self._corrected(s, reached, goal, factors, frame)
                last = self._corrected(s, self._step(s, begin, finish), goal, factors, frame)
                gap = space.difference(s, last).norm(dim=-1) / (1 + s.norm(dim=-1))
                s = last
        if torch.is_grad_enabled():
            # The implicit function theorem: each correction with this constant Jacobian makes one more order right.
            for _ in range(2):
                s = self._corrected(s, self._step(s, begin, finish), target, factors, frame)
        return s, gap

    def _corrected(
        self, s: Tensor, reached: Tensor, target: Tensor, factors: tuple[Tensor, Tensor], frame: Tensor
    ) -> Tensor:
        """Returns ``s`` after a step of Newton's method; the Jacobian is in ``frame`` and in that of the target."""
        error = _dual(self.space, target.detach()) @ self.space.difference(reached, target).unsqueeze(-1)
        change = torch.linalg.lu_solve(*factors, error)
        return self.space.retract(s + (change.mT @ frame).squeeze(-2))

    def _step(self, s: Tensor, begin: float, finish: float) -> Tensor:
        """Returns the state after one step of Runge and Kutta's fourth-order method."""
        h = finish - begin
        first = self._velocity(s, begin)
        second = self._velocity(s + h / 2 * first, begin + h / 2)
        third = self._velocity(s + h / 2 * second, begin + h / 2)
        fourth = self._velocity(s + h * third, finish)
        return self.space.retract(s + h / 6 * (first + 2 * (second + third) + fourth))

    def _velocity(self, s: Tensor, time: float) -> Tensor:
        s = self.space.retract(s)
        x = self.space.point(s)[0]
        t = torch.full((), time, dtype=s.dtype, device=s.device).expand(s.shape[:-1])
        return self.space.velocity(s, self.field(x, t))

    def _step_and_jacobian(
        self, s: Tensor, begin: float, finish: float, base: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the step and its Jacobian ``(*, n, n)`` in the frames of both states, or at ``base`` for the end."""
        space, frame = self.space, self.space.frame(s)
        if not _can_read(s):  # in a compiled graph or a function transform, where autograd.grad cannot be used

            def along(direction: Tensor) -> Any:
                return torch.func.jvp(lambda s: self._step(s, begin, finish), (s,), (direction,))

            ends, velocities = torch.func.vmap(along, in_dims=-2, out_dims=(0, -2))(frame)
            end = ends[0]
            return end, _dual(space, end if base is None else base) @ velocities.mT
        # In small batches backward passes take a third of the time of torch.func.jvp, which is slow for each operation.
        create_graph = torch.is_grad_enabled()
        end, pull = self._step_and_pullback(s, begin, finish)
        with torch.enable_grad():
            rows = _dual(space, end if base is None else base).unbind(-2)
            jacobian = torch.stack([pull(row) for row in rows], -2) @ frame.mT
        return (end, jacobian) if create_graph else (end.detach(), jacobian.detach())

    def _check(self, s: Tensor, time: float, conditions: dict[str, Tensor], residuals: dict[str, Tensor]) -> None:
        """Raises unless all conditions hold, each ``(steps, *)``, on the path of the state that was given; one sync."""
        if not checks.validating() or checks.all_hold([fine.all() for fine in conditions.values()]):
            return
        if not bool(self._velocity(s, time).isfinite().all()):
            raise ValueError(
                f"the field is NaN or infinite at time {time:.3g}, at a given point; look for NaN in its parameters or "
                f"its context."
            )
        for i in range(len(self.times)):
            for what, fine in conditions.items():
                if not bool(fine[i].all()):
                    wrong = ~fine[i]
                    left = f" (correction {residuals[what][i][wrong][0].item():.3g})" if what in residuals else ""
                    raise ValueError(
                        f"step {i + 1} of {len(self.times)} {what}{left}, for {int(wrong.sum())} of {wrong.numel()} "
                        f"points; use more steps=, or a field that varies less (train longer at a lower learning rate)."
                    )


def _close(s: Tensor) -> float:
    """Returns the last correction, relative to the state, at which Newton's method has converged.

    It converges quadratically, so the state is then right to rounding.
    """
    return float(torch.finfo(s.dtype).eps ** 0.75)


def _dual(space: Complete, s: Tensor) -> Tensor:
    """Returns the vectors ``(*, n, p)`` whose products with a velocity are its components in the frame at ``s``."""
    frame = space.frame(s)
    return frame / frame.square().sum(-1, keepdim=True)


def _can_read(x: Tensor) -> bool:
    """Returns whether values can be read, and autograd used inside."""
    return not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
