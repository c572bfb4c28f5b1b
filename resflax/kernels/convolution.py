"""Convolutions on CPUs by the library in `source/`, as functions that JAX can differentiate.

`convolve` takes with it what surrounds a convolution in a network: the maps are scaled, shifted and
rectified as they are read, and the moments of the result are summed as it is written. The gradient
computes the activated maps again, so they are never kept.

Gradients of gradients are computed by XLA, from `reference`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from resflax.kernels import library

Array = jax.Array


class Options(NamedTuple):
    """The options say how a convolution is applied, and what it does besides convolving."""

    stride: int = 1
    groups: int = 1
    relu: bool = False
    """Whether the maps are rectified before they are convolved."""
    sums: bool = False
    """Whether the results and their squares are summed."""


class Arguments(NamedTuple):
    """The arrays of a convolution."""

    maps: tuple[Array, ...]
    """Arrays (B, H, W, ...), which stand for their concatenation (B, H, W, C)."""
    kernel: Array
    """(k, k, C / groups, C'), k odd, of the maps' dtype: float32 or bfloat16."""
    factor: Array | None
    """(C,) float32, by which the maps are multiplied; None: the maps are not scaled."""
    offset: Array | None
    """(C,) float32, which is then added; None where the factor is."""


def reference(options: Options, arguments: Arguments) -> tuple[Array, Array]:
    """The same as `convolve`, in XLA's operations; sums that are not asked for are empty."""
    maps, kernel, factor, offset = arguments
    x = jnp.concatenate(maps, axis=-1)
    if factor is not None and offset is not None:
        x = (x.astype(jnp.float32) * factor + offset).astype(x.dtype)
    if options.relu:
        x = jnp.maximum(x, 0)
    pad = kernel.shape[0] // 2
    y = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(options.stride, options.stride),
        padding=((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=options.groups,
    )
    if not options.sums:
        return y, jnp.zeros((2, 0), jnp.float32)
    exact = y.astype(jnp.float32)
    return y, jnp.stack([jnp.sum(exact, (0, 1, 2)), jnp.sum(jnp.square(exact), (0, 1, 2))])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def convolve(options: Options, arguments: Arguments) -> tuple[Array, Array]:
    """Convolves activated maps with an odd kernel, padded by k // 2 on every side.

    The library must have been loaded (`library.load`), and the program must be compiled for a CPU.

    Returns:
      y (B, ceil(H / stride), ceil(W / stride), C') of the maps' dtype, and the sums of y and of its
      squares over the first three axes, (2, C') float32; (2, 0) unless `options.sums`.
    """
    maps, kernel, factor, offset = arguments
    batch, height, width, _ = maps[0].shape
    places = (batch, -(-height // options.stride), -(-width // options.stride))
    outputs = kernel.shape[3]
    result = (
        jax.ShapeDtypeStruct((*places, outputs), kernel.dtype),
        jax.ShapeDtypeStruct((2, outputs if options.sums else 0), jnp.float32),
    )
    y, sums = _call("Forward", result, options, kernel, *_or_empty(factor, offset), *maps)
    return y, sums


class _Kept(NamedTuple):
    """Everything that the gradient of a convolution needs."""

    arguments: Arguments
    y: Array | None
    """The result, if its sums have a gradient."""
    maps_differentiated: tuple[None, ...] | None
    """() if the gradient of the maps is asked for, else None."""


def _forward(options: Options, primals: Any) -> tuple[tuple[Array, Array], _Kept]:
    arguments = jax.tree.map(lambda primal: primal.value, primals, is_leaf=_is_primal)
    y, sums = convolve(options, arguments)
    # The gradient of the factor needs that of the activated maps.
    scaled = arguments.factor is not None
    wanted = () if scaled or any(primal.perturbed for primal in primals.maps) else None
    return (y, sums), _Kept(arguments, y if options.sums else None, wanted)


def _is_primal(leaf: Any) -> bool:
    return hasattr(leaf, "perturbed")


def _backward(options: Options, kept: _Kept, cotangents: tuple[Any, Any]) -> tuple[Arguments]:
    of_y, of_sums = cotangents
    arguments = kept.arguments
    if isinstance(of_y, SymbolicZero):
        of_y = jnp.zeros(of_y.shape, of_y.dtype)
    if not options.sums or isinstance(of_sums, SymbolicZero):
        of_sums = None
    wanted = kept.maps_differentiated is not None
    gradients = _gradients(options, wanted, arguments, kept.y, of_y, of_sums)
    if not wanted:
        gradients = gradients._replace(maps=tuple(map(jnp.zeros_like, arguments.maps)))
    return (gradients,)


convolve.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gradients(
    options: Options,
    of_maps: bool,
    arguments: Arguments,
    y: Array | None,
    of_y: Array,
    of_sums: Array | None,
) -> Arguments:
    """The gradients of the arguments, given those of the results.

    Args:
      options: those of the convolution.
      of_maps: whether the gradient of the maps is computed; if not, the result has no maps.
      arguments: those of the convolution.
      y: its result; needed only with `of_sums`.
      of_y: the gradient of y.
      of_sums: (2, C') float32; None if the sums have no gradient.
    """
    maps, kernel, factor, offset = arguments
    scaled = factor is not None
    channels = sum(m.shape[-1] for m in maps)
    vector = jax.ShapeDtypeStruct((channels if scaled else 0,), jnp.float32)
    result = [jax.ShapeDtypeStruct(kernel.shape, kernel.dtype), vector, vector]
    if of_maps:
        result += [jax.ShapeDtypeStruct(m.shape, m.dtype) for m in maps]
    if of_sums is None or y is None:
        y, of_sums = jnp.zeros((0,), kernel.dtype), jnp.zeros((0,), jnp.float32)
    inputs = (kernel, *_or_empty(factor, offset), of_y, y, of_sums, *maps)
    of_kernel, of_factor, of_offset, *rest = _call("Backward", tuple(result), options, *inputs)
    return Arguments(
        tuple(rest), of_kernel, of_factor if scaled else None, of_offset if scaled else None
    )


def _gradients_forward(
    options: Options, of_maps: bool, *inputs: Any
) -> tuple[Arguments, tuple[Any, ...]]:
    return _gradients(options, of_maps, *inputs), inputs


def _gradients_backward(
    options: Options, of_maps: bool, inputs: tuple[Any, ...], cotangents: Arguments
) -> tuple[Any, ...]:
    def by_reference(arguments: Arguments, of_y: Array, of_sums: Array | None) -> Arguments:
        _, pull = jax.vjp(functools.partial(reference, options), arguments)
        if of_sums is None:
            of_sums = jnp.zeros((2, arguments.kernel.shape[3] if options.sums else 0), jnp.float32)
        (gradients,) = pull((of_y, of_sums))
        return gradients if of_maps else gradients._replace(maps=())

    arguments, y, of_y, of_sums = inputs
    _, pull = jax.vjp(by_reference, arguments, of_y, of_sums)
    of_arguments, of_of_y, of_of_sums = pull(cotangents)
    # The reference computes y itself, so y as an argument has no gradient of its own.
    return of_arguments, None if y is None else jnp.zeros_like(y), of_of_y, of_of_sums


_gradients.defvjp(_gradients_forward, _gradients_backward)


def _or_empty(*vectors: Array | None) -> tuple[Array, ...]:
    return tuple(jnp.zeros((0,), jnp.float32) if v is None else v for v in vectors)


def _call(symbol: str, result: tuple[Any, ...], options: Options, *inputs: Array) -> Any:
    function = jax.ffi.ffi_call(library.target(symbol), result, vmap_method="sequential")
    return function(*inputs, stride=options.stride, groups=options.groups, relu=options.relu)
