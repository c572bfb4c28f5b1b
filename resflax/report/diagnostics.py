"""The diagnostics of one run as pictures of the report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resflax.declarations.models import DenseNet
from resflax.diagnostics.dropped_units import errors_without_units
from resflax.diagnostics.first_layer import feature_maps, filters
from resflax.diagnostics.gates import Gate, gate_values
from resflax.diagnostics.gradients import gradient_norms, norms_over_training
from resflax.diagnostics.mistakes import confusion, probabilities, surest_mistakes
from resflax.diagnostics.network import Network, load_networks, untrained
from resflax.diagnostics.propagation import signal_propagation
from resflax.diagnostics.responses import layer_responses
from resflax.diagnostics.reuse import feature_reuse
from resflax.report.figures import COLORS, style, svg
from resflax.report.page import Picture, Section
from resflax.training.metrics import read
from resflax.training.run_folder import RunFolder

EXAMPLES = 500


def diagnose(path: Path, title: str) -> Section:
    """All that applies to the run's network. Raises `UsageError` if it has no checkpoint."""
    folder = RunFolder(path)
    networks, lines = load_networks(folder, EXAMPLES), read(folder.metrics)
    with style():
        return Section(f"Diagnostics: {title}", tuple(_pictures(networks, lines)))


def _pictures(networks: list[Network], lines: list[dict[str, Any]]) -> Iterator[Picture]:
    trained, first = networks[-1], untrained(networks[-1])
    responses = layer_responses(trained)
    yield _responses(list(responses.values()))
    yield _gradients([first, *networks], list(responses))
    steps, norms = norms_over_training(lines, list(responses))
    if len(steps) > 1:
        yield _gradients_over_training(steps, norms)
    yield _signal(first)
    yield _dropped(trained)
    if isinstance(trained.experiment.model, DenseNet):
        yield _reuse(trained)
    gates = gate_values(trained)
    if gates:
        yield _gates(gates)
    yield _filters(trained)
    yield _maps(trained)
    yield from _mistakes(trained)


def _by_depth() -> tuple[Figure, Axes]:
    """Axes whose first one counts layers or units."""
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axis


def _responses(found: list[float]) -> Picture:
    figure, axis = _by_depth()
    axis.plot(range(1, len(found) + 1), found, color=COLORS[0], label="in order")
    ordered = sorted(found, reverse=True)
    axis.plot(range(1, len(found) + 1), ordered, color=COLORS[1], label="sorted")
    axis.set(xlabel="3x3 layer", ylabel="standard deviation", ylim=(0, None))
    axis.legend()
    caption = (
        "Standard deviation of each 3x3 layer's response, behind BN where BN follows it and before "
        "ReLU or addition (He et al. 2015, Figure 7)."
    )
    return Picture("Layer responses", svg(figure, "layer responses"), caption)


def _gradients(networks: list[Network], layers: list[str]) -> Picture:
    figure, axis = _by_depth()
    for i, network in enumerate(networks):
        norms = gradient_norms(network)
        values = [norms[name] for name in layers]
        ink = COLORS[i % len(COLORS)]
        axis.plot(range(1, len(layers) + 1), values, color=ink, label=f"step {network.step:,}")
    axis.set(xlabel="3x3 layer", ylabel="gradient norm", yscale="log")
    axis.legend()
    caption = (
        "Norm of the loss's gradient by each 3x3 layer's weights, in training mode, before the "
        "first step and at the checkpoints that are kept."
    )
    return Picture("Gradients", svg(figure, "gradient norms by layer"), caption)


def _gradients_over_training(steps: np.ndarray, norms: np.ndarray) -> Picture:
    figure, axis = _by_depth()
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    edges = np.concatenate([[0], steps])
    depths = np.arange(norms.shape[1] + 1) + 0.5
    seen = np.ma.masked_less_equal(np.ma.masked_invalid(norms.T), 0)
    drawn = axis.pcolormesh(edges, depths, seen, norm=LogNorm(), cmap="viridis", rasterized=True)
    figure.colorbar(drawn, label="gradient norm")
    axis.set(xlabel="step", ylabel="3x3 layer")
    axis.grid(visible=False)
    caption = (
        "The same over training: mean norm of the steps between two lines of the log, each by its "
        "own batch."
    )
    return Picture("Gradients over training", svg(figure, "gradient norms over training"), caption)


def _signal(network: Network) -> Picture:
    signals = signal_propagation(network)
    figure, axis = _by_depth()
    places = range(1, len(signals) + 1)
    axis.plot(places, [s.variance for s in signals], color=COLORS[0], label="variance")
    axis.plot(places, [s.squared_mean for s in signals], color=COLORS[2], label="squared mean")
    branches = [s.branch_variance for s in signals if s.branch_variance is not None]
    if len(branches) == len(signals):
        axis.plot(places, branches, color=COLORS[1], linestyle="--", label="branch's variance")
    axis.set(xlabel="unit", ylabel="mean over maps", ylim=(0, None))
    axis.legend()
    caption = (
        "Size of the signal behind every unit before the first step, over pictures and places "
        "(signal propagation plot, Brock et al. 2021)."
    )
    return Picture("Signal at initialisation", svg(figure, "signal propagation"), caption)


def _dropped(network: Network) -> Picture:
    whole, without = errors_without_units(network)
    figure, axis = _by_depth()
    places = range(1, len(without) + 1)
    axis.bar(places, [100 * error for error in without.values()], color=COLORS[0])
    axis.axhline(100 * whole, color=COLORS[1], label="all units")
    axis.set(xlabel="unit that is left out", ylabel="test error (%)")
    axis.legend()
    caption = f"Error on {len(network.labels)} test pictures with one unit's branch set to zero."
    return Picture("Without single units", svg(figure, "error without single units"), caption)


def _reuse(network: Network) -> Picture:
    blocks = feature_reuse(network)
    figure = Figure(figsize=(10.4, 3.6), layout="constrained")
    axes = figure.subplots(1, len(blocks), squeeze=False)[0]
    for i, (axis, block) in enumerate(zip(axes, blocks, strict=True), start=1):
        image = axis.imshow(block / np.nanmax(block), cmap="viridis", vmin=0, vmax=1)
        axis.set(title=f"block {i}", xlabel="layer that reads")
        axis.set_xticks(range(len(block)), [*map(str, range(1, len(block))), "end"])
        axis.set_yticks(range(len(block)), ["in", *map(str, range(1, len(block)))])
        axis.grid(visible=False)
    axes[0].set_ylabel("layer that is read")
    figure.colorbar(image, ax=axes, shrink=0.8)
    caption = (
        "Mean absolute weight by which each layer reads each earlier one, each block by its own "
        "greatest; the first row is the block's input, the last column what follows the block "
        "(Huang et al. 2017, Figure 5)."
    )
    return Picture("Feature reuse", svg(figure, "feature reuse"), caption)


def _gates(gates: list[Gate]) -> Picture:
    figure, axis = _by_depth()
    places = range(1, len(gates) + 1)
    axis.fill_between(
        places, [g.low for g in gates], [g.high for g in gates], color=COLORS[0], alpha=0.25
    )
    axis.plot(places, [g.mean for g in gates], color=COLORS[0])
    axis.set(xlabel="unit", ylabel="gate g(x)", ylim=(0, 1))
    caption = "Mean, and 10th to 90th percentile, over test pictures, places and maps."
    return Picture("Gates", svg(figure, "gate values by depth"), caption)


def _filters(network: Network) -> Picture:
    shown = filters(network)[:32]
    figure = _pictures_grid(list(shown), [""] * len(shown), columns=8)
    caption = "Filters of the first convolution, each from its least to its greatest weight."
    return Picture("First filters", svg(figure, "filters of the first layer"), caption)


def _maps(network: Network) -> Picture:
    maps = feature_maps(network, 0)[:31]
    stretched = [(m - m.min()) / max(m.max() - m.min(), 1e-12) for m in maps]
    picture = network.pictures.images[0] / 255 * _brightness(network)
    figure = _pictures_grid([picture, *stretched], ["picture", *[""] * len(maps)], columns=8)
    caption = "What the first convolution makes of the first test picture."
    return Picture("First feature maps", svg(figure, "feature maps of the first layer"), caption)


def _mistakes(network: Network) -> Iterator[Picture]:
    guessed = probabilities(network)
    counts = confusion(network.labels, guessed)
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axis = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    if len(counts) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                ink = "#111111" if shares[row, column] > 0.5 else "#f5f5f5"
                axis.text(column, row, str(count), ha="center", va="center", fontsize=8, color=ink)
        axis.set_xticks(range(len(counts)))
        axis.set_yticks(range(len(counts)))
    axis.set(xlabel="guess", ylabel="class")
    axis.grid(visible=False)
    caption = f"{len(network.labels)} test pictures by class and guess."
    yield Picture("Confusion", svg(figure, "confusion matrix"), caption)
    mistakes = surest_mistakes(network.labels, guessed, 16)
    if mistakes:
        bright = _brightness(network)
        pictures = [network.pictures.images[m.picture] / 255 * bright for m in mistakes]
        titles = [f"{m.label} as {m.guess}\n{m.confidence:.0%}" for m in mistakes]
        grid = _pictures_grid(pictures, titles, columns=8)
        caption = "Class, guess and its probability, of the wrong guesses with the greatest."
        yield Picture("Surest mistakes", svg(grid, "surest mistakes"), caption)


def _brightness(network: Network) -> float:
    """What brings the brightest pixel to 1: the digits' is 240 at most."""
    return 255 / max(int(network.pictures.images.max()), 1)


def _pictures_grid(pictures: list[np.ndarray], titles: list[str], columns: int) -> Figure:
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    height = 0.95 if any(titles) else 0.68
    figure = Figure(figsize=(0.68 * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture, title in zip(axes.flat, pictures, titles, strict=False):
        gray = picture.ndim == 2 or picture.shape[-1] == 1
        shown = picture.reshape(picture.shape[:2]) if gray else picture[..., :3]
        axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=7)
    return figure
