"""The convolution as a function, fast wherever it runs, its gradient and loops included.

XLA's own gradients of a convolution exchange batch, features and places. The libraries of GPUs and
TPUs know these, but on CPUs they run at a fraction of the speed, and inside a loop at a thirtieth
(jax issue 12868). There both gradients are written as convolutions with channels last.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

_CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
_FEW = 16  # outputs for which two places at once are faster (benchmarks/notes.md)


def convolve(x: Array, kernel: Array, stride: int = 1, groups: int = 1) -> Array:
    """Convolves images with an odd kernel, padded by k // 2 on every side.

    Args:
      x: (B, H, W, C).
      kernel: (k, k, C / groups, C'), of the same dtype.
      stride: of the places where the kernel is put.
      groups: C and C' fall into so many, which do not see each other.

    Returns:
      (B, ceil(H / stride), ceil(W / stride), C') of the same dtype.
    """
    if jax.default_backend() == "cpu":
        return _on_cpu(x, kernel, stride, groups)
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        dimension_numbers=_CHANNELS_LAST,
        feature_group_count=groups,
    )


def _on_cpu(x: Array, kernel: Array, stride: int, groups: int) -> Array:
    size = kernel.shape[0]
    if size == 1:
        x, stride = x[:, ::stride, ::stride], 1
    if size == 1 and groups == 1:
        return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0])
    if stride > 1:
        return _dense(*_without_stride(x, kernel, stride, groups), 0, groups)
    if max(x.shape[1:3]) <= size // 2 + 1 and groups == 1:
        return _product(x, kernel)
    return _dense(x, kernel, size // 2, groups)


def _product(x: Array, kernel: Array) -> Array:
    """Of maps so small that every place sees all others: one matrix with a block for every pair.

    A convolution of 2x2 maps spends more than half of its work on the padding.
    """
    batch, height, width, _ = x.shape
    middle = kernel.shape[0] // 2
    places = [(row, column) for row in range(height) for column in range(width)]
    matrix = jnp.concatenate(
        [
            jnp.concatenate(
                [kernel[middle + a - row, middle + b - column] for row, column in places], axis=1
            )
            for a, b in places
        ]
    )
    return (x.reshape(batch, -1) @ matrix).reshape(batch, height, width, -1)


def _without_stride(x: Array, kernel: Array, stride: int, groups: int) -> tuple[Array, Array]:
    """Images and kernel whose convolution, with neither stride nor padding, is the one asked for.

    Squares of stride x stride places become one place with all their channels, group by group.
    """
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    reach = -(-size // stride)  # of the new kernel
    grow = reach * stride - size
    kernel = jnp.pad(kernel, ((0, grow), (0, grow), (0, 0), (0, 0)))
    kernel = kernel.reshape(reach, stride, reach, stride, *kernel.shape[2:])
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(reach, reach, -1, kernel.shape[-1])

    batch, height, width, channels = x.shape
    rows, columns = (-(-side // stride) + reach - 1 for side in (height, width))
    ends = (rows * stride - pad - height, columns * stride - pad - width)
    edges = ((0, 0, 0), (pad, ends[0], 0), (pad, ends[1], 0), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    x = x.reshape(batch, rows, stride, columns, stride, groups, channels // groups)
    return x.transpose(0, 1, 3, 5, 2, 4, 6).reshape(batch, rows, columns, -1), kernel


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dense(x: Array, kernel: Array, pad: int, groups: int) -> Array:
    """Stride 1, padded on every side."""
    return _fastest(x, kernel, pad, groups)


def _fastest(x: Array, kernel: Array, pad: int, groups: int) -> Array:
    width = x.shape[2] + 2 * pad - kernel.shape[1] + 1
    if kernel.shape[3] > _FEW or width % 2 or groups > 1:
        return _plain(x, kernel, (pad, pad), groups)
    # Two neighbours at once: a kernel one wider, but each patch is laid out for both.
    both = jnp.stack([jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in (0, 1)], 3)
    y = _plain(x, both.reshape(*both.shape[:3], -1), (pad, pad), step=2)
    return y.reshape(*y.shape[:2], width, -1)


def _plain(x: Array, kernel: Array, pads: tuple[int, int], groups: int = 1, step: int = 1) -> Array:
    """XLA's, padded above and below, left and right; `step` is from column to column."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, step),
        padding=[(pad, pad) for pad in pads],
        dimension_numbers=_CHANNELS_LAST,
        feature_group_count=groups,
    )


def _forward(x: Array, kernel: Array, pad: int, groups: int) -> tuple[Array, tuple[Array, Array]]:
    return _fastest(x, kernel, pad, groups), (x, kernel)


def _backward(
    pad: int, groups: int, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = kept
    size, (inputs, outputs) = kernel.shape[0], kernel.shape[2:]  # of a group, of all
    turned = jnp.flip(kernel, (0, 1)).reshape(size, size, inputs, groups, outputs // groups)
    turned = turned.transpose(0, 1, 4, 3, 2).reshape(size, size, outputs // groups, -1)
    of_x = _fastest(gradient, turned, size - 1 - pad, groups)
    if groups == 1 and outputs < inputs:  # as in dense layers
        return of_x, _of_kernel_by_rows(x, gradient, size, pad)
    # Channels for the batch, and the batch for channels.
    batch, height, width, _ = x.shape
    images = x.reshape(batch, height, width, groups, inputs).transpose(4, 1, 2, 3, 0)
    images = images.reshape(inputs, height, width, groups * batch)
    of_kernel = _plain(images, gradient.transpose(1, 2, 0, 3), (pad, pad), groups)
    return of_x, of_kernel.transpose(1, 2, 0, 3)


def _of_kernel_by_rows(x: Array, gradient: Array, size: int, pad: int) -> Array:
    """The kernel's gradient as a convolution over rows, for fewer outputs than inputs.

    Its channels are a row's places in all images; its batch has the output's gradient once for
    every column of the kernel, shifted by it. So only the smaller of the two maps is rearranged.
    """
    batch, height, width, channels = x.shape
    reach = size - 1 - pad
    columns = jnp.pad(gradient, ((0, 0), (0, 0), (reach, reach), (0, 0))).transpose(1, 3, 0, 2)
    shifted = [columns[..., i : i + width] for i in reversed(range(size))]
    source = jnp.stack(shifted).reshape(size, *columns.shape[:2], batch * width)
    rows = x.transpose(1, 0, 2, 3).reshape(height, 1, batch * width, channels)
    y = _plain(source, rows, (reach, 0))  # (columns, rows, outputs, inputs)
    return jnp.flip(y, 1).transpose(1, 0, 3, 2)


_dense.defvjp(_forward, _backward)
