"""Finds a network's tensors in what a file of weights holds.

Trainers keep weights in entries of a checkpoint (`state_dict`, `model`, ...), often beside averaged
ones, and under prefixes (`module.`, `_orig_mod.`, `backbone.`, `module.encoder_q.`, ...). No list
of these is needed: a network is wherever all names of the declared network are found.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from resflax.declarations.checks import short
from resflax.errors import UsageError
from resflax.weights.convert import Names
from resflax.weights.layer_names import newest_name
from resflax.weights.pickles import Unmade, class_name
from resflax.weights.torch_files import NoValues


class Weights(NamedTuple):
    """The tensors of one network."""

    arrays: dict[str, np.ndarray]
    """By their names in the library, without a prefix."""
    place: str
    """Keys and prefix that lead to them, such as "state_dict.module"; "" if there are none."""
    lines: tuple[str, ...]
    """Lines that tell people what was chosen and what was left out."""


class _Network(NamedTuple):
    """A place where a network's tensors may be."""

    keys: tuple[str, ...]
    """The keys that lead from the root to the state dict."""
    prefix: str
    """What the tensors' names begin with; it is empty or ends in a full stop."""
    tensors: Mapping[str, Any]
    """The whole state dict."""
    complete: bool
    """Whether all of the network's names are there, but perhaps those of the classifier."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys and the parts of the prefix."""
        return tuple(".".join((*self.keys, self.prefix)).strip(".").split("."))

    @property
    def place(self) -> str:
        return ".".join(self.parts)

    @property
    def averaged(self) -> bool:
        """Whether the names say that these are averaged weights."""
        return any(re.search(r"(^|_)(ema|swa|avg|averaged?)(_|$)", p.lower()) for p in self.parts)

    def own(self, others: Iterable["_Network"]) -> dict[str, Any]:
        """What has the prefix, but not a longer one of another network; names without prefix."""
        longer = tuple(
            other.prefix
            for other in others
            if other.keys == self.keys and len(other.prefix) > len(self.prefix)
        )
        return {
            name.removeprefix(self.prefix): value
            for name, value in self.tensors.items()
            if name.startswith(self.prefix) and not (longer and name.startswith(longer))
        }


def find_weights(root: Any, names: Names, entry: str | None = None) -> Weights:
    """Finds the tensors of the network that has these names.

    If there are plain and averaged weights, the plain ones are taken.

    Args:
      root: the content of a file, as `tensor_files.read_content` returns it.
      names: the network's names.
      entry: a key, a part of a prefix, or several of them with full stops between, which lead to
        the network that is wanted.

    Raises:
      UsageError: if no network is found, if several are and `entry` does not decide, or if a tensor
        has no plain values. The message is one line.
    """
    candidates = [network for place in _state_dicts(root) for network in _networks(*place, names)]
    complete = _distinct(network for network in candidates if network.complete)
    choices = complete if entry is None else _named(entry, complete)
    if choices:
        network = _decided(choices)
    else:
        parts = candidates if entry is None else _named(entry, candidates)
        nearest = _nearest(parts, names)
        if nearest is None:
            raise UsageError(
                _nothing_found(root, names) if entry is None else _nothing_at(entry, complete)
            )
        network = nearest
    others = [other for other in candidates if other.complete and other is not network]
    own = network.own(others)
    needed = sorted(name for name in own if newest_name(name) in names.tensors)
    for name in needed:
        if isinstance(own[name], NoValues):
            raise UsageError(f"the tensor {name} is {own[name].kind}; it must have plain numbers")
        if not isinstance(own[name], np.ndarray):
            raise UsageError(f"{name} is not a tensor but a {class_name(own[name])}")
    arrays = {name: array for name, array in own.items() if isinstance(array, np.ndarray)}
    lines = _lines(root, network, choices, others, [arrays[name].dtype for name in needed])
    return Weights(arrays, network.place, tuple(lines))


def _items(value: Any) -> Mapping[str, Any]:
    """Returns the content of a container by its keys, which are numbers for a list."""
    if isinstance(value, Unmade):
        return value.items
    if isinstance(value, list | tuple) and not isinstance(value, NoValues):
        return {str(i): item for i, item in enumerate(value)}
    return value if isinstance(value, dict) else {}


def _state_dicts(root: Any) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """All containers that hold tensors, with the keys that lead to them, the outer ones first."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), root)]
    seen = set()
    for keys, value in waiting:
        if id(value) in seen:
            continue
        seen.add(id(value))
        items = _items(value)
        if any(isinstance(item, np.ndarray | NoValues) for item in items.values()):
            yield keys, items
        if len(keys) < 5:
            waiting += [((*keys, key), item) for key, item in items.items() if _items(item)]


def _networks(
    keys: tuple[str, ...], tensors: Mapping[str, Any], names: Names
) -> Iterator[_Network]:
    """The places in a state dict where the network's first layer is."""
    present = dict.fromkeys(map(newest_name, tensors))  # in the file's order
    first = f"{names.stem}.weight"
    for name in present:
        prefix = name.removesuffix(first)
        if name.endswith(first) and (not prefix or prefix.endswith(".")):
            complete = all(prefix + needed in present for needed in names.without_head)
            yield _Network(keys, prefix, tensors, complete)


def _distinct(networks: Iterable[_Network]) -> list[_Network]:
    """The networks without those that are the same tensors under another name."""
    distinct: dict[Any, _Network] = {}
    for network in networks:
        addresses = tuple(
            (name, value.__array_interface__["data"][0])
            for name, value in sorted(network.own(()).items())
            if isinstance(value, np.ndarray)
        )
        distinct.setdefault(addresses, network)
    return list(distinct.values())


def _named(entry: str, networks: list[_Network]) -> list[_Network]:
    """The networks whose place has the entry as a part."""
    exact = [network for network in networks if network.place == entry]
    return exact or [network for network in networks if f".{entry}." in f".{network.place}."]


def _nearest(candidates: list[_Network], names: Names) -> _Network | None:
    """The place with most of the network's names, so that what it lacks can be named.

    None if no place has a fair part of them.
    """
    found = [
        len(names.tensors & {newest_name(name) for name in candidate.own(())})
        for candidate in candidates
    ]
    most = max(found, default=0)
    return candidates[found.index(most)] if 4 * most >= len(names.tensors) else None


def _nothing_at(entry: str, complete: list[_Network]) -> str:
    places = [network.place for network in complete if network.place]
    there_are = f"those it holds are {_listed(places)}" if places else "leave the option out"
    return f"--entry {entry} leads to no network with these names; {there_are}"


def _nothing_found(root: Any, names: Names) -> str:
    state_dicts = list(_state_dicts(root))
    module = _module_in(root)
    if module is not None:
        return (
            f"it holds a whole module ({class_name(module)}), which only its own code can read; "
            "save its weights where that code is: torch.save(model.state_dict(), 'weights.pth')"
        )
    if not state_dicts:
        return f"it holds no tensors by name, but a {class_name(root)}; it must hold a state dict"
    _, tensors = max(state_dicts, key=lambda place: len(place[1]))
    needed = (f"{names.stem}.weight", *sorted(names.tensors - tensors.keys()))
    missing = needed[0] if needed[0] not in tensors else needed[1]
    return (
        f"it does not have this network's tensors: it has {_listed(map(short, tensors), 2)}, and "
        f"the network needs {missing}{_hint(tensors)}"
    )


def _hint(tensors: Mapping[str, Any]) -> str:
    """Where such tensors come from, if it is known."""
    names = " ".join(tensors)
    if re.search(r"kernel|gamma|moving_mean|/", names):
        return " (Keras, TensorFlow and Flax have such names; PyTorch's are read)"
    if re.search(r"embedder|resnet\.encoder|\.layer\.\d+\.convolution", names):
        return " (transformers has such names; torchvision's and timm's are read)"
    if any(isinstance(tensor, NoValues) for tensor in tensors.values()):
        return " (it is quantized or sparse; save the network as it was before that)"
    return ""


def _module_in(root: Any) -> Unmade | None:
    """A PyTorch module that is the root or one of its entries."""
    for value in (root, *_items(root).values()):
        state = value.state if isinstance(value, Unmade) else None
        if isinstance(state, dict) and {"_parameters", "_modules"} <= state.keys():
            return value
    return None


def _decided(networks: list[_Network]) -> _Network:
    """The only network, or the only plain one beside averaged ones."""
    plain = [network for network in networks if not network.averaged] or networks
    whole = [network for network in plain if network.place == ""]
    if len(plain) == 1 or whole:
        return (whole or plain)[0]
    raise UsageError(
        f"it holds {len(plain)} such networks; choose one with "
        + " or ".join(f"--entry {name}" for name in _telling_names(plain))
    )


def _telling_names(networks: list[_Network]) -> list[str]:
    """For each network an `entry` that leads to it alone: a part of its place if one does."""
    return [
        next((part for part in network.parts if len(_named(part, networks)) == 1), network.place)
        for network in networks
    ]


def _lines(
    root: Any,
    network: _Network,
    choices: list[_Network],
    others: list[_Network],
    dtypes: list[np.dtype],
) -> Iterator[str]:
    """What was chosen and what was left out."""
    if network.place:
        yield f"the weights are those of {network.place}"
    for choice, name in zip(choices, _telling_names(choices), strict=True):
        if choice is not network:
            kind = "averaged weights" if choice.averaged else "other weights"
            yield f"it also holds {kind}: take them with --entry {name}"
    outside = [name for name in network.tensors if not name.startswith(network.prefix)]
    outside = [
        name
        for name in outside
        if isinstance(network.tensors[name], np.ndarray | NoValues)
        and not any(o.keys == network.keys and name.startswith(o.prefix) for o in others)
    ]
    if outside:
        yield f"tensors beside them are left out: {_listed(map(short, outside))}"
    beside = list(_beside(root, network, others))
    if beside:
        yield f"beside the weights it holds {_listed(beside)}; only the weights are read"
    converted = sorted({dtype.name for dtype in dtypes} - {"float32"})
    if converted:
        yield f"values of {' and '.join(converted)} become float32"


def _beside(root: Any, network: _Network, others: list[_Network]) -> Iterator[str]:
    """The entries beside those that lead to a network, each with its class."""
    value = root
    for level in range(len(network.keys) + 1):
        taken = {other.keys[level] for other in (network, *others) if len(other.keys) > level}
        for key, item in _items(value).items():
            if key not in taken and not isinstance(item, np.ndarray | NoValues):
                yield f"{short(key)[1:-1]} ({class_name(item)})"
        if level < len(network.keys):
            value = _items(value)[network.keys[level]]


def _listed(texts: Iterable[str], most: int = 5) -> str:
    every = list(texts)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
