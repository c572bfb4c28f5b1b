"""The layers that residual and dense networks are made of.

Images and feature maps are NHWC. Parameters and batch statistics are float32; convolutions and
activations have the layer's `dtype`.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.models.convolution import convolve

Array = jax.Array

# He et al. 2015 (arXiv 1502.01852) for convolutions, by fan-out as fb.resnet.torch and the
# DenseNet authors' code have it; their classifier has the default of Torch's Linear.
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
torch_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Conv(nn.Module):
    """A convolution padded as the papers do: k // 2 on every side.

    Maps (B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), features) for odd kernels.
    """

    features: int
    kernel_size: int
    stride: int = 1
    groups: int = 1
    initial_bias: float | None = None
    """Initial value of every bias; None: no bias, as in all convolutions but a gate's."""
    dtype: Any = jnp.float32

    @nn.compact
    def parameters(self, channels: int) -> tuple[Array, Array | None]:
        """Kernel (k, k, channels / groups, features) and bias (features,), in the layer's dtype."""
        k, bias = self.kernel_size, None
        kernel = self.param("kernel", he_normal, (k, k, channels // self.groups, self.features))
        if self.initial_bias is not None:
            initial = nn.initializers.constant(self.initial_bias)
            bias = self.param("bias", initial, (self.features,)).astype(self.dtype)
        return kernel.astype(self.dtype), bias

    def __call__(self, x: Array) -> Array:
        """Convolves `x`; the result has the layer's dtype."""
        kernel, bias = self.parameters(x.shape[-1])
        x = convolve(x.astype(self.dtype), kernel, self.stride, self.groups)
        return x if bias is None else x + bias


class Moments(NamedTuple):
    """Mean and mean square of each feature map over a batch: two (C,) float32 vectors."""

    mean: Array
    mean_square: Array


def moments(x: Array, axis_name: str | None) -> Moments:
    """Moments of (B, H, W, C) maps over B, H and W, and over `axis_name`'s devices if given."""
    x = x.astype(jnp.float32)
    found = Moments(jnp.mean(x, (0, 1, 2)), jnp.mean(jnp.square(x), (0, 1, 2)))
    return found if axis_name is None else jax.lax.pmean(found, axis_name)


@jax.custom_vjp
def scale_and_shift(x: Array, factor: Array, offset: Array) -> Array:
    """factor * x + offset for maps (B, H, W, C) and two (C,) float32; computed in float32."""
    return (x.astype(jnp.float32) * factor + offset).astype(x.dtype)


def _scale_and_shift_forward(
    x: Array, factor: Array, offset: Array
) -> tuple[Array, tuple[Array, Array]]:
    return scale_and_shift(x, factor, offset), (x, factor)


def _scale_and_shift_backward(
    kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array, Array]:
    x, factor = kept
    # Or XLA would see that both directions multiply with the same, and on CPUs write it out in
    # the maps' full shape for both.
    factor = jax.lax.optimization_barrier(factor)
    wide = gradient.astype(jnp.float32)
    of_factor = jnp.sum(wide * x.astype(jnp.float32), (0, 1, 2))
    return (wide * factor).astype(x.dtype), of_factor, jnp.sum(wide, (0, 1, 2))


scale_and_shift.defvjp(_scale_and_shift_forward, _scale_and_shift_backward)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) from two moments, computed in float32.

    The variance is E[x^2] - E[x]^2. Running averages hold the mean and the unbiased variance, as
    in the paper and in PyTorch: new = momentum * old + (1 - momentum) * batch.
    """

    axis_name: str | None = None
    """Axis whose devices share their statistics in training; None: each has its own."""
    momentum: float = 0.9
    epsilon: float = 1e-5
    initial_scale: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def coefficients(self, shape: tuple[int, ...], batch: Moments | None) -> tuple[Array, Array]:
        """Factor and offset, (C,) float32, that normalise maps of a shape (B, H, W, C).

        In training `batch` are the maps' moments, which the running averages take in; else None.
        """
        maps = shape[-1:]
        scale = self.param("scale", nn.initializers.constant(self.initial_scale), maps)
        bias = self.param("bias", nn.initializers.zeros, maps)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, maps, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, maps, jnp.float32)
        if batch is None:
            mean, var = running_mean.value, running_var.value
        else:
            mean = batch.mean
            # Rounding can take the difference of two near-equal numbers below zero.
            var = jnp.maximum(batch.mean_square - jnp.square(mean), 0)
            if not self.is_initializing():
                devices = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
                count = devices * math.prod(shape[:-1])
                unbiased = var * (count / max(count - 1, 1))
                keep, take = self.momentum, 1 - self.momentum
                running_mean.value = keep * running_mean.value + take * mean
                running_var.value = keep * running_var.value + take * unbiased
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return factor, bias - mean * factor

    def __call__(self, x: Array, *, train: bool, batch: Moments | None = None) -> Array:
        """Normalises (B, H, W, C) maps; `batch` are their moments where the caller has them."""
        if train and batch is None:
            batch = moments(x, self.axis_name)
        factor, offset = self.coefficients(x.shape, batch if train else None)
        return scale_and_shift(x, factor, offset).astype(self.dtype)


class Dropout(nn.Module):
    """Dropout whose mask belongs to the example, not to the device that computes it.

    Every example's mask is drawn from the step's key and the example's place in the global batch,
    so that a batch means the same on any number of devices.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Zeroes activations with probability `rate` in training and scales up the others."""
        if not train or self.rate == 0:
            return x
        examples = x.shape[0]
        first = 0 if self.axis_name is None else jax.lax.axis_index(self.axis_name) * examples
        key = self.make_rng("dropout")
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(examples))
        keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))


class StochasticDepth(nn.Module):
    """Drops a residual branch (Huang et al. 2016, arXiv 1603.09382, section 3).

    As in the paper, one lot falls for the whole batch of a training step, and in evaluation the
    branch is scaled by its probability of survival. All devices draw from the step's key, so the
    lot does not depend on their number. A dropped branch is computed all the same, and the running
    averages of its batch norms move.
    """

    @nn.compact
    def __call__(self, branch: Array, survival: Array | float | None, *, train: bool) -> Array:
        """The branch, or zeros with probability 1 - survival in training; None: never zeros."""
        if survival is None:
            return branch
        if not train:
            return jnp.asarray(survival, branch.dtype) * branch
        survives = jax.random.bernoulli(self.make_rng("dropout"), survival)
        return jnp.where(survives, branch, jnp.zeros_like(branch))


class SqueezeExcitation(nn.Module):
    """Weighs each map by a gate that sees all maps' means (Hu et al. 2018, arXiv 1709.01507).

    Means, the two dense layers and the gates are float32.
    """

    squeezed: int
    """Width of the hidden layer: maps / reduction ratio."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps (B, H, W, C) to the same shape and dtype."""
        squeeze = nn.Dense(self.squeezed, kernel_init=he_normal, name="squeeze")
        excite = nn.Dense(x.shape[-1], kernel_init=he_normal, name="excite")
        gates = nn.sigmoid(excite(nn.relu(squeeze(global_average_pool(x)))))
        return x * gates[:, None, None].astype(x.dtype)


@dataclass(frozen=True)
class Layers:
    """Layers as one network has them: number format and what devices share, set once."""

    dtype: Any = jnp.float32
    axis_name: str | None = None
    synchronized: bool = False

    @property
    def statistics_axis(self) -> str | None:
        """The axis whose devices share their batch statistics, if they do."""
        return self.axis_name if self.synchronized else None

    def conv(
        self,
        features: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        *,
        initial_bias: float | None = None,
        name: str,
    ) -> Conv:
        """A convolution of these layers."""
        return Conv(features, kernel_size, stride, groups, initial_bias, self.dtype, name=name)

    def norm(self, *, initial_scale: float = 1.0, name: str) -> BatchNorm:
        """A batch normalisation of these layers."""
        return BatchNorm(
            axis_name=self.statistics_axis,
            initial_scale=initial_scale,
            dtype=self.dtype,
            name=name,
        )

    def dropout(self, rate: float, *, name: str) -> Dropout:
        """A dropout of these layers."""
        return Dropout(rate, axis_name=self.axis_name, name=name)

    def stochastic_depth(self, *, name: str) -> StochasticDepth:
        """A stochastic depth of these layers."""
        return StochasticDepth(name=name)

    def squeeze_excitation(self, squeezed: int, *, name: str) -> SqueezeExcitation:
        """A squeeze-and-excitation of these layers."""
        return SqueezeExcitation(squeezed, name=name)

    def head(self, classes: int, *, name: str) -> nn.Dense:
        """The classifier: its sums, and so the logits, are float32."""
        return nn.Dense(classes, kernel_init=torch_linear, dtype=jnp.float32, name=name)


@jax.custom_vjp
def relu(x: Array) -> Array:
    """max(x, 0). For its gradient it keeps the result, which the next layer keeps anyway."""
    return jnp.maximum(x, 0)


def _relu_forward(x: Array) -> tuple[Array, Array]:
    result = jnp.maximum(x, 0)
    return result, result


def _relu_backward(result: Array, gradient: Array) -> tuple[Array]:
    return (gradient * jnp.sign(result),)


relu.defvjp(_relu_forward, _relu_backward)


def max_pool(x: Array) -> Array:
    """The 3x3 maximum with stride 2 behind the stem of ImageNet nets, padded by 1."""
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def global_average_pool(x: Array) -> Array:
    """(B, H, W, C) to the (B, C) float32 means over H and W."""
    return jnp.mean(x.astype(jnp.float32), (1, 2))
