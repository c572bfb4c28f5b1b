"""The published recipes have the steps and the learning rates of their sources."""

import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import ROOT

from resflax import ImageNet, ResNet
from resflax.terminal.experiment_files import load_experiment
from resflax.training.schedule import learning_rate

# For each file the steps of its training and, by step, the learning rate that its source has.
TENTHS = (450_411, {0: 0.1, 150_136: 0.1, 150_137: 0.01, 300_274: 0.001, 450_410: 0.001})
RECIPES = {
    "he2015_resnet50": (
        600_000,
        {0: 0.1, 149_999: 0.1, 150_000: 0.01, 300_000: 1e-3, 450_000: 1e-4, 599_999: 1e-4},
    ),
    "fb_resnet_torch_resnet50": TENTHS,
    "goyal2017_resnet50": (
        14_076,
        {0: 0.1, 391: 1.65, 782: 3.2, 4_691: 3.2, 4_692: 0.32, 9_384: 0.032, 12_512: 0.0032},
    ),
    "huang2017_densenet121": TENTHS,
    "torchvision_v1_resnet50": TENTHS,
    "wightman2021_a2_resnet50": (187_671, {0: 0.0, 1_564: 2.5e-3, 3_128: 5e-3, 95_400: 2.5e-3}),
    "wightman2021_a3_resnet50": (62_557, {0: 0.0, 1_564: 4e-3, 3_128: 8e-3, 32_842: 4e-3}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_their_sources_steps_and_learning_rates(name):
    steps, marks = RECIPES[name]
    experiment = load_experiment(ROOT / "experiments" / "imagenet" / f"{name}.py")
    # ImageNet's training split has 1,281,167 pictures.
    assert steps == experiment.count_steps(1_281_167)
    rate = learning_rate(experiment.schedule, experiment.optimizer.learning_rate, steps)
    rates = [float(rate(jnp.int32(step))) for step in marks]
    np.testing.assert_allclose(rates, list(marks.values()), rtol=2e-4)
    experiment.augmentation.check_channels(3)
    assert isinstance(experiment.data, ImageNet)


def test_stochastic_depth_is_that_of_resnet_strikes_back():
    # Wightman et al. 2021, Table 2: 0.05 in A2 and none in A3, by timm's drop_path_rate.
    for name, expected in (("a2", (0.05, "picture")), ("a3", (0.0, "batch"))):
        file = f"wightman2021_{name}_resnet50.py"
        model = load_experiment(ROOT / "experiments" / "imagenet" / file).model
        assert isinstance(model, ResNet)
        assert (model.stochastic_depth, model.stochastic_depth_by) == expected


def test_every_recipe_is_compared():
    files = {path.stem for path in (ROOT / "experiments" / "imagenet").glob("*.py")}
    assert files == RECIPES.keys()
    load_experiment(ROOT / "experiments" / "modern_digits.py").augmentation.check_channels(1)
