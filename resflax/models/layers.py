"""The layers that residual and dense networks are made of.

Images and feature maps are NHWC. Parameters and batch statistics are float32. Convolutions and
activations have the layer's `dtype`.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.models.convolution import convolve, one_convolution

Array = jax.Array

# Convolutions are initialised as in He et al. 2015 (arXiv 1502.01852), with the fan-out, as in
# fb.resnet.torch and the DenseNet authors' code. The classifier is initialised as there, with the
# default of Torch's Linear.
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
torch_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Conv(nn.Module):
    """A convolution with an odd kernel size k, padded by k // 2 on every side, as in the papers.

    Maps (B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), features).
    """

    features: int
    kernel_size: int
    stride: int = 1
    groups: int = 1
    initial_bias: float | None = None
    """Initial value of all biases. None: the convolution has no bias. Only gates have one."""
    dtype: Any = jnp.float32

    def kernel_shape(self, channels: int) -> tuple[int, int, int, int]:
        """(k, k, channels / groups, features)."""
        return self.kernel_size, self.kernel_size, channels // self.groups, self.features

    @nn.compact
    def parameters(self, channels: int) -> tuple[Array, Array | None]:
        """Kernel (k, k, channels / groups, features) and bias (features,), in the layer's dtype."""
        bias = None
        kernel = self.param("kernel", he_normal, self.kernel_shape(channels))
        if self.initial_bias is not None:
            initial = nn.initializers.constant(self.initial_bias)
            bias = self.param("bias", initial, (self.features,)).astype(self.dtype)
        return kernel.astype(self.dtype), bias

    def as_one_convolution(self, x: Array) -> Array:
        """The same as `__call__`, as a single convolution of XLA, so that it can be counted."""
        kernel, _ = self.parameters(x.shape[-1])
        return one_convolution(x.astype(self.dtype), kernel, self.stride, self.groups)

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
    """Moments of maps (B, H, W, C) over B, H, W and, if `axis_name` is given, over its devices."""
    x = x.astype(jnp.float32)
    of_device = Moments(jnp.mean(x, (0, 1, 2)), jnp.mean(jnp.square(x), (0, 1, 2)))
    return of_device if axis_name is None else jax.lax.pmean(of_device, axis_name)


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
    # Without the barrier, XLA notices that the forward and the backward pass multiply by the same
    # factor. On CPUs it then writes the factor out in the full shape of the maps for both of them.
    factor = jax.lax.optimization_barrier(factor)
    gradient = gradient.astype(jnp.float32)
    of_factor = jnp.sum(gradient * x.astype(jnp.float32), (0, 1, 2))
    of_x = (gradient * factor).astype(x.dtype)
    return of_x, of_factor, jnp.sum(gradient, (0, 1, 2))


scale_and_shift.defvjp(_scale_and_shift_forward, _scale_and_shift_backward)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) from two moments, computed in float32.

    The variance is E[x^2] - E[x]^2. As in the paper and in PyTorch, running averages are kept of
    the mean and of the unbiased variance: new = momentum * old + (1 - momentum) * batch.
    """

    axis_name: str | None = None
    """Axis whose devices share batch statistics in training. None: each device uses its own."""
    momentum: float = 0.9
    epsilon: float = 1e-5
    initial_scale: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def coefficients(self, shape: tuple[int, ...], batch: Moments | None) -> tuple[Array, Array]:
        """The factor and the offset, each (C,) float32, that normalise maps of shape (B, H, W, C).

        In training, `batch` holds the moments of the maps, which also update the running averages.
        In evaluation it is None, and the running averages are used.
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
            # Rounding can make the difference of two nearly equal numbers negative.
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
        """Normalises maps (B, H, W, C). `batch` holds their moments, if the caller has them."""
        if train and batch is None:
            batch = moments(x, self.axis_name)
        factor, offset = self.coefficients(x.shape, batch if train else None)
        return scale_and_shift(x, factor, offset).astype(self.dtype)


def keys_of_examples(key: Array, examples: int, axis_name: str | None) -> Array:
    """A random key (examples,) for each example of this device.

    It depends on `key` and on the example's place in the batch of all devices together.
    """
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * examples
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(examples))


class Dropout(nn.Module):
    """Dropout whose masks do not depend on the number of devices.

    The mask of an example is drawn from the step's key and the example's place in the batch of all
    devices together.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """In training, zeroes activations with probability `rate` and scales up the others."""
        if not train or self.rate == 0:
            return x
        keys = keys_of_examples(self.make_rng("dropout"), x.shape[0], self.axis_name)
        keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))


class StochasticDepth(nn.Module):
    """Drops a residual branch (Huang et al. 2016, arXiv 1603.09382, section 3).

    By batch, as in the paper, a training step makes one random choice for the whole batch, and in
    evaluation the branch is scaled by its probability of survival. By picture, as in timm, each
    picture of a training step has its own choice, the branches that are kept are divided by the
    probability of survival, and evaluation leaves the branch as it is. The choices do not depend on
    the number of devices. A dropped branch is still computed, and the running averages of its batch
    norms are updated.
    """

    by: Literal["batch", "picture"] = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, branch: Array, survival: Array | float | None, *, train: bool) -> Array:
        """The branch (B, H, W, C); in training it becomes zero with probability 1 - survival.

        If `survival` is None, the branch is always kept.
        """
        if survival is None:
            return branch
        if not train:
            scale = survival if self.by == "batch" else 1.0
            return jnp.asarray(scale, branch.dtype) * branch
        key = self.make_rng("dropout")
        if self.by == "batch":
            return jnp.where(jax.random.bernoulli(key, survival), branch, jnp.zeros_like(branch))
        keys = keys_of_examples(key, branch.shape[0], self.axis_name)
        survives = jax.vmap(lambda k: jax.random.bernoulli(k, survival, (1, 1, 1)))(keys)
        kept = branch / jnp.asarray(survival, branch.dtype)
        return jnp.where(survives, kept, jnp.zeros_like(branch))


class SqueezeExcitation(nn.Module):
    """Multiplies each map by a gate, which two dense layers compute from the means of all maps.

    This is Hu et al. 2018 (arXiv 1709.01507). Means, dense layers and gates are float32.
    """

    squeezed: int
    """Width of the hidden layer: the number of maps divided by the reduction ratio."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Multiplies maps (B, H, W, C) by their gates; shape and dtype stay the same."""
        squeeze = nn.Dense(self.squeezed, kernel_init=he_normal, name="squeeze")
        excite = nn.Dense(x.shape[-1], kernel_init=he_normal, name="excite")
        gates = nn.sigmoid(excite(nn.relu(squeeze(global_average_pool(x)))))
        return x * gates[:, None, None].astype(x.dtype)


@dataclass(frozen=True)
class Layers:
    """Makes the layers of one network, which have the same number format and device axis.

    A layer without a name gets the next free one from linen, such as `Conv_0`.
    """

    dtype: Any = jnp.float32
    """Number format of convolutions and activations."""
    axis_name: str | None = None
    """Name of the device axis, if the network is applied under pmap or shard_map."""
    synchronized: bool = False
    """Whether the devices share their batch statistics."""
    fused: bool = False
    """Whether convolutions do the work of the batch norms and ReLUs before them (`models.maps`).
    These layers are then not called as modules, so their outputs cannot be intercepted."""

    @property
    def statistics_axis(self) -> str | None:
        """The axis whose devices share their batch statistics; None if they do not."""
        return self.axis_name if self.synchronized else None

    def conv(
        self,
        features: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        *,
        initial_bias: float | None = None,
        name: str | None = None,
    ) -> Conv:
        """A convolution; it has no bias if `initial_bias` is None."""
        return Conv(features, kernel_size, stride, groups, initial_bias, self.dtype, name=name)

    def norm(self, *, initial_scale: float = 1.0, name: str | None = None) -> BatchNorm:
        """A batch normalisation whose scale starts at `initial_scale`."""
        return BatchNorm(
            axis_name=self.statistics_axis,
            initial_scale=initial_scale,
            dtype=self.dtype,
            name=name,
        )

    def dropout(self, rate: float, *, name: str | None = None) -> Dropout:
        """Dropout that drops an activation with probability `rate`."""
        return Dropout(rate, axis_name=self.axis_name, name=name)

    def stochastic_depth(
        self, by: Literal["batch", "picture"], *, name: str | None = None
    ) -> StochasticDepth:
        """Stochastic depth, which is called with the probability of survival."""
        return StochasticDepth(by, axis_name=self.axis_name, name=name)

    def squeeze_excitation(self, squeezed: int, *, name: str | None = None) -> SqueezeExcitation:
        """Squeeze-and-excitation with a hidden layer of width `squeezed`."""
        return SqueezeExcitation(squeezed, name=name)

    def head(self, classes: int, *, name: str | None = None) -> nn.Dense:
        """The classifier, a dense layer that computes in float32 and returns float32 logits."""
        return nn.Dense(classes, kernel_init=torch_linear, dtype=jnp.float32, name=name)


@jax.custom_vjp
def relu(x: Array) -> Array:
    """max(x, 0). The gradient is computed from the result, which the next layer keeps anyway."""
    return jnp.maximum(x, 0)


def _relu_forward(x: Array) -> tuple[Array, Array]:
    result = jnp.maximum(x, 0)
    return result, result


def _relu_backward(result: Array, gradient: Array) -> tuple[Array]:
    return (gradient * jnp.sign(result),)


relu.defvjp(_relu_forward, _relu_backward)


def max_pool(x: Array) -> Array:
    """3x3 max pooling with stride 2 and padding 1, as in the stem of ImageNet networks."""
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def global_average_pool(x: Array) -> Array:
    """The means (B, C) float32 of maps (B, H, W, C) over H and W."""
    return jnp.mean(x.astype(jnp.float32), (1, 2))
