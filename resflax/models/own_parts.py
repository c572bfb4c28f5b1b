"""Networks of a user's own, and the errors of a user's own code."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.declarations.models import Custom, Model, ResNet
from resflax.declarations.own import Own, check_network, own_classes
from resflax.errors import UsageError
from resflax.models.layers import Layers
from resflax.parts.loading import place_of

_RESERVED = re.compile(r"stage\d+_units?\d*")
"""Names of modules that `models.stacking` takes for units of a residual network."""


def build_custom(config: Custom, num_classes: int, layers: Layers) -> nn.Module:
    """The network of a `Custom` declaration.

    Raises `UsageError` if its class is no network or cannot be constructed.
    """
    assert isinstance(config.network, Own), "Custom.__post_init__ makes it one"
    cls: Any = config.network.load()
    check_network(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    if "num_classes" not in fields:
        raise UsageError(
            f"{cls.__name__} of {config.network.file} has no field num_classes, which every "
            "network needs: num_classes: int"
        )
    given: dict[str, Any] = {"layers": layers} if "layers" in fields else {}
    with explaining(config):
        arguments = config.network.checked(config.arguments)
        made = cls(num_classes=num_classes, **given, **arguments)
    assert isinstance(made, nn.Module)
    return made


@contextlib.contextmanager
def explaining(config: Model) -> Iterator[None]:
    """Turns an exception that comes from a user's own code into a `UsageError` with its line."""
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        files = [
            str(own.source.root / file.path)
            for own in own_classes(config).values()
            for file in own.source.files
        ]
        place = place_of(error, files)
        if place is None:
            raise
        reason = str(error).split("\n\n")[0] or "no message"
        if "incompatible shapes" in reason and isinstance(config, ResNet):
            reason += "; self.identity(x, branch) is x in the shape of the branch"
        raise UsageError(f"{place}: {type(error).__name__}: {reason}") from error


def check_own(
    config: Model, module: nn.Module, num_classes: int, image_shape: tuple[int, int, int]
) -> None:
    """Traces a network with parts of a user's own, and checks what they return.

    Args:
      config: the declaration of the network.
      module: the network.
      num_classes: number of classes.
      image_shape: (H, W, C) of the pictures.

    Raises `UsageError` if a part fails, or returns another shape or number format than it must.
    """
    if not own_classes(config):
        return
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    keys = {name: jax.random.PRNGKey(0) for name in ("params", "dropout")}
    with explaining(config):
        logits, variables = jax.eval_shape(
            lambda images: module.init_with_output(keys, images, train=False), images
        )
    _check_collections(config, variables)
    _check_logits(config, logits, (2, num_classes))
    with explaining(config):
        logits, updated = jax.eval_shape(
            lambda variables, images: module.apply(
                variables,
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": keys["dropout"]},
            ),
            variables,
            images,
        )
    _check_logits(config, logits, (2, num_classes))
    before: Any = jax.tree.structure(variables.get("batch_stats", {}))
    if before != jax.tree.structure(updated.get("batch_stats", {})):
        raise UsageError(
            f"{_name(config)} has other batch statistics in training than in "
            "evaluation; call its batch norms in both"
        )


def _name(config: Model) -> str:
    """The name of the first of a network's own classes."""
    return next(own.name for own in own_classes(config).values())


def _check_collections(config: Model, variables: Any) -> None:
    if not isinstance(config, Custom):
        return
    for name in variables.keys() - {"params", "batch_stats"}:
        raise UsageError(
            f"{config.network} has variables of the kind {name}; a network may have params and "
            "batch_stats"
        )
    if not variables.get("params"):
        raise UsageError(f"{config.network} has no parameters, so there is nothing to train")
    for leaf in jax.tree.leaves(variables):
        if leaf.dtype != jnp.float32 or not leaf.size:
            raise UsageError(
                f"{config.network} has variables {leaf.dtype}{list(leaf.shape)}; they must be "
                "float32 and not empty"
            )
    for name in filter(_RESERVED.fullmatch, variables["params"]):
        raise UsageError(
            f"{config.network} has a module named {name}; that form of name is for units of "
            "residual networks, so give it another"
        )


def _check_logits(config: Model, logits: Any, shape: tuple[int, int]) -> None:
    given, dtype = getattr(logits, "shape", None), getattr(logits, "dtype", None)
    if (given, dtype) != (shape, jnp.float32):
        returned = type(logits).__name__ if given is None else f"{dtype}{list(given)}"
        raise UsageError(
            f"{_name(config)} returns {returned} for {shape[0]} pictures; it must "
            f"return the logits float32{list(shape)} (B, classes)"
        )


def other_batch_norms(module: nn.Module, image_shape: tuple[int, int, int]) -> list[str]:
    """The paths of the batch norms in a network that are linen's own and not ours."""
    paths: dict[str, None] = {}

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, nn.BatchNorm):
            paths[".".join(context.module.path)] = None
        return call(*args, **kwargs)

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    return list(paths)
