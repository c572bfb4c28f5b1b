"""Preparation of published sets: TensorFlow Datasets (TFDS) downloads and converts them."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import tensorflow_datasets as tfds

from resflax.data.preparation.checksums import check_sums, write_sums
from resflax.data.preparation.one_at_a_time import preparing
from resflax.data.preparation.writing import writing
from resflax.errors import UsageError
from resflax.paths import check_output_folder
from resflax.text import one_line

_IMAGENET = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")

_NETWORK_ERRORS = (
    "ConnectionError",
    "Timeout",
    "ProxyError",
    "URLError",
    "HTTPError",
    "gaierror",
)


def prepare_published(name: str, data_dir: Path, say: Callable[[str], None]) -> Path:
    """Downloads a set from the TFDS catalogue and prepares it; TFDS checks the downloads.

    If the set is already prepared, its files are compared with their sums instead.

    Args:
      name: the set's name in the catalogue.
      data_dir: the folder that holds all sets.
      say: prints a line to the user.

    Returns:
      The folder of the prepared set.

    Raises:
      UsageError: if TensorFlow is not installed, if the catalogue has no such set, if the download
        fails, if a file has to be downloaded by hand, if a prepared file is damaged, or if another
        process prepares the set now.
      TrainingError: if the sums of the files cannot be read or written.
    """
    prepared = sorted((data_dir / name).glob("*.*.*/dataset_info.json"))
    if prepared:
        folder = prepared[-1].parent
        with writing(folder):
            check_sums(folder, say)
        return folder
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            f"preparing {name} needs TensorFlow (training does not): "
            "pip install 'resflax[prepare]', or prepare it on a machine that has it and copy the "
            f"folder {data_dir / name}"
        )
    check_output_folder("--data-dir", data_dir)
    if name == "imagenet2012":
        _check_imagenet_archives(data_dir)
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        say(f"preparing {name} in {data_dir}")
        with preparing(data_dir, name, say):
            builder.download_and_prepare()
    except UsageError:
        raise
    except Exception as error:  # TFDS, its downloader and TensorFlow raise many types of errors
        raise UsageError(_explanation(name, data_dir, error)) from None
    folder = Path(os.fspath(builder.data_path))
    with writing(folder):
        write_sums(folder)
    return folder


def _check_imagenet_archives(data_dir: Path) -> None:
    """Raises `UsageError` unless ImageNet's archives are where TFDS looks for them."""
    manual = data_dir / "downloads" / "manual"
    missing = [name for name in _IMAGENET if not (manual / name).is_file()]
    if missing:
        raise UsageError(
            "ImageNet has to be downloaded by hand: make an account at https://image-net.org, "
            f"agree to its terms, download {' and '.join(missing)} (ILSVRC 2012, tasks 1 and 2), "
            f"put them into {manual} without unpacking them, and give the same command again"
        )


def _explanation(name: str, data_dir: Path, error: Exception) -> str:
    """Why a set could not be prepared, and what can be done about it."""
    error_type, text = type(error).__name__, one_line(error, 300)
    if "NotFound" in error_type and "ataset" in error_type:
        return f"TensorFlow Datasets has no set {name}"
    if any(network_error in error_type + text for network_error in _NETWORK_ERRORS):
        return (
            f"{name} could not be downloaded ({error_type}: {text}); without a network, prepare it "
            f"on a machine that has one and copy the folder {data_dir / name}"
        )
    return f"{name} could not be prepared ({error_type}: {text})"
