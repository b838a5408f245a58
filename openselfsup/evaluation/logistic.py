"""Multinomial logistic regression on cached features, many regularisations in one solve.

The problems (regularisations, and folds of a cross-validation) differ only in a number and
in the weights of the tiles, so they are solved together: every pass over the features is one
matrix product for all of them. Weights are sought along the principal axes of the features,
where the curvature is nearly diagonal; L-BFGS started from that diagonal needs some tens of passes
where plain gradient steps need thousands.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALL = 20_000_000  # multiplications of a pass below which threads cost more than they save


class Classifier(NamedTuple):
    """A linear classifier on raw features.

    Attributes:
        weight: tensor of shape (D, C).
        bias: tensor of shape (C,).
    """

    weight: Tensor
    bias: Tensor

    def probabilities(self, features: Tensor) -> Tensor:
        """Map features (N, D) to class probabilities (N, C), float64."""
        return (features.double() @ self.weight.double() + self.bias.double()).softmax(1)


class Axes(NamedTuple):
    """The principal axes of standardised features.

    Attributes:
        mean, scale: tensors of shape (D,), what standardises the features.
        basis: tensor of shape (D, r), orthonormal columns.
        variance: tensor of shape (r,), variance along each axis.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor
    variance: Tensor

    def classifier(self, theta: Tensor) -> Classifier:
        """Return the classifier on raw features that parameters (C, r + 1) describe."""
        weight = self.basis @ theta[:, :-1].T / self.scale.unsqueeze(1)
        return Classifier(weight, theta[:, -1] - self.mean @ weight)


def principal_axes(features: Tensor, dtype: torch.dtype = torch.float32) -> Axes:
    """Return what standardises features of shape (N, D), and their principal axes.

    A constant dimension carries nothing and is not blown up: no scale is smaller than 1 %
    of the root mean square of all.
    """
    x = features.to(dtype)
    mean = x.mean(0)
    x = x - mean
    scale = x.square().mean(0).sqrt()
    scale = scale.clamp(min=max(0.01 * scale.square().mean().sqrt().item(), 1e-12))
    x /= scale
    n, d = x.shape
    if n < d:  # the small Gram matrix has the same axes
        values, vectors = torch.linalg.eigh((x @ x.T).double())
        keep = values > 1e-6 * values[-1].clamp(min=1e-12)
        values = values[keep]
        basis = x.T @ (vectors[:, keep] / values.sqrt()).to(dtype)
    else:
        values, basis = torch.linalg.eigh((x.T @ x).double())
    return Axes(mean, scale, basis.to(dtype), (values.clamp(min=0) / n).to(dtype))


def solve(features: Tensor, axes: Axes, labels: Tensor, classes: int, penalties: Tensor,
          weights: Tensor | None = None, start: Tensor | None = None, tolerance: float = 1e-4,
          max_passes: int = 300) -> Tensor:
    """Minimise mean cross-entropy + penalty / 2 · ‖W‖² for K problems at once.

    In terms of scikit-learn's ``LogisticRegression``, C = 1 / (penalty · N); like there the
    bias is not penalised. W is the weight on standardised features, and what is solved for is
    W along the principal axes. The features themselves are neither standardised nor turned:
    that is done to the weights, of which there are fewer.

    Args:
        features: float tensor of shape (N, D), raw.
        axes: from :func:`principal_axes` of these features, or of at least D of them: then
            the solver needs a few passes more. Its dtype is what is computed in.
        labels: int64 tensor of shape (N,), or the share of each class in each tile, float tensor
            of shape (N, C), whose rows sum to 1.
        classes: C, number of classes.
        penalties: tensor of shape (K,), above 0.
        weights: tensor of shape (K, N), weight of each tile in each problem (0 leaves it
            out); ones by default.
        start: parameters to start from, (K, C, r + 1).
        tolerance: stop when no entry of the gradient exceeds this.
        max_passes: most passes over the features.

    Returns:
        Parameters of shape (K, C, r + 1); the last column is the bias.
    """
    count, rank = len(penalties), axes.basis.shape[1]
    theta = (axes.basis.new_zeros(count, classes, rank + 1) if start is None
             else start.to(axes.basis).expand(count, -1, -1).clone())
    # Cross-entropy curves like p (1 - p) times the second moments of the inputs.
    bound = (classes - 1) / classes ** 2
    penalty = penalties.to(theta).view(-1, 1, 1)
    curvature = torch.cat([(bound * axes.variance).view(1, 1, -1) + penalty,
                           penalty.new_full((count, 1, 1), bound)], 2)
    with _one_thread(features.numel() * count * classes < _SMALL):
        return _lbfgs(_objective(features, axes, labels, classes, penalties, weights), theta,
                      1 / curvature, tolerance, max_passes)


def gradient_left(features: Tensor, axes: Axes, labels: Tensor, classes: int, penalties: Tensor,
                  theta: Tensor) -> float:
    """Return the largest entry of the gradient at parameters that :func:`solve` found.

    It tells whether the passes were enough; NaN where features or parameters are not finite.

    Args:
        features, axes, labels, classes, penalties: as in :func:`solve`.
        theta: parameters of shape (K, C, r + 1).
    """
    _, gradient = _objective(features, axes, labels, classes, penalties)(theta)
    return float(gradient.abs().max())


def _objective(features: Tensor, axes: Axes, labels: Tensor, classes: int, penalties: Tensor,
               weights: Tensor | None = None) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return what maps parameters (K, C, r + 1) to values (K,) and gradients."""
    x, count = features.to(axes.basis), len(penalties)
    rank = axes.basis.shape[1]
    turn = axes.basis / axes.scale.unsqueeze(1)  # D x r
    penalty = penalties.to(x).view(-1, 1, 1)
    share = (x.new_full((1, len(x)), 1 / len(x)) if weights is None
             else (weights / weights.sum(1, keepdim=True)).to(x))
    soft = labels.is_floating_point()
    truth = (labels if soft else F.one_hot(labels, classes)).T.to(x)  # C x N
    picked = None if soft else labels.view(1, 1, -1).expand(count, 1, -1)

    def value_and_gradient(theta: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = theta[..., :-1], theta[..., -1]
        raw = weight.reshape(count * classes, rank) @ turn.T  # (K·C) x D
        # Tiles last: both products then run along the rows of x, as it lies in memory.
        logits = torch.addmm((bias.flatten() - raw @ axes.mean).unsqueeze(1), raw, x.T)
        error = logits.view(count, classes, -1).log_softmax(1)  # K x C x N
        likelihood = (error.gather(1, picked).squeeze(1) if picked is not None
                      else (error * truth).sum(1))  # K x N
        value = -(likelihood * share).sum(1)
        value += 0.5 * (penalty * weight.square()).sum((1, 2))
        error.exp_().sub_(truth).mul_(share.unsqueeze(1))
        total = error.sum(2)  # K x C
        slope = error.view(-1, len(x)) @ x - total.view(-1, 1) * axes.mean
        slope = (slope @ turn).view_as(weight) + penalty * weight
        return value, torch.cat([slope, total.unsqueeze(2)], 2)

    return value_and_gradient


@contextlib.contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """Compute in one thread where that is wanted."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _lbfgs(value_and_gradient, x: Tensor, inverse: Tensor, tolerance: float, max_passes: int,
           memory: int = 10) -> Tensor:
    """L-BFGS (Nocedal & Wright, algorithm 7.5) on K independent problems side by side.

    Args:
        value_and_gradient: maps (K, ...) to values (K,) and gradients (K, ...).
        x: where to start, (K, ...).
        inverse: diagonal of the first inverse Hessian, broadcastable to ``x``.
        tolerance: largest entry of the gradient of a solved problem.
        max_passes: most evaluations.
        memory: pairs of steps and gradient changes that are remembered.
    """
    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((1, 2), keepdim=True)  # K x 1 x 1

    value, gradient = value_and_gradient(x)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    passes = 1
    stuck = torch.zeros_like(value, dtype=torch.bool)
    while passes < max_passes:
        active = (gradient.abs().amax((1, 2)) > tolerance) & ~stuck
        if not active.any():
            break
        direction = _two_loops(gradient, pairs, inverse, dot).neg_()
        direction *= active.view(-1, 1, 1)
        slope = dot(direction, gradient).flatten()
        step = torch.ones_like(value)
        while True:  # halve the step of those problems whose value did not fall enough
            trial = x + step.view(-1, 1, 1) * direction
            new_value, new_gradient = value_and_gradient(trial)
            passes += 1
            short = (new_value > value + 1e-4 * step * slope) & active & (step > 1e-3)
            if not short.any() or passes >= max_passes:
                break
            step = torch.where(short, step / 2, step)
        # Rounding sets the limit of what a problem can still gain: leave it where it was best.
        stuck |= active & (new_value > value)
        kept = stuck.view(-1, 1, 1)
        new_gradient = torch.where(kept, gradient, new_gradient)
        change, turn = torch.where(kept, 0, trial - x), new_gradient - gradient
        curvature = dot(change, turn)
        usable = curvature > 1e-10 * dot(turn, turn)
        rho = torch.where(usable, 1 / curvature.where(usable, curvature.new_ones(())), 0)
        pairs = (pairs + [(change, turn, rho)])[-memory:]
        x, gradient = torch.where(kept, x, trial), new_gradient
        value = torch.where(stuck, value, new_value)
    return x


def _two_loops(gradient: Tensor, pairs: list, inverse: Tensor, dot) -> Tensor:
    """Multiply the gradient with the inverse Hessian that the remembered pairs imply."""
    q, alphas = gradient.clone(), []
    for change, turn, rho in reversed(pairs):
        alphas.append(rho * dot(change, q))
        q -= alphas[-1] * turn
    if pairs:
        change, turn, _ = pairs[-1]
        scaled = dot(turn, inverse * turn)
        gamma = dot(change, turn) / scaled.clamp(min=1e-30)
        q *= inverse * torch.where(gamma > 0, gamma, 1.0)
    else:
        q *= inverse
    for (change, turn, rho), alpha in zip(pairs, reversed(alphas)):
        q += change * (alpha - rho * dot(turn, q))
    return q
