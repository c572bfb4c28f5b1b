"""Ridge regression from inner products of examples, whatever the number of their features.

It is the dual form of ridge regression, with an intercept that is not penalised (Saunders et al.
1998). The penalty is chosen by leaving out each example once, in closed form.
"""

from collections.abc import Sequence

import numpy as np

PENALTIES = np.logspace(-5, 2, 15)
"""The penalties to choose from, as multiples of the mean eigenvalue of the Gram matrix. Smaller
ones would fit the rounding of float32."""


_EQUAL = 1e-10
"""Examples whose features vary by a smaller share of their mean square have equal features."""


def predict(gram: np.ndarray, cross: np.ndarray, *targets: np.ndarray) -> list[np.ndarray]:
    """Fits every set of targets by ridge regression, and predicts them for other examples.

    Each set has one penalty, which has the least squared error when each example is left out.

    Args:
      gram: (N, N) inner products of the features of the fitting examples.
      cross: (M, N) inner products of the other examples' features with those of the fitting ones.
      targets: sets of targets (N, T) of the fitting examples; each set has its own T.

    Returns:
      Predictions (M, T) float64 for each set. They are the mean of the targets if the fitting
      examples have equal features.

    Raises:
      numpy.linalg.LinAlgError: if an inner product is not finite.
    """
    gram, cross = np.asarray(gram, np.float64), np.asarray(cross, np.float64)
    # The products with the mean fitting example, which is subtracted from all examples.
    with_mean = gram.mean(0)
    cross = cross - cross.mean(1, keepdims=True) - with_mean + with_mean.mean()
    centred = gram - with_mean[:, None] - with_mean + with_mean.mean()
    eigenvalues, vectors = np.linalg.eigh(centred)
    eigenvalues = np.maximum(eigenvalues, 0)  # rounding makes some negative
    scale = eigenvalues.mean()
    if scale <= _EQUAL * np.trace(gram) / len(gram):
        return [np.repeat(target.mean(0, keepdims=True), len(cross), 0) for target in targets]
    rotated = cross @ vectors
    means = [target.mean(0) for target in targets]
    components = [vectors.T @ (target - mean) for target, mean in zip(targets, means, strict=True)]
    # Rotating targets changes no error, and N dimensions hold those of N examples.
    few = [c if c.shape[1] <= len(c) else np.linalg.qr(c.T).R.T for c in components]
    errors = [left_out_errors(eigenvalues, vectors, few, scale * penalty) for penalty in PENALTIES]
    best = scale * PENALTIES[np.argmin(errors, axis=0)]
    return [
        mean + rotated @ (parts / (eigenvalues + penalty)[:, None])
        for mean, parts, penalty in zip(means, components, best, strict=True)
    ]


def left_out_errors(
    eigenvalues: np.ndarray, vectors: np.ndarray, components: Sequence[np.ndarray], penalty: float
) -> list[float]:
    """The sums of squared errors when each example is predicted by a fit to all the others.

    The error of a left-out example is its residual divided by 1 - h, where h is its leverage, the
    intercept's 1 / N included (Allen 1974).

    Args:
      eigenvalues: (N,) eigenvalues of the centred Gram matrix.
      vectors: (N, N) its eigenvectors, in columns.
      components: sets of centred targets (N, T), in the basis of the eigenvectors.
      penalty: the penalty, in the units of the eigenvalues.
    """
    kept = penalty / (eigenvalues + penalty)
    factor = (1 / (np.square(vectors) @ kept - 1 / len(vectors)))[:, None]
    shrunk = kept[:, None]
    return [float(np.sum(np.square(factor * (vectors @ (shrunk * c))))) for c in components]
