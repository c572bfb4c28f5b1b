"""Traces a network to the graph of its layers and operations.

The network is called as in evaluation, without computing anything. Each layer that is known here
becomes one node; everything else that the network computes is read from the traced program. So the
graph has what the network does, and nothing else.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import batching

from resflax.declarations.models import Model
from resflax.declarations.own import own_classes
from resflax.models import build, layers
from resflax.models.graph import Call, Graph, Node, Path, without_unused
from resflax.models.operations import Constant, Value, operation
from resflax.models.own_parts import check_own, explaining
from resflax.models.program_counts import programs_in


def trace(config: Model, num_classes: int, image_shape: tuple[int, int, int]) -> Graph:
    """The graph of a network for one (H, W, C) image, whose node is the first.

    Raises `UsageError` if the network cannot take images of that size, or if a user's own class may
    not be run, fails, or returns what it must not.
    """
    module = build(config, num_classes)
    check_own(config, module, num_classes, image_shape)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    # Networks of resflax's own classes have parameters in layers only, which are not looked into.
    has_own = bool(own_classes(config))
    recorder = _Recorder(has_variables=has_own)
    with explaining(config):
        variables: Any = {}
        if has_own:
            key = jax.random.key(0)
            variables = jax.eval_shape(lambda x: module.init(key, x, train=False), image)
        with nn.intercept_methods(recorder.intercept):
            program = jax.make_jaxpr(lambda x, v: module.apply(v, x, train=False))(image, variables)
    reader = _Reader(recorder)
    given: list[Value] = [reader.add(Node("input", (), image.shape))]
    for keys, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        _, *owner, name = (key.key for key in keys)
        node = Node("parameter", (), leaf.shape, tuple(owner), {"name": name})
        given.append(reader.add(node))
    results = reader.read(program.jaxpr, program.consts, given)
    outputs = tuple(value for value in results if isinstance(value, int))
    return without_unused(Graph(tuple(reader.nodes), outputs, tuple(reader.calls)))


# --- Layers, and the borders of other modules, as operations that stand in the program

_layer, _enter, _leave = (
    Primitive("resflax_layer"),
    Primitive("resflax_enter"),
    Primitive("resflax_leave"),
)


def _define() -> None:
    for primitive in (_layer, _enter, _leave):
        primitive.multiple_results = True

    def shape_of_layer(*given: Any, shape: tuple[int, ...], dtype: Any, **_: Any) -> Any:
        return [jax.core.ShapedArray(shape, dtype)]

    def batched_layer(given: Any, axes: Any, *, shape: Any, **others: Any) -> Any:
        sizes = [x.shape[a] for x, a in zip(given, axes, strict=True) if a is not None]
        moved = [
            x if a is None else jnp.moveaxis(x, a, 0) for x, a in zip(given, axes, strict=True)
        ]
        return _layer.bind(*moved, shape=(sizes[0], *shape), **others), [0]

    _layer.def_abstract_eval(shape_of_layer)
    batching.primitive_batchers[_layer] = batched_layer
    for border in (_enter, _leave):
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


class _Recorder:
    """Replaces the calls of layers by operations, and marks where other modules begin and end."""

    def __init__(self, *, has_variables: bool) -> None:
        self.layers: list[Node] = []
        """Nodes of layers, without inputs and shapes."""
        self.modules: list[tuple[Path, str]] = []
        """Paths and classes of other modules."""
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
        return self._between_marks(call, args, kwargs, module)

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
        number = len(self.layers)
        self.layers.append(Node(kind, (), (), module.path, details))
        return _layer.bind(*arrays, number=number, shape=result.shape, dtype=result.dtype)[0]

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

    def _between_marks(self, call: Any, args: Any, kwargs: Any, module: Any) -> Any:
        number = len(self.modules)
        self.modules.append((module.path, type(module).__name__))
        args, kwargs = _marked(_enter, number, (args, kwargs))
        return _marked(_leave, number, call(*args, **kwargs))


def _marked(border: Primitive, number: int, values: Any) -> Any:
    """The same values, whose arrays have passed the border of a module."""
    leaves, structure = jax.tree.flatten(values)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
    passed = border.bind(*(leaves[place] for place in places), number=number)
    for place, value in zip(places, passed, strict=True):
        leaves[place] = value
    return jax.tree.unflatten(structure, leaves)


# --- From the program to the graph

_CALLS = {
    "jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "custom_jvp_call",
    "custom_vjp_call",
}  # fmt: skip
"""Operations that only call another program."""


class _Reader:
    """Reads a program equation by equation, and makes nodes."""

    def __init__(self, recorder: _Recorder) -> None:
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self._recorder = recorder
        self._open: list[int] = []
        """Places in `calls` of the modules that the equations now stand in."""

    def add(self, node: Node) -> int:
        """Adds a node, and returns its number."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def read(self, program: Any, constants: Any, given: list[Value]) -> list[Value]:
        """The results of a program whose arguments have the given values."""
        known: dict[Any, Value] = dict(zip(program.invars, given, strict=True))
        known |= dict(zip(program.constvars, map(_constant, constants), strict=True))

        def value_of(atom: Any) -> Value:
            return _constant(atom.val) if hasattr(atom, "val") else known[atom]

        for equation in program.eqns:
            results = self._results(equation, [value_of(atom) for atom in equation.invars])
            known |= dict(zip(equation.outvars, results, strict=True))
        return [value_of(atom) for atom in program.outvars]

    def _results(self, equation: Any, operands: list[Value]) -> list[Value]:
        name = equation.primitive.name
        read = tuple(value for value in operands if isinstance(value, int))
        if name == _layer.name:
            layer = self._recorder.layers[equation.params["number"]]
            shape = tuple(equation.outvars[0].aval.shape)
            given = tuple(n for n in read if self.nodes[n].kind != "parameter")
            return [self.add(dataclasses.replace(layer, inputs=given, shape=shape))]
        if name == _enter.name:
            path, kind = self._recorder.modules[equation.params["number"]]
            self._open.append(len(self.calls))
            self.calls.append(Call(path, kind, read, (), len(self.nodes)))
            return operands
        if name == _leave.name:
            place = self._open.pop()
            self.calls[place] = dataclasses.replace(self.calls[place], outputs=read)
            return operands
        programs = programs_in(equation.params)
        if name in _CALLS and len(programs) == 1 and not _is_activation(equation, read):
            closed = next(p for p in equation.params.values() if _program_of(p) is programs[0])
            return self.read(programs[0], getattr(closed, "consts", ()), operands)
        made = self._operation(equation, operands)
        return [made] * len(equation.outvars)

    def _operation(self, equation: Any, operands: list[Value]) -> Value:
        path = self.calls[self._open[-1]].path if self._open else ()
        if _is_activation(equation, tuple(v for v in operands if isinstance(v, int))):
            shape = tuple(equation.outvars[0].aval.shape)
            read = tuple(value for value in operands if isinstance(value, int))
            return self.add(Node(equation.params["name"], read, shape, path))
        made = operation(equation, operands, self.nodes, path)
        return self.add(made) if isinstance(made, Node) else made


def _program_of(value: Any) -> Any:
    return getattr(value, "jaxpr", value)


def _is_activation(equation: Any, read: tuple[int, ...]) -> bool:
    """Whether an equation calls a function of `jax.nn` that maps an array to one of its shape."""
    name = equation.params.get("name")
    if len(read) != 1 or len(equation.outvars) != 1 or not isinstance(name, str):
        return False
    shape = equation.outvars[0].aval.shape
    given = max((v.aval for v in equation.invars), key=lambda aval: math.prod(aval.shape))
    return hasattr(jax.nn, name) and given.shape == shape


def _constant(value: Any) -> Constant:
    try:
        array = np.asarray(value)
    except Exception:  # a random key, or another array that NumPy does not know
        return Constant(None)
    if array.size == 1 and array.dtype.kind in "fiub":
        return Constant(float(array.reshape(())))
    return Constant(None)
