"""The convolution, as a function that is fast on all platforms, in gradients and in loops.

XLA computes the gradients of a convolution as convolutions in which batch, features and positions
exchange roles. The libraries for GPUs and TPUs are made for these. CPUs run them at a fraction of
the speed, and inside a loop at a thirtieth (jax issue 12868). On CPUs, therefore, both gradients
are written here as convolutions with channels last.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from resflax.kernels import library
from resflax.kernels.convolution import Arguments, Options
from resflax.kernels.convolution import convolve as convolve_by_kernels

Array = jax.Array

_CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
# With at most this many output channels, it is faster to compute two positions at once
# (benchmarks/notes.md).
_FEW_OUTPUTS = 16


def convolve(x: Array, kernel: Array, stride: int = 1, groups: int = 1) -> Array:
    """Convolves images with an odd kernel, padded by k // 2 on every side.

    Args:
      x: (B, H, W, C).
      kernel: (k, k, C / groups, C'), of the same dtype.
      stride: distance between the positions to which the kernel is applied, in both directions.
      groups: number of groups into which C and C' are divided; each group sees only its own
        channels.

    Returns:
      (B, ceil(H / stride), ceil(W / stride), C') of the same dtype.
    """
    if runs_by_kernels(x.shape, kernel.shape, stride, groups):
        y, _ = convolve_by_kernels(Options(stride, groups), Arguments((x,), kernel, None, None))
        return y
    if jax.default_backend() == "cpu" and (stride <= kernel.shape[0] or kernel.shape[0] == 1):
        return _on_cpu(x, kernel, stride, groups)
    return one_convolution(x, kernel, stride, groups)


def runs_by_kernels(
    maps: tuple[int, ...], kernel: tuple[int, ...], stride: int = 1, groups: int = 1
) -> bool:
    """Whether our own kernels convolve maps and a kernel of these shapes.

    They run on CPUs, if they were built. Maps that the kernel covers from any position are
    multiplied by one matrix instead (`_as_matrix_product`).
    """
    if jax.default_backend() != "cpu" or not library.load():
        return False
    return not _is_matrix_product(maps, kernel[0], stride, groups)


def one_convolution(x: Array, kernel: Array, stride: int = 1, groups: int = 1) -> Array:
    """The same as `convolve`, as a single convolution of XLA on every platform."""
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
    if _is_matrix_product(x.shape, size, stride, groups):
        return _as_matrix_product(x, kernel)
    return _with_own_gradients(x, kernel, stride, groups)


def _is_matrix_product(maps: tuple[int, ...], size: int, stride: int, groups: int) -> bool:
    """Whether the kernel covers all of the maps from any position, so that XLA is faster."""
    return size > 1 and max(maps[1:3]) <= size // 2 + 1 and stride == groups == 1


def _as_matrix_product(x: Array, kernel: Array) -> Array:
    """Convolves maps that are so small that the kernel, at any position, covers all of them.

    The maps are multiplied by one matrix, which has a block for every pair of positions. A
    convolution of 2x2 maps would spend more than half of its work on the padding.
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
def _with_own_gradients(x: Array, kernel: Array, stride: int, groups: int) -> Array:
    """A convolution whose gradients are computed by convolutions with channels last."""
    return _forward_convolution(x, kernel, stride, groups)


def _forward_convolution(x: Array, kernel: Array, stride: int, groups: int) -> Array:
    """The convolution; with few output channels it computes two neighbouring positions at once."""
    size, width, pad = kernel.shape[0], x.shape[2], kernel.shape[0] // 2
    if kernel.shape[3] > _FEW_OUTPUTS or width % 2 or stride > 1 or groups > 1:
        pads = (pad, pad), (pad, pad)
        return _xla_convolution(x, kernel, pads, strides=(stride, stride), groups=groups)
    # The kernel becomes one column wider, but two neighbours share one copy of their patch.
    both = jnp.stack([jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in (0, 1)], 3)
    both = both.reshape(size, size + 1, x.shape[3], -1)
    pairs = _xla_convolution(x, both, ((pad, pad), (pad, pad)), strides=(1, 2))
    return pairs.reshape(*x.shape[:3], -1)


def _xla_convolution(
    x: Array,
    kernel: Array,
    pads: tuple[tuple[int, int], tuple[int, int]],
    *,
    strides: tuple[int, int] = (1, 1),
    dilation: int = 1,
    groups: int = 1,
) -> Array:
    """XLA's convolution, with the padding (above, below), (left, right) and a dilated kernel."""
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
    return _forward_convolution(x, kernel, stride, groups), (x, kernel)


def _backward(
    stride: int, groups: int, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = kept
    size, (inputs, outputs) = kernel.shape[0], kernel.shape[2:]  # inputs per group, all outputs
    turned = jnp.flip(kernel, (0, 1)).reshape(size, size, inputs, groups, outputs // groups)
    turned = turned.transpose(0, 1, 4, 3, 2).reshape(size, size, outputs // groups, -1)
    if stride == 1:
        of_x = _forward_convolution(gradient, turned, 1, groups)
    else:
        of_x = _gradient_of_strided_images(gradient, turned, stride, groups)
        of_x = of_x[:, : x.shape[1], : x.shape[2]]
    if outputs < inputs and stride == groups == 1:  # as in most layers of dense networks
        return of_x, _gradient_of_kernel_by_rows(x, gradient, size)
    return of_x, _gradient_of_kernel(x, gradient, size, stride, groups)


def _gradient_of_strided_images(gradient: Array, turned: Array, stride: int, groups: int) -> Array:
    """The gradient with respect to the images, for a stride above 1.

    All positions with the same remainder modulo the stride are reached by the same part of the
    kernel. So one convolution is computed for each pair of remainders (of row and column), and the
    results are interleaved. This multiplies no zeros.

    Args:
      gradient: the gradient (B, H, W, C') with respect to the convolution's output.
      turned: the kernel (k, k, C' / groups, C), turned by 180 degrees, with inputs and outputs
        exchanged.
      stride: the stride of the convolution.
      groups: the number of groups of the convolution.

    Returns:
      (B, H * stride, W * stride, C).
    """
    size = turned.shape[0]
    pad = size // 2

    def part_of_kernel(place: int) -> tuple[slice, tuple[int, int]]:
        """The kernel's rows (or columns) for one remainder, and the padding that they need."""
        first = (pad - place) % stride
        before = (pad - place - first) // stride
        return slice(first, None, stride), (before, len(range(first, size, stride)) - 1 - before)

    def places(row: int, column: int) -> Array:
        """The gradient at all positions whose row and column have these remainders."""
        (rows, pad_rows), (columns, pad_columns) = part_of_kernel(row), part_of_kernel(column)
        part = turned[rows, columns]
        return _xla_convolution(gradient, part, (pad_rows, pad_columns), groups=groups)

    rows = [jnp.stack([places(i, k) for k in range(stride)], 3) for i in range(stride)]
    batch, height, width, _ = gradient.shape
    return jnp.stack(rows, 2).reshape(batch, height * stride, width * stride, -1)


def _gradient_of_kernel(x: Array, gradient: Array, size: int, stride: int, groups: int) -> Array:
    """The kernel's gradient, as a convolution in which batch and channels exchange roles."""
    batch, height, width, channels = x.shape
    images = x.reshape(batch, height, width, groups, channels // groups).transpose(4, 1, 2, 3, 0)
    images = images.reshape(channels // groups, height, width, groups * batch)
    pad = size // 2
    rows, columns = (
        (pad, size + (of_gradient - 1) * stride - of_x - pad)
        for of_x, of_gradient in zip(x.shape[1:3], gradient.shape[1:3], strict=True)
    )
    kernel = gradient.transpose(1, 2, 0, 3)
    result = _xla_convolution(images, kernel, (rows, columns), dilation=stride, groups=groups)
    return result.transpose(1, 2, 0, 3)


def _gradient_of_kernel_by_rows(x: Array, gradient: Array, size: int) -> Array:
    """The kernel's gradient, as a convolution over rows. Faster for fewer outputs than inputs.

    The positions of a row, in all images, become the channels. The output's gradient is copied for
    every column of the kernel and shifted by that column; the copies become the batch. So only the
    output's gradient is copied, which is smaller than the images.
    """
    batch, height, width, channels = x.shape
    pad = size // 2
    columns = jnp.pad(gradient, ((0, 0), (0, 0), (pad, pad), (0, 0))).transpose(1, 3, 0, 2)
    shifted = [columns[..., i : i + width] for i in reversed(range(size))]
    source = jnp.stack(shifted).reshape(size, *columns.shape[:2], batch * width)
    rows = x.transpose(1, 0, 2, 3).reshape(height, 1, batch * width, channels)
    y = _xla_convolution(source, rows, ((pad, pad), (0, 0)))  # (columns, rows, outputs, inputs)
    return jnp.flip(y, 1).transpose(1, 0, 3, 2)


_with_own_gradients.defvjp(_forward, _backward)
