"""Draws the diagnostics of one run as pictures of the report."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resflax.declarations.models import Custom, DenseNet
from resflax.diagnostics.dropped_units import errors_without_units
from resflax.diagnostics.first_layer import feature_maps, filters
from resflax.diagnostics.gates import Gate, gate_values
from resflax.diagnostics.gradients import gradient_norms, norms_over_training
from resflax.diagnostics.inspected import InspectedNetwork, kernels, load_networks, untrained
from resflax.diagnostics.mistakes import confusion, probabilities, surest_mistakes
from resflax.diagnostics.propagation import signal_propagation
from resflax.diagnostics.responses import layer_responses
from resflax.diagnostics.reuse import feature_reuse
from resflax.drawing.picture import Picture
from resflax.drawing.style import COLORS, plot_style
from resflax.report.page import Section
from resflax.runs.metrics import read_lines
from resflax.runs.run_folder import RunFolder

EXAMPLES = 500
"""Number of pictures of the test split that the network is applied to."""


def draw_diagnostics(
    path: Path, title: str, say: Callable[[str], None], *, trust_code: bool = False
) -> Section:
    """Draws all diagnostics that apply to a run's network.

    Args:
      path: the run folder.
      title: the name of the run in the section's heading.
      say: is called with a line for every unfinished or damaged checkpoint that is skipped.
      trust_code: whether kept code of a user's own classes may be run: see `RunFolder`.

    Raises:
      UsageError: if the folder is not a run folder, if it has no checkpoint, or if its data cannot
        be read.
      TrainingError: if all checkpoints are damaged.
    """
    folder = RunFolder(path, trust_code=trust_code)
    networks, lines = load_networks(folder, EXAMPLES, say), read_lines(folder.metrics)
    with plot_style():
        return Section(f"Diagnostics: {title}", tuple(_draw_all(networks, lines)))


def _draw_all(networks: list[InspectedNetwork], lines: list[dict[str, Any]]) -> Iterator[Picture]:
    trained, initial = networks[-1], untrained(networks[-1])
    if isinstance(trained.experiment.model, Custom):  # nothing is known of its layers
        layers = list(kernels(trained.variables["params"]))
        yield from _draw_all_gradients([initial, *networks], lines, layers, "layer")
        yield from _draw_mistakes(trained)
        return
    responses = layer_responses(trained)
    if responses:
        yield _draw_responses(list(responses.values()))
        yield from _draw_all_gradients([initial, *networks], lines, list(responses), "3x3 layer")
    yield _draw_signal(initial)
    yield _draw_errors_without_units(trained)
    if isinstance(trained.experiment.model, DenseNet):
        yield _draw_reuse(trained)
    gates = gate_values(trained)
    if gates:
        yield _draw_gates(gates)
    yield _draw_filters(trained)
    yield _draw_maps(trained)
    yield from _draw_mistakes(trained)


def _new_depth_plot() -> tuple[Figure, Axes]:
    """A figure and its axes; the x axis counts layers or units."""
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axis


def _draw_responses(responses: list[float]) -> Picture:
    figure, axis = _new_depth_plot()
    places = range(1, len(responses) + 1)
    axis.plot(places, responses, color=COLORS[0], label="in order")
    axis.plot(places, sorted(responses, reverse=True), color=COLORS[1], label="sorted")
    axis.set(xlabel="3x3 layer", ylabel="standard deviation", ylim=(0, None))
    axis.legend()
    caption = (
        "Standard deviation of each 3x3 layer's response, after BN if BN follows the layer, and "
        "before ReLU or addition (He et al. 2015, Figure 7)."
    )
    return Picture("Layer responses", figure, "layer responses", caption)


def _draw_all_gradients(
    networks: list[InspectedNetwork], lines: list[dict[str, Any]], layers: list[str], kind: str
) -> Iterator[Picture]:
    yield _draw_gradients(networks, layers, kind)
    steps, norms = norms_over_training(lines, layers)
    if len(steps) > 1:
        yield _draw_gradients_over_training(steps, norms, kind)


def _draw_gradients(networks: list[InspectedNetwork], layers: list[str], kind: str) -> Picture:
    figure, axis = _new_depth_plot()
    for i, network in enumerate(networks):
        norms = gradient_norms(network)
        values = [norms[name] for name in layers]
        color = COLORS[i % len(COLORS)]
        axis.plot(range(1, len(layers) + 1), values, color=color, label=f"step {network.step:,}")
    axis.set(xlabel=kind, ylabel="gradient norm", yscale="log")
    axis.legend()
    caption = (
        f"Norm of the gradient of the loss with respect to each {kind}'s weights, in training "
        "mode, before the first step and at the checkpoints that are kept."
    )
    return Picture("Gradients", figure, "gradient norms by layer", caption)


def _draw_gradients_over_training(steps: np.ndarray, norms: np.ndarray, kind: str) -> Picture:
    figure, axis = _new_depth_plot()
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    edges = np.concatenate([[0], steps])
    depths = np.arange(norms.shape[1] + 1) + 0.5
    positive = np.ma.masked_less_equal(np.ma.masked_invalid(norms.T), 0)
    mesh = axis.pcolormesh(edges, depths, positive, norm=LogNorm(), cmap="viridis", rasterized=True)
    figure.colorbar(mesh, label="gradient norm")
    axis.set(xlabel="step", ylabel=kind)
    axis.grid(visible=False)
    caption = (
        "The same norm during training: the mean over the steps between two lines of the log, "
        "where each step has its own batch."
    )
    return Picture("Gradients over training", figure, "gradient norms over training", caption)


def _draw_signal(network: InspectedNetwork) -> Picture:
    signals = signal_propagation(network)
    figure, axis = _new_depth_plot()
    places = range(1, len(signals) + 1)
    axis.plot(places, [s.variance for s in signals], color=COLORS[0], label="variance")
    axis.plot(places, [s.squared_mean for s in signals], color=COLORS[2], label="squared mean")
    branches = [s.branch_variance for s in signals if s.branch_variance is not None]
    if len(branches) == len(signals):
        axis.plot(places, branches, color=COLORS[1], linestyle="--", label="branch's variance")
    axis.set(xlabel="unit", ylabel="mean over maps", ylim=(0, None))
    axis.legend()
    caption = (
        "Size of the signal after every unit before the first step, over pictures and positions "
        "(signal propagation plot, Brock et al. 2021)."
    )
    return Picture("Signal at initialisation", figure, "signal propagation", caption)


def _draw_errors_without_units(network: InspectedNetwork) -> Picture:
    full_error, errors_without = errors_without_units(network)
    figure, axis = _new_depth_plot()
    places = range(1, len(errors_without) + 1)
    axis.bar(places, [100 * error for error in errors_without.values()], color=COLORS[0])
    axis.axhline(100 * full_error, color=COLORS[1], label="all units")
    axis.set(xlabel="unit that is left out", ylabel="test error (%)")
    axis.legend()
    caption = f"Error on {len(network.labels)} test pictures with one unit's branch set to zero."
    return Picture("Without single units", figure, "error without single units", caption)


def _draw_reuse(network: InspectedNetwork) -> Picture:
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
        "Mean absolute weight with which each layer reads each earlier one, relative to the "
        "greatest of its block. The first row is the block's input; the last column is the layer "
        "that follows the block (Huang et al. 2017, Figure 5)."
    )
    return Picture("Feature reuse", figure, "feature reuse", caption)


def _draw_gates(gates: list[Gate]) -> Picture:
    figure, axis = _new_depth_plot()
    places = range(1, len(gates) + 1)
    axis.fill_between(
        places, [g.low for g in gates], [g.high for g in gates], color=COLORS[0], alpha=0.25
    )
    axis.plot(places, [g.mean for g in gates], color=COLORS[0])
    axis.set(xlabel="unit", ylabel="gate g(x)", ylim=(0, 1))
    caption = "Mean, and 10th to 90th percentile, over test pictures, positions and maps."
    return Picture("Gates", figure, "gate values by depth", caption)


def _draw_filters(network: InspectedNetwork) -> Picture:
    first_filters = filters(network)[:32]
    figure = _draw_grid(list(first_filters), [""] * len(first_filters), columns=8)
    caption = (
        "Filters of the first convolution. The brightness of each ranges from its least to its "
        "greatest weight."
    )
    return Picture("First filters", figure, "filters of the first layer", caption)


def _draw_maps(network: InspectedNetwork) -> Picture:
    maps = feature_maps(network, 0)[:31]
    stretched = [(m - m.min()) / max(m.max() - m.min(), 1e-12) for m in maps]
    picture = network.pictures.images[0] / 255 * _brightness(network)
    figure = _draw_grid([picture, *stretched], ["picture", *[""] * len(maps)], columns=8)
    caption = "The first test picture, and the output of the first convolution for it."
    return Picture("First feature maps", figure, "feature maps of the first layer", caption)


def _draw_mistakes(network: InspectedNetwork) -> Iterator[Picture]:
    class_probabilities = probabilities(network)
    counts = confusion(network.labels, class_probabilities)
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axis = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    if len(counts) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "#111111" if shares[row, column] > 0.5 else "#f5f5f5"
                axis.text(column, row, count, ha="center", va="center", fontsize=8, color=color)
        axis.set_xticks(range(len(counts)))
        axis.set_yticks(range(len(counts)))
    axis.set(xlabel="guess", ylabel="class")
    axis.grid(visible=False)
    caption = f"{len(network.labels)} test pictures by class and guess."
    yield Picture("Confusion", figure, "confusion matrix", caption)
    mistakes = surest_mistakes(network.labels, class_probabilities, 16)
    if mistakes:
        factor = _brightness(network)
        pictures = [network.pictures.images[m.picture] / 255 * factor for m in mistakes]
        titles = [f"{m.label} as {m.guess}\n{m.confidence:.0%}" for m in mistakes]
        grid = _draw_grid(pictures, titles, columns=8)
        caption = (
            "The wrong guesses with the greatest probability: the class, the guess and its "
            "probability."
        )
        yield Picture("Surest mistakes", grid, "surest mistakes", caption)


def _brightness(network: InspectedNetwork) -> float:
    """The factor that makes the brightest pixel 255, because some sets have only darker pixels."""
    return 255 / max(int(network.pictures.images.max()), 1)


def _draw_grid(pictures: list[np.ndarray], titles: list[str], columns: int) -> Figure:
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    height = 0.95 if any(titles) else 0.68
    figure = Figure(figsize=(0.68 * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture, title in zip(axes.flat, pictures, titles, strict=False):
        gray = picture.ndim == 2 or picture.shape[-1] == 1
        pixels = picture.reshape(picture.shape[:2]) if gray else picture[..., :3]
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=7)
    return figure
