"""The words and the shapes of nodes in drawings."""

from collections.abc import Iterable
from typing import NamedTuple

from resflax.drawing.networks.sketch import Style
from resflax.models.graph import Node

TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"

_SIGNS = {"add": "+", "subtract": MINUS, "multiply": TIMES, "divide": "÷"}

_NAMES = {
    "relu": "ReLU",
    "silu": "SiLU",
    "gelu": "GELU",
    "elu": "ELU",
    "dot general": "matrix product",
    "conv general dilated": "convolution",
    "select n": "select",
    "squeeze-excitation": "squeeze-excite",
}
"""Kinds of nodes whose words are not the kind itself."""

_NORMS = {"BatchNorm": "BN", "LayerNorm": "LN", "GroupNorm": "GN"}

_LAYERS = ("conv", "transposed conv", "dense", "squeeze-excitation", "dot general")
"""Kinds of nodes that have weights, beside the norms."""


class Label(NamedTuple):
    """How a node is drawn."""

    text: str
    style: Style | None
    """None: a text without a box."""


def size_text(shape: Iterable[int]) -> str:
    """The shape of an array for one image: `32x32x16`."""
    first, *others = shape or (1,)
    sizes = others if first == 1 else (first, *others)
    return TIMES.join(map(str, sizes)) or "1"


def label(node: Node) -> Label:
    """The words and the shape of a node."""
    details, kind = node.details, node.kind
    if kind in ("input", "output"):
        return Label(str(details.get("name", size_text(node.shape))), None)
    if kind == "parameter":
        return Label(str(details["name"]), None)
    if kind == "module":
        return Label(str(details["class"]), "module")
    if kind == "row":
        return Label(str(details["name"]), "layer" if details["like"] in _LAYERS else "step")
    if kind in _SIGNS:
        if len(node.inputs) == 2:
            return Label(_SIGNS[kind], "operator")
        sign, operand = _SIGNS[kind], _operand(node)
        comes_first = kind in ("subtract", "divide") and _operand_comes_first(node)
        return Label(f"{operand} {sign}" if comes_first else f"{sign} {operand}", "step")
    style: Style = "layer" if kind in _LAYERS else "step"
    return Label(f"{_before(node)}{_name(node)}{_after(node)}", style)


def _name(node: Node) -> str:
    if node.kind == "norm":
        name = str(node.details["name"])
        return _NORMS.get(name, name)
    has_operand = node.kind in ("maximum", "minimum", "power") and len(node.inputs) == 1
    if has_operand and "parameters" not in node.details:
        return f"{node.kind} {node.details.get('y', '') or _operand(node)}"
    if node.kind == "pad maps":
        before, after = node.details["before"], node.details["after"]
        return f"{before} + {after} zero maps" if before else f"{after} zero maps"
    return _NAMES.get(node.kind, node.kind)


def _operand(node: Node) -> str:
    """The parameter or the constant that an operation has as its other operand."""
    if "parameters" in node.details:
        return str(node.details["parameters"][0][1][-1])
    constant = node.details["constant"]
    return "constant" if constant is None else f"{constant:.4g}"


def _operand_comes_first(node: Node) -> bool:
    if "parameters" in node.details:
        return bool(node.details["parameters"][0][0] == 0)
    return bool(node.details["comes_first"])


def _before(node: Node) -> str:
    """The size of a window: `3x3 `."""
    return f"{TIMES.join(map(str, node.details['size']))} " if "size" in node.details else ""


def _after(node: Node) -> str:
    """The width, the stride and other numbers."""
    details, parts = node.details, []
    if "features" in details:
        parts.append(f", {details['features']}")
    if "squeezed" in details:
        parts.append(f", {details['squeezed']}")
    if details.get("groups", 1) > 1:
        parts.append(f", {details['groups']} groups")
    if "rate" in details:
        parts.append(f" {details['rate']:.4g}")
    stride = details.get("stride", (1, 1))
    if any(step != 1 for step in stride):
        same = len(set(stride)) == 1
        text = f"/{stride[0] if same else TIMES.join(map(str, stride))}"
        parts.append(f" {text}" if node.kind == "subsample" else f", {text}")
    if "length" in details:
        parts.append(f" {details['length']} times")
    if len(details.get("parameters", ())) == 1:
        parts.append(f", {details['parameters'][0][1][-1]}")
    return "".join(parts)
