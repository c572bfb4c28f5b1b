"""A damaged checkpoint is never believed, and never costs an older one."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from resflax import TrainingError
from resflax.runs.checkpoints import KEPT, Checkpoints
from resflax.runs.manifest import NAME, fault


def state(number):
    return {"params": {"kernel": jnp.full((3, 5), number, jnp.float32)}, "step": jnp.int32(number)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(folder)
    for step in (10, 20):
        checkpoints.save(step, state(step), {"seconds": step / 2})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != NAME)


def newest_good(folder):
    said: list[str] = []
    return Checkpoints(folder).newest_good(said.append), said


def test_what_was_saved_comes_back(folder):
    step, said = newest_good(folder)
    assert (step, said) == (20, [])
    restored, notes = Checkpoints(folder).restore(20, state(0))
    np.testing.assert_array_equal(restored["params"]["kernel"], np.full((3, 5), 20, np.float32))
    assert (int(restored["step"]), notes) == (20, {"seconds": 10.0})


def test_a_flipped_bit_in_any_file_is_found(folder):
    for path in files(folder / "20"):
        content = path.read_bytes()
        if not content:
            continue
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        step, said = newest_good(folder)
        assert step == 10
        assert len(said) == 1
        assert path.name in said[0]
        path.write_bytes(content)
    assert newest_good(folder) == (20, [])


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove", "add"])
def test_a_file_cut_emptied_lost_or_added_is_found(folder, damage):
    path = max(files(folder / "20"), key=lambda p: p.stat().st_size)
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    elif damage == "add":
        path.with_name("stranger").write_bytes(b"x")
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")
    step, said = newest_good(folder)
    assert step == 10
    assert len(said) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"a": 1}', b"\xff\xfe"])
def test_a_damaged_manifest_is_found(folder, content):
    (folder / "20" / NAME).write_bytes(content)
    assert fault(folder / "20") is not None
    assert newest_good(folder)[0] == 10


def test_a_save_that_was_cut_off_is_passed_over(folder):
    (folder / "20" / NAME).unlink()
    step, said = newest_good(folder)
    assert step == 10
    assert "not finished" in said[0]
    Checkpoints(folder).forget_after(10)
    assert Checkpoints(folder).steps() == [10]


def test_all_damaged_is_refused_and_touches_nothing(folder):
    for step in ("10", "20"):
        (folder / step / NAME).write_text("{}")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(TrainingError, match="are damaged"):
        newest_good(folder)
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_damaged_ones_are_put_aside_and_their_step_can_be_saved_again(folder):
    (folder / "20" / NAME).write_text("{}")
    checkpoints = Checkpoints(folder)
    checkpoints.forget_after(10)
    assert checkpoints.steps() == [10]
    assert (folder.parent / "damaged-checkpoints" / "20").is_dir()
    checkpoints.save(20, state(21), {"seconds": 1.0})
    restored, _ = checkpoints.restore(20, state(0))
    assert int(restored["step"]) == 21


def test_the_newest_few_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in range(KEPT + 2):
        checkpoints.save(step, state(step), {"seconds": 0.0})
    assert checkpoints.steps() == list(range(2, KEPT + 2))


def test_nothing_saved_is_no_checkpoint(tmp_path):
    assert newest_good(tmp_path / "checkpoints") == (None, [])


def test_interruptions_do_not_push_out_what_a_run_would_go_back_to(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20, 30, 31, 32, 33, 34):
        checkpoints.save(step, state(step), {"seconds": 0.0}, every=10)
    assert checkpoints.steps() == [20, 30, 32, 33, 34]
    assert checkpoints.newest_good(print, every=10) == 30
