"""Multinomial logistic regression on cached features, many regularisations in one solve.

The problems (regularisations, and folds of a cross-validation) differ only in a number and
in the weights of the tiles, so they are solved together: every pass over the features is one
matrix product for all of them. Features are turned to their principal axes first, where the
curvature is nearly diagonal; L-BFGS started from that diagonal needs some tens of passes
where plain gradient steps need thousands.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
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
    """Standardised features seen along their principal axes.

    Attributes:
        mean, scale: tensors of shape (D,), what standardised the features.
        basis: tensor of shape (D, r), orthonormal columns.
        variance: tensor of shape (r,), variance along each axis.
        features: tensor of shape (N, r).
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor
    variance: Tensor
    features: Tensor

    def classifier(self, theta: Tensor) -> Classifier:
        """Return the classifier on raw features that parameters (r + 1, C) describe."""
        weight = self.basis @ theta[:-1] / self.scale.unsqueeze(1)
        return Classifier(weight, theta[-1] - self.mean @ weight)

    def parameters(self, classifier: Classifier) -> Tensor:
        """Return the parameters (r + 1, C) that come nearest to a classifier."""
        weight = self.basis.T @ (classifier.weight * self.scale.unsqueeze(1))
        bias = classifier.bias + self.mean @ classifier.weight
        return torch.cat([weight, bias.unsqueeze(0)])


def principal_axes(features: Tensor, dtype: torch.dtype = torch.float32) -> Axes:
    """Standardise features of shape (N, D) and turn them to their principal axes.

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
    else:
        values, vectors = torch.linalg.eigh((x.T @ x).double())
    keep = values > 1e-6 * values[-1].clamp(min=1e-12)
    values, vectors = values[keep], vectors[:, keep].to(dtype)
    basis = x.T @ vectors / values.sqrt().to(dtype) if n < d else vectors
    return Axes(mean, scale, basis, (values / n).to(dtype), x @ basis)


def solve(axes: Axes, labels: Tensor, classes: int, penalties: Tensor,
          weights: Tensor | None = None, start: Tensor | None = None, tolerance: float = 1e-4,
          max_passes: int = 300) -> Tensor:
    """Minimise mean cross-entropy + penalty / 2 · ‖W‖² for K problems at once.

    In terms of scikit-learn's ``LogisticRegression``, C = 1 / (penalty · N); like there the
    bias is not penalised. W is the weight on standardised features.

    Args:
        axes: the features, from :func:`principal_axes`.
        labels: int64 tensor of shape (N,).
        classes: C, number of classes.
        penalties: tensor of shape (K,), above 0.
        weights: tensor of shape (N, K), weight of each tile in each problem (0 leaves it
            out); ones by default.
        start: parameters to start from, (K, r + 1, C).
        tolerance: stop when no entry of the gradient exceeds this.
        max_passes: most passes over the features.

    Returns:
        Parameters of shape (K, r + 1, C); the last row is the bias.
    """
    z, count = axes.features, len(penalties)
    rank = z.shape[1]
    penalty = penalties.to(z).view(-1, 1, 1)
    theta = (z.new_zeros(count, rank + 1, classes) if start is None
             else start.to(z).expand(count, -1, -1).clone())
    share = (z.new_full((len(z), count), 1 / len(z)) if weights is None
             else (weights / weights.sum(0)).to(z))

    def value_and_gradient(theta: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = theta[:, :-1], theta[:, -1]
        logits = (z @ weight.permute(1, 0, 2).reshape(rank, -1)).view(len(z), count, classes)
        logits += bias
        log_sum = logits.logsumexp(2)  # N x K
        picked = logits.gather(2, labels.view(-1, 1, 1).expand(-1, count, 1)).squeeze(2)
        value = ((log_sum - picked) * share).sum(0)
        value += 0.5 * (penalty * weight.square()).sum((1, 2))
        error = (logits - log_sum.unsqueeze(2)).exp_()
        error.scatter_add_(2, labels.view(-1, 1, 1).expand(-1, count, 1),
                           error.new_full((len(z), count, 1), -1.0))
        error *= share.unsqueeze(2)
        slope = (z.T @ error.view(len(z), -1)).view(rank, count, classes).permute(1, 0, 2)
        return value, torch.cat([slope + penalty * weight, error.sum(0).unsqueeze(1)], 1)

    # Cross-entropy curves like p (1 - p) times the second moments of the inputs.
    bound = (classes - 1) / classes ** 2
    curvature = torch.cat([(bound * axes.variance).view(1, -1, 1) + penalty,
                           penalty.new_full((count, 1, 1), bound)], 1)
    with _one_thread(len(z) * rank * count * classes < _SMALL):
        return _lbfgs(value_and_gradient, theta, 1 / curvature, tolerance, max_passes)


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
