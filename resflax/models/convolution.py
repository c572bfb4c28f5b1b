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
    if jax.default_backend() == "cpu" and (stride <= kernel.shape[0] or kernel.shape[0] == 1):
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
    if max(x.shape[1:3]) <= size // 2 + 1 and stride == groups == 1:
        return _product(x, kernel)
    return _canonical(x, kernel, stride, groups)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _canonical(x: Array, kernel: Array, stride: int, groups: int) -> Array:
    """The convolution, with gradients that are convolutions with channels last."""
    return _fastest(x, kernel, stride, groups)


def _fastest(x: Array, kernel: Array, stride: int, groups: int) -> Array:
    size, width, pad = kernel.shape[0], x.shape[2], kernel.shape[0] // 2
    if kernel.shape[3] > _FEW or width % 2 or stride > 1 or groups > 1:
        pads = (pad, pad), (pad, pad)
        return _plain(x, kernel, pads, strides=(stride, stride), groups=groups)
    # Two neighbours at once: a kernel one wider, but each patch is laid out for both.
    both = jnp.stack([jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in (0, 1)], 3)
    both = both.reshape(size, size + 1, x.shape[3], -1)
    return _plain(x, both, ((pad, pad), (pad, pad)), strides=(1, 2)).reshape(*x.shape[:3], -1)


def _plain(
    x: Array,
    kernel: Array,
    pads: tuple[tuple[int, int], tuple[int, int]],
    *,
    strides: tuple[int, int] = (1, 1),
    dilation: int = 1,
    groups: int = 1,
) -> Array:
    """XLA's, padded (above, below), (left, right); `dilation` is the kernel's."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_CHANNELS_LAST,
        feature_group_count=groups,
    )


def _forward(
    x: Array, kernel: Array, stride: int, groups: int
) -> tuple[Array, tuple[Array, Array]]:
    return _fastest(x, kernel, stride, groups), (x, kernel)


def _backward(
    stride: int, groups: int, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = kept
    size, (inputs, outputs) = kernel.shape[0], kernel.shape[2:]  # of a group, of all
    turned = jnp.flip(kernel, (0, 1)).reshape(size, size, inputs, groups, outputs // groups)
    turned = turned.transpose(0, 1, 4, 3, 2).reshape(size, size, outputs // groups, -1)
    if stride == 1:
        of_x = _fastest(gradient, turned, 1, groups)
    else:
        of_x = _interleaved(gradient, turned, stride, groups)[:, : x.shape[1], : x.shape[2]]
    if outputs < inputs and stride == groups == 1:  # as in dense layers
        return of_x, _of_kernel_by_rows(x, gradient, size)
    return of_x, _of_kernel(x, gradient, size, stride, groups)


def _interleaved(gradient: Array, turned: Array, stride: int, groups: int) -> Array:
    """The gradient of the images under a stride, (B, H * stride, W * stride, C).

    Places of one remainder by the stride see the same taps of the kernel: those of each remainder
    are a convolution of their own, and no zeros are multiplied.
    """
    size = turned.shape[0]
    pad = size // 2

    def taps(place: int) -> tuple[slice, tuple[int, int]]:
        first = (pad - place) % stride
        before = (pad - place - first) // stride
        return slice(first, None, stride), (before, len(range(first, size, stride)) - 1 - before)

    def places(row: int, column: int) -> Array:
        (above, rows), (left, columns) = taps(row), taps(column)
        return _plain(gradient, turned[above, left], (rows, columns), groups=groups)

    found = [jnp.stack([places(i, k) for k in range(stride)], 3) for i in range(stride)]
    batch, height, width, _ = gradient.shape
    return jnp.stack(found, 2).reshape(batch, height * stride, width * stride, -1)


def _of_kernel(x: Array, gradient: Array, size: int, stride: int, groups: int) -> Array:
    """The kernel's gradient: channels for the batch, and the batch for channels."""
    batch, height, width, channels = x.shape
    images = x.reshape(batch, height, width, groups, channels // groups).transpose(4, 1, 2, 3, 0)
    images = images.reshape(channels // groups, height, width, groups * batch)
    pad = size // 2
    rows, columns = (
        (pad, size + (of_gradient - 1) * stride - of_x - pad)
        for of_x, of_gradient in zip(x.shape[1:3], gradient.shape[1:3], strict=True)
    )
    kernel = gradient.transpose(1, 2, 0, 3)
    found = _plain(images, kernel, (rows, columns), dilation=stride, groups=groups)
    return found.transpose(1, 2, 0, 3)


def _of_kernel_by_rows(x: Array, gradient: Array, size: int) -> Array:
    """The same as a convolution over rows, for fewer outputs than inputs.

    Its channels are a row's places in all images; its batch has the output's gradient once for
    every column of the kernel, shifted by it. So only the smaller of the two maps is rearranged.
    """
    batch, height, width, channels = x.shape
    pad = size // 2
    columns = jnp.pad(gradient, ((0, 0), (0, 0), (pad, pad), (0, 0))).transpose(1, 3, 0, 2)
    shifted = [columns[..., i : i + width] for i in reversed(range(size))]
    source = jnp.stack(shifted).reshape(size, *columns.shape[:2], batch * width)
    rows = x.transpose(1, 0, 2, 3).reshape(height, 1, batch * width, channels)
    y = _plain(source, rows, ((pad, pad), (0, 0)))  # (columns, rows, outputs, inputs)
    return jnp.flip(y, 1).transpose(1, 0, 3, 2)


_canonical.defvjp(_forward, _backward)
