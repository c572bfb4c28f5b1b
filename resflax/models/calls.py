"""Calls of layers and of other modules, as operations of a traced program.

`models.dataflow` reads them in the program.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching

from resflax.models import layers

LAYER = Primitive("resflax_layer")
"""A layer, with its `kind`, its `path` and its `details` (pairs of names and values)."""
ENTER = Primitive("resflax_enter")
"""The beginning of another module, whose path and class are the parameters `path` and `name`."""
LEAVE = Primitive("resflax_leave")
"""The end of a module."""


def _define() -> None:
    for primitive in (LAYER, ENTER, LEAVE):
        primitive.multiple_results = True

    def shape_of_layer(*given: Any, shape: tuple[int, ...], dtype: Any, **_: Any) -> Any:
        return [jax.core.ShapedArray(shape, dtype)]

    def batched_layer(given: Any, axes: Any, *, shape: Any, **others: Any) -> Any:
        sizes = [x.shape[a] for x, a in zip(given, axes, strict=True) if a is not None]
        moved = [
            x if a is None else jnp.moveaxis(x, a, 0) for x, a in zip(given, axes, strict=True)
        ]
        return LAYER.bind(*moved, shape=(sizes[0], *shape), **others), [0]

    LAYER.def_abstract_eval(shape_of_layer)
    batching.primitive_batchers[LAYER] = batched_layer
    for border in (ENTER, LEAVE):
        border.def_abstract_eval(lambda *given, **_: list(given))
        batching.primitive_batchers[border] = lambda given, axes, border=border, **others: (
            border.bind(*given, **others),
            axes,
        )


_define()


def _pair(value: Any) -> tuple[int, ...]:
    """The two sizes of a window or a stride, of which linen's layers take one, two or None."""
    if value is None:
        return 1, 1
    return (value, value) if isinstance(value, int) else tuple(value)


def _linen_conv(module: nn.Conv) -> dict[str, Any]:
    return {
        "size": _pair(module.kernel_size),
        "stride": _pair(module.strides),
        "groups": module.feature_group_count,
        "features": module.features,
        "bias": module.use_bias,
    }


def _conv(module: layers.Conv) -> dict[str, Any]:
    return {
        "size": _pair(module.kernel_size),
        "stride": _pair(module.stride),
        "groups": module.groups,
        "features": module.features,
        "bias": module.initial_bias is not None,
    }


_LAYERS: tuple[tuple[Any, str, Callable[[Any], dict[str, Any]]], ...] = (
    (layers.Conv, "conv", _conv),
    (nn.Conv, "conv", _linen_conv),
    (nn.ConvTranspose, "transposed conv", lambda m: {"size": _pair(m.kernel_size)}),
    ((layers.BatchNorm, nn.BatchNorm), "norm", lambda m: {"name": "BatchNorm"}),
    (
        (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.InstanceNorm),
        "norm",
        lambda m: {"name": type(m).__name__},
    ),
    (nn.Dense, "dense", lambda m: {"features": m.features}),
    ((layers.Dropout, nn.Dropout), "dropout", lambda m: {"rate": m.rate}),
    (layers.StochasticDepth, "stochastic depth", lambda m: {"by": m.by}),
    (layers.SqueezeExcitation, "squeeze-excitation", lambda m: {"squeezed": m.squeezed}),
)
"""Classes of layers, with the kind of their nodes and a function that returns the details."""


class Recorder:
    """Replaces the calls of layers by operations, and marks where other modules begin and end."""

    def __init__(self, *, has_variables: bool) -> None:
        self._shapes: dict[str, Any] = {}
        self._has_variables = has_variables
        self._measures = False

    def intercept(
        self, call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        """Calls a method of a module between marks or, for a layer, not at all."""
        module = context.module
        if self._measures or context.method_name != "__call__" or not module.path:
            return call(*args, **kwargs)
        for classes, kind, details_of in _LAYERS:
            if isinstance(module, classes):
                return self._layer(call, args, kwargs, module, kind, details_of(module))
        args, kwargs = _marked(ENTER, module, (args, kwargs))
        return _marked(LEAVE, module, call(*args, **kwargs))

    def _layer(
        self, call: Any, args: Any, kwargs: Any, module: Any, kind: str, details: dict[str, Any]
    ) -> Any:
        if kind == "stochastic depth":
            details["survival"] = args[1]
        if details.get("rate") == 0 or details.get("survival", 1) is None:
            return call(*args, **kwargs)  # it never changes anything
        arrays = [leaf for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, jax.Array)]
        result = self._shape(module, args, kwargs)
        if self._has_variables:  # under vmap they may tell that there are several such layers
            arrays += jax.tree.leaves(module.variables)
        named = {"kind": kind, "path": module.path, "details": tuple(details.items())}
        return LAYER.bind(*arrays, **named, shape=result.shape, dtype=result.dtype)[0]

    def _shape(self, module: Any, args: Any, kwargs: Any) -> Any:
        """The shape and the number format that a layer returns; equal layers are asked once."""
        fields = {
            field.name: getattr(module, field.name)
            for field in dataclasses.fields(module)
            if field.name not in ("name", "parent")
        }
        leaves, structure = jax.tree.flatten((args, kwargs))
        abstract = [
            jax.ShapeDtypeStruct(x.shape, x.dtype) if isinstance(x, jax.Array) else x
            for x in leaves
        ]
        key = repr((type(module), fields, abstract, structure))
        if key not in self._shapes:
            alone = module.clone(parent=None, name=None)

            def run(arrays: list[Any]) -> Any:
                given = iter(arrays)
                filled = [next(given) if isinstance(x, jax.Array) else x for x in leaves]
                args, kwargs = jax.tree.unflatten(structure, filled)
                keys = {name: jax.random.key(0) for name in ("params", "dropout")}
                return alone.init_with_output(keys, *args, **kwargs)[0]

            arrays = [x for x in abstract if isinstance(x, jax.ShapeDtypeStruct)]
            self._measures = True
            self._shapes[key] = jax.eval_shape(run, arrays)
            self._measures = False
        return self._shapes[key]


def _marked(border: Primitive, module: nn.Module, values: Any) -> Any:
    """The same values, whose arrays have passed the border of a module."""
    leaves, structure = jax.tree.flatten(values)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
    arrays = [leaves[place] for place in places]
    passed = border.bind(*arrays, path=module.path, name=type(module).__name__)
    for place, value in zip(places, passed, strict=True):
        leaves[place] = value
    return jax.tree.unflatten(structure, leaves)
