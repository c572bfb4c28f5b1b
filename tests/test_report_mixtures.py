"""Runs of any experiments, finished or not, can stand in one report."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import made_run

from resflax import CIFAR10, Cosine, DenseNet, Digits, ResNet, StepDecay
from resflax.report.build import write_report
from resflax.report.groups import form_seed_groups

MODELS = (
    ResNet(20),
    ResNet(20, shortcut="none"),
    ResNet(56, shortcut="exclusive_gating", gate_bias=-5.0),
    ResNet(29, block="bottleneck", bottleneck_width=32),
    ResNet(28, widening=10, order="full_pre", dropout_rate=0.3),
    DenseNet(16, 12),
    DenseNet(28, 12, bottleneck=False, compression=1.0),
    DenseNet(28, 24),
)
NUMBERS = st.sampled_from([None, 0.0, 1e-9, 0.01, 0.5, 1.0])


@st.composite
def runs(draw):
    fields = {
        "model": draw(st.sampled_from(MODELS)),
        "data": draw(st.sampled_from([Digits(), CIFAR10()])),
        "batch_size": draw(st.sampled_from([32, 128])),
        "optimizer.learning_rate": draw(st.sampled_from([0.001, 0.1])),
        "schedule": draw(st.sampled_from([Cosine(), StepDecay(boundaries=(50,))])),
        "seed": draw(st.integers(0, 2)),
    }
    lines = [
        {"step": step, "split": split, "loss": draw(NUMBERS), "error": draw(NUMBERS)}
        for step in range(1, draw(st.integers(0, 3)) + 1)
        for split in ("train", "test")
    ]
    if draw(st.booleans()):
        return made_run(fields, error=None, lines=lines)
    sizes = {"params": draw(st.sampled_from([1000, 5000])), "macs": 10**6}
    loss = draw(st.one_of(NUMBERS, st.just(1e13)))
    return made_run(fields, error=draw(st.integers(0, 355)) / 355, loss=loss, lines=lines, **sizes)


@given(st.lists(runs(), min_size=1, max_size=9))
@settings(deadline=None, max_examples=6)
def test_any_mixture_of_runs_can_be_reported(mixture):
    with tempfile.TemporaryDirectory() as folder:
        page, *_ = write_report(Path(folder) / "r.html", mixture, form_seed_groups(mixture))
        assert page.read_text(encoding="utf-8").endswith("</html>\n")
