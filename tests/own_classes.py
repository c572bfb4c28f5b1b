"""A file of own shortcuts, branches and networks, as a user writes it; tests declare them."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from resflax.models import Branch, Shortcut


class SameAsZeroPad(Shortcut):
    def __call__(self, x, branch, *, train):
        return self.identity(x, branch) + branch


class LearnedScale(Shortcut):
    """a x + F(x), a learned."""

    initial: float = 1.0

    @nn.compact
    def __call__(self, x, branch, *, train):
        a = self.param("a", nn.initializers.constant(self.initial), ())
        return a * self.identity(x, branch) + branch


class Projected(Shortcut):
    """A product that is not one of our layers, and dropout."""

    rate: float = 0.1

    @nn.compact
    def __call__(self, x, branch, *, train):
        x = self.layers.dropout(self.rate)(self.identity(x, branch), train=train)
        features = branch.shape[-1]
        w = self.param("w", nn.initializers.lecun_normal(), (features, features))
        return (jnp.einsum("bhwi,io->bhwo", x, w) + branch).astype(branch.dtype)


class BasicBranch(Branch):
    """The branch of a basic unit in the original order."""

    kernel: int = 3

    @nn.compact
    def __call__(self, x, *, train):
        x = self.layers.conv(self.features, self.kernel, self.stride, name="conv1")(x)
        x = nn.relu(self.layers.norm(name="norm1")(x, train=train))
        x = self.layers.conv(self.features, self.kernel, name="conv2")(x)
        return self.layers.norm(name="norm2")(x, train=train)


class Tiny(nn.Module):
    num_classes: int
    width: int = 8

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.relu(nn.Conv(self.width, (3, 3), use_bias=False)(images))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class WithLayers(nn.Module):
    """A network of resflax's layers, without batch norm of linen's."""

    num_classes: int
    layers: Any
    widths: tuple = (4, 8)

    @nn.compact
    def __call__(self, images, *, train):
        x = images
        for width in self.widths:
            x = nn.relu(self.layers.norm()(self.layers.conv(width, 3, 2)(x), train=train))
        return nn.Dense(self.num_classes)(x.astype(jnp.float32).mean((1, 2)))


class NoNorm(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        hidden = nn.relu(nn.Dense(12)(images.reshape(images.shape[0], -1)))
        return hidden @ self.param("out", nn.initializers.lecun_normal(), (12, self.num_classes))


class Scanned(nn.Module):
    """A layer that is repeated with parameters of its own each time, and three parallel ones."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Dense(8)(images.mean((1, 2)))
        repeated = nn.scan(
            lambda layer, x, _: (nn.relu(layer(x)), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=5,
        )
        x, _ = repeated(nn.Dense(8, name="repeated"), x, None)
        parallel = nn.vmap(
            nn.Dense,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=3,
        )
        return parallel(self.num_classes, name="parallel")(x).sum(0)


class NormOnlyInTraining(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Dense(4)(images.mean((1, 2)))
        if train:
            x = nn.BatchNorm(use_running_average=False, use_scale=False, use_bias=False)(x)
        return nn.Dense(self.num_classes)(x)


class EmptyParameter(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        self.param("none", nn.initializers.ones, (0,))
        return nn.Dense(self.num_classes)(images.mean((1, 2)))


class Exiting(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        raise SystemExit("out")


class WrongShape(Shortcut):
    def __call__(self, x, branch, *, train):
        return branch[:, 1:]


class WrongDtype(Shortcut):
    def __call__(self, x, branch, *, train):
        return (x.sum() + branch).astype(jnp.float16)


class NotAnArray(Shortcut):
    def __call__(self, x, branch, *, train):
        return None


class Raising(Shortcut):
    def __call__(self, x, branch, *, train):
        if train:
            raise KeyError("only in training")
        return branch


class NoTrain(Shortcut):
    def __call__(self, x, branch):
        return branch


class NarrowBranch(Branch):
    @nn.compact
    def __call__(self, x, *, train):
        return self.layers.conv(self.features - 1, 3, self.stride)(x)


class ManyLogits(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(self.num_classes + 1)(images.mean((1, 2)))


class HalfLogits(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(self.num_classes)(images.mean((1, 2))).astype(jnp.bfloat16)


class NoClasses(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(10)(images.mean((1, 2)))


class ReservedName(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Dense(4, name="stage1_unit2")(images.mean((1, 2)))
        return nn.Dense(self.num_classes)(x)


class ConstantNet(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        return jnp.zeros((images.shape[0], self.num_classes))


class NotAModule:
    def __call__(self, x, branch, *, train):
        return branch
