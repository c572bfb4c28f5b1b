"""What each depth knows, against scikit-learn, and against features that are gathered by hand."""

import dataclasses
import tarfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from inspected_networks import network
from own_classes import Tiny
from photos import encode
from sklearn.linear_model import Ridge, RidgeCV

from resflax import Custom, DenseNet, Digits, Experiment, ImageFolder, ResNet
from resflax.data.in_memory import Split, first_pictures, load_split, spread_pictures
from resflax.diagnostics import probed_runs, probes, ridge
from resflax.diagnostics.inspected import (
    InspectedNetwork,
    apply,
    outputs,
    untrained,
    with_statistics_of,
)
from resflax.diagnostics.probed_runs import RunKnowledge, affordable_examples, probe_run
from resflax.diagnostics.probes import UnitKnowledge, depths_of, probe_units, share_of_variance
from resflax.errors import UsageError
from resflax.models.dense import DenseLayer, Transition
from resflax.models.layers import Conv
from resflax.models.units import ResidualUnit
from resflax.report import probe_pictures
from resflax.report.collect import collect_runs
from resflax.report.groups import form_seed_groups
from resflax.report.probe_pictures import choose_groups, draw_knowledge
from resflax.runs.run_folder import RunFolder

rng = np.random.default_rng(0)


def products(fitting: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return fitting @ fitting.T, others @ fitting.T


# --- Ridge regression from inner products


@pytest.mark.parametrize("features", [4, 30])  # fewer and more than examples
def test_left_out_errors_are_those_of_fits_without_each_example(features):
    x, y = rng.normal(1, 1, (12, features)), rng.normal(size=(12, 3))
    centred = x - x.mean(0)
    eigenvalues, vectors = np.linalg.eigh(centred @ centred.T)
    components = [vectors.T @ (t - t.mean(0)) for t in (y, y[:, :1])]
    errors = ridge.left_out_errors(eigenvalues, vectors, components, 0.7)
    predictions = []
    for i in range(12):
        others = np.delete(np.arange(12), i)
        predictions.append(Ridge(0.7).fit(x[others], y[others]).predict(x[i : i + 1])[0])
    squared = np.square(y - predictions)
    assert errors == pytest.approx([squared.sum(), squared[:, 0].sum()])


@pytest.mark.parametrize(("features", "targets"), [(4, 3), (30, 3), (30, 50)])
def test_predictions_are_those_of_the_primal_regression_with_the_best_penalty(features, targets):
    x, others = rng.normal(2, 1, (20, features)), rng.normal(2, 1, (7, features))
    weights = rng.normal(size=(features, targets))
    y = x @ weights + 3 * rng.normal(size=(20, targets)) + 5
    noise = rng.normal(size=(20, 1))
    scale = np.square(x - x.mean(0)).sum() / 20
    for target, predicted in zip(
        (y, noise), ridge.predict(*products(x, others), y, noise), strict=True
    ):
        primal = RidgeCV(scale * ridge.PENALTIES).fit(x, target)
        np.testing.assert_allclose(
            predicted, primal.predict(others).reshape(predicted.shape), rtol=1e-6, atol=1e-6
        )


def test_only_the_span_of_the_features_matters_and_not_their_axes_or_scale():
    x, others = rng.normal(size=(15, 6)), rng.normal(size=(4, 6))
    y = np.tanh(x[:, :2])
    expected = ridge.predict(*products(x, others), y)[0]
    rotation = np.linalg.qr(rng.normal(size=(6, 6))).Q
    for changed in (lambda f: 3 * f[:, ::-1] + 5, lambda f: f @ rotation, lambda f: np.tile(f, 2)):
        predicted = ridge.predict(*products(changed(x), changed(others)), y)[0]
        np.testing.assert_allclose(predicted, expected, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_equal_features_predict_the_mean(value):
    x, y = np.full((6, 3), value), rng.normal(size=(6, 2))
    predicted = ridge.predict(*products(x, rng.normal(size=(2, 3))), y)[0]
    np.testing.assert_allclose(predicted, [y.mean(0)] * 2)


def test_the_share_of_variance_counts_from_the_mean_of_the_fitting_pictures():
    true, mean = np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([1.0, 1.0])
    assert share_of_variance(true, true, mean) == 1
    assert share_of_variance(true, np.array([mean, mean]), mean) == 0
    assert share_of_variance(true, true + np.eye(2), mean) == pytest.approx(1 - 2 / 6)
    assert share_of_variance(np.array([mean]), true[:1], mean) == 0


# --- The depths of a network


def split(examples: int) -> Split:
    """Random pictures of 8x8 whose class is that of their brightest row."""
    images = rng.integers(0, 256, (examples, 8, 8, 1), dtype=np.uint8)
    return Split(images, images.sum((2, 3), dtype=int).argmax(1).astype(np.int32))


def inspected(model: Any, held_out: int = 40) -> InspectedNetwork:
    """A random network with such pictures."""
    net, pictures = network(model), split(held_out)
    return dataclasses.replace(net, pictures=pictures, images=normalized(net, pictures))


def normalized(net: InspectedNetwork, pictures: Split) -> jax.Array:
    return jnp.asarray((pictures.images - net.normalization.mean) * net.normalization.scale)


def features_by_hand(net: InspectedNetwork, images: jax.Array) -> dict[str, np.ndarray]:
    """All maps (N, values) of each depth, concatenated for dense blocks."""
    seen = outputs(
        dataclasses.replace(net, images=images),
        lambda m: isinstance(m, Conv | ResidualUnit | DenseLayer | Transition),
    )
    features, block = {"pixels": np.asarray(images)}, np.zeros(())
    if isinstance(net.module.config, DenseNet):
        features["stem"] = block = seen["stem_conv"]
    for path, maps in seen.items():
        if "." in path or path == "stem_conv":
            continue
        block = np.concatenate([block, maps], -1) if "layer" in path else maps
        features[path] = block
    return {name: maps.reshape(len(maps), -1).astype(float) for name, maps in features.items()}


@pytest.mark.parametrize(
    "model",
    [
        DenseNet(16, 3),
        DenseNet(10, 2, bottleneck=False, compression=1.0, initial_channels=1),
        ResNet(14, shortcut="projection", order="full_pre"),
    ],
)
def test_knowledge_is_that_of_regressions_on_the_maps_gathered_by_hand(model):
    net, fitting = inspected(model), split(90)
    every = jnp.concatenate([normalized(net, fitting), net.images])
    features, pixels = features_by_hand(net, every), np.asarray(every, float).reshape(-1, 64)
    known = {unit.name: unit for unit in probe_units(net, fitting)}
    assert features.keys() == known.keys() - ({"stem"} if "stem" not in features else set())
    for name, values in features.items():
        x, others = values[:90], values[90:]
        penalties = np.square(x - x.mean(0)).sum() / 90 * ridge.PENALTIES
        probe = RidgeCV(penalties).fit(x, np.eye(8)[fitting.labels])
        accuracy = np.mean(probe.predict(others).argmax(1) == net.labels)
        assert known[name].accuracy == pytest.approx(accuracy, abs=1.5 / 40), name
        rebuilt = RidgeCV(penalties).fit(x, pixels[:90]).predict(others)
        share = 1 - np.square(pixels[90:] - rebuilt).sum() / (
            np.square(pixels[90:] - pixels[:90].mean(0)).sum()
        )
        assert known[name].reconstructed == pytest.approx(share, abs=2e-3), name


def test_layers_are_counted_without_those_on_shortcuts():
    def layers(model):
        return list(depths_of(network(model)).values())

    assert layers(ResNet(20, shortcut="projection_all")) == [0, 1, *range(3, 20, 2)]
    assert layers(ResNet(11, block="bottleneck")) == [0, 1, 4, 7, 10]
    assert layers(ResNet(8, shortcut="exclusive_gating")) == [0, 1, 3, 5, 7]
    assert layers(DenseNet(10, 3, bottleneck=False)) == list(range(10))
    assert layers(DenseNet(10, 3)) == [0, 1, 3, 4, 6, 7, 9]


def test_of_deep_networks_twenty_units_at_even_distances_are_probed():
    depths = depths_of(network(ResNet(128)))  # 63 units
    assert len(depths) == 22
    assert list(depths)[:2] == ["pixels", "stem"]
    assert list(depths)[-1] == "stage3_unit21"
    assert set(np.diff(list(depths.values())[2:])) == {6, 8}  # every third or fourth unit


def silenced(net: InspectedNetwork) -> InspectedNetwork:
    """The network with a stem that passes the pixels on, and with branches that are zero."""
    variables = jax.tree.map(jnp.zeros_like, net.variables)
    params = variables["params"]
    params["stem_conv"]["kernel"] = params["stem_conv"]["kernel"].at[1, 1, 0, 0].set(1)
    params["stem_norm"]["scale"] = jnp.ones(16)
    variables["batch_stats"] = jax.tree.map(jnp.ones_like, variables["batch_stats"])
    variables["batch_stats"]["stem_norm"]["mean"] = jnp.full(16, -2.0)  # keeps all above 0
    return dataclasses.replace(net, variables=variables)


def test_identity_units_keep_the_picture_until_a_stride_drops_pixels():
    known = probe_units(silenced(inspected(ResNet(8, shortcut="zero_pad"), 100)), split(600))
    shares = [unit.reconstructed for unit in known]
    assert shares[:3] == pytest.approx([1, 1, 1], abs=1e-3)
    # Of independent pixels, each stride keeps every fourth.
    assert shares[3:] == pytest.approx([1 / 4, 1 / 16], abs=0.03)


def test_units_that_are_zero_know_nothing():
    net, fitting = silenced(inspected(ResNet(8, shortcut="none"))), split(90)
    often = np.bincount(fitting.labels).argmax()
    rate = float(np.mean(net.labels == often))
    for unit in probe_units(net, fitting)[2:]:
        assert (unit.accuracy, unit.reconstructed) == (rate, 0.0)


def test_maps_that_overflow_are_not_a_number():
    net = inspected(ResNet(8))
    norm = net.variables["params"]["stage2_unit1"]["norm2"]
    norm["scale"] = norm["scale"] * 1e25
    shares = [unit.reconstructed for unit in probe_units(net, split(20))]
    assert np.isnan(shares).tolist() == [False, False, False, True, True]


def test_a_dense_block_never_loses_what_entered_it(monkeypatch):
    # With almost no penalty, more features fit the fitting pictures at least as well.
    monkeypatch.setattr(ridge, "PENALTIES", np.array([1e-5]))
    model = DenseNet(19, 1, bottleneck=False, compression=1.0, initial_channels=1)
    net, fitting = network(model), split(100)
    net = dataclasses.replace(net, pictures=fitting, images=normalized(net, fitting))
    shares = np.array([unit.reconstructed for unit in probe_units(net, fitting)])
    assert len(shares) == 19
    for block in (shares[1:7], shares[7:13], shares[13:]):  # each begins with what entered it
        assert min(block - block[0]) > -0.002
    assert shares[7] < shares[6] - 0.1  # pooling loses something


def test_statistics_of_pictures_make_evaluation_equal_to_training_on_them():
    net = untrained(inspected(DenseNet(10, 2)))
    own = with_statistics_of(net, net.images)

    def logits(of, train):
        return jax.jit(lambda v, x: apply(net.module, v, x, train=train))(of.variables, net.images)

    trained = logits(net, True)
    # Running averages are of the unbiased variance: here 40 * 64 values, and at least 40 * 4.
    np.testing.assert_allclose(logits(own, False), trained, atol=0.02)
    assert not np.allclose(logits(net, False), trained, atol=0.1)


def test_large_pictures_are_averaged_down():
    images = jnp.asarray(rng.normal(size=(2, 70, 66, 3)), jnp.float32)
    rebuilt = probes._pixels(images).reshape(2, 23, 22, 3)
    np.testing.assert_allclose(rebuilt[1, 2, 3], images[1, 6:9, 9:12].mean((0, 1)), rtol=1e-4)
    assert probes._pixels(images[:, :32, :32]).shape == (2, 32 * 32 * 3)


# --- Pictures and runs


def test_pictures_are_spread_over_the_split():
    every, some = load_split(Digits(), "test"), spread_pictures(Digits(), "test", 100)
    places = [i * len(every) // 100 for i in range(100)]
    np.testing.assert_array_equal(some.images, every.images[places])
    np.testing.assert_array_equal(spread_pictures(Digits(), "test", 9999).labels, every.labels)


def test_spread_pictures_of_a_folder_are_of_all_its_classes(tmp_path: Path):
    for part in ("train", "val"):
        for name in ("a", "b", "c"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(4):
                shade = np.full((8, 8, 3), 20 * i + ord(name) + (part == "val"), np.uint8)
                (tmp_path / part / name / f"{i}.png").write_bytes(encode(shade, "png"))
    data = ImageFolder(data_dir=str(tmp_path), image_size=8)
    assert spread_pictures(data, "test", 6).labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert first_pictures(data, "test", 6).labels.tolist() == [0, 0, 0, 0, 1, 1]


def test_networks_with_large_maps_get_fewer_pictures(monkeypatch):
    def experiment(model):
        return Experiment(name="x", model=model, batch_size=4, steps=1)

    assert affordable_examples(experiment(ResNet(8))) == 1500
    monkeypatch.setattr(probed_runs, "MEMORY", 2**20)
    assert affordable_examples(experiment(ResNet(8))) == 2**20 // (8 * 8 * 16 * 4)
    monkeypatch.setattr(probed_runs, "MEMORY", 1)
    assert affordable_examples(experiment(ResNet(8))) == 3


@pytest.fixture
def old_sweep(tmp_path: Path) -> Path:
    """A sweep of DenseNets with growth rates 2 and 3 and seeds 0 and 1; one run is missing."""
    with tarfile.open(ROOT / "tests" / "kept_runs" / "format_1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "old" / "sweep"


def test_the_section_of_runs_on_disk(old_sweep, monkeypatch):
    monkeypatch.setattr(probe_pictures, "EXAMPLES", 90)
    groups = form_seed_groups(collect_runs([old_sweep]))[:1]
    said: list[str] = []
    named: list[str] = []
    section: Any = draw_knowledge(groups, said.append, named.append)
    assert said == []
    seeds = [run.experiment.seed for run in groups[0].finished]
    assert named == [f"{groups[0].label}, seed {seed}" for seed in seeds]
    assert "fitted to 60 pictures of the training split" in section.explanation
    assert "30 pictures of the test split" in section.explanation
    for picture in section.pictures:
        lines = [line for line in picture.figure.axes[0].lines if len(line.get_xdata())]
        assert [line.get_linestyle() for line in lines] == ["--", "-"]
        for line in lines:
            assert list(line.get_xdata()) == [0, 1, 3, 4, 6, 7, 9]
    rebuilt = section.pictures[1].figure.axes[0].lines
    # Training does not change the pixels.
    assert rebuilt[0].get_ydata()[0] == rebuilt[1].get_ydata()[0]


def known_run(*accuracies: float) -> RunKnowledge:
    def units(factor):
        return [UnitKnowledge("u", i, factor * a, 0.5) for i, a in enumerate(accuracies)]

    return RunKnowledge(units(0.5), units(1.0), 1000, 355)


def test_lines_are_means_over_the_seeds_and_bands_one_deviation(old_sweep, monkeypatch):
    fakes = iter([known_run(0.9, 0.4), known_run(0.9, 0.8)])

    def probe_run(folder, examples, say):
        try:
            return next(fakes)
        except StopIteration:
            raise UsageError("no checkpoint") from None

    monkeypatch.setattr(probe_pictures, "probe_run", probe_run)
    groups = form_seed_groups(collect_runs([old_sweep]))
    two = [group for group in groups if len(group.finished) == 2]
    one = [group for group in groups if len(group.finished) == 1]
    said: list[str] = []
    section: Any = draw_knowledge([*two, *one], said.append, lambda title: None)
    assert said == [
        f"not probed: {one[0].label}, seed {one[0].finished[0].experiment.seed}: no checkpoint"
    ]
    axis = section.pictures[0].figure.axes[0]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [45, 30])
    np.testing.assert_allclose(axis.lines[1].get_ydata(), [90, 60])
    heights = axis.collections[1].get_paths()[0].vertices[:, 1]
    deviation = 100 * np.std([0.4, 0.8], ddof=1)
    assert (heights.min(), heights.max()) == pytest.approx((60 - deviation, 90))
    assert "up to 2 seeds" in section.explanation
    assert section.pictures[0].description.endswith(f"trained: {two[0].label} 60 %")


def test_the_weights_before_the_first_step_are_known_only_if_they_were_drawn(monkeypatch):
    net, fitting = inspected(DenseNet(10, 2)), split(20)
    monkeypatch.setattr(probed_runs, "load_networks", lambda *arguments: [net])
    monkeypatch.setattr(probed_runs, "spread_pictures", lambda *arguments: fitting)
    known = probe_run(RunFolder(Path("run")), 60, print)
    assert known.initial is not None
    assert known.initial[0] == known.trained[0]  # the pixels
    assert known.initial[-1] != known.trained[-1]
    assert (known.fitting, known.held_out) == (20, 40)
    began = dataclasses.replace(net.experiment, initialize_from="other")
    monkeypatch.setattr(
        probed_runs,
        "load_networks",
        lambda *arguments: [dataclasses.replace(net, experiment=began)],
    )
    assert probe_run(RunFolder(Path("run")), 60, print) == dataclasses.replace(known, initial=None)


def test_networks_that_began_with_other_weights_are_shown_trained_only(old_sweep, monkeypatch):
    run = dataclasses.replace(known_run(0.9, 0.4), initial=None)
    monkeypatch.setattr(probe_pictures, "probe_run", lambda *arguments: run)
    groups = form_seed_groups(collect_runs([old_sweep]))
    section: Any = draw_knowledge(groups, lambda line: None, lambda title: None)
    axis = section.pictures[0].figure.axes[0]
    shown = [line.get_linestyle() for line in axis.lines if len(line.get_xdata())]
    assert shown == ["-"] * len(groups)


def test_what_is_not_probed_is_said(old_sweep):
    group = form_seed_groups(collect_runs([old_sweep]))[0]

    def of_own_network(run):
        experiment = dataclasses.replace(run.experiment, model=Custom(network=Tiny))
        return dataclasses.replace(run, experiment=experiment)

    unfinished = tuple(dataclasses.replace(run, result=None) for run in group.runs)
    mine = dataclasses.replace(group, label="mine", runs=tuple(map(of_own_network, group.runs)))
    many = [dataclasses.replace(group, label=f"net {i}") for i in range(15)]
    compared, left_out = choose_groups([dataclasses.replace(group, runs=unfinished), mine, *many])
    assert compared == many[:8]
    assert left_out == [
        "mine, because nothing is known of the units of your own networks",
        "net 8, net 9, net 10, net 11, net 12 and 2 more, because at most 8 variants are compared",
    ]
    said: list[str] = []
    assert draw_knowledge([mine], said.append, said.append) is None
    assert said == [f"not probed: {left_out[0]}"]
