"""Damaged files of runs: a report leaves out what cannot be read, and says so in one line."""

import errno
import json
import os

import pytest
from reported import BASE, list_trials, make_run

from resflax.errors import UsageError
from resflax.experiment import with_fields
from resflax.report.build import write_report
from resflax.report.collect import collect_runs
from resflax.report.groups import form_seed_groups
from resflax.report.watching import look_at
from resflax.runs.metrics import read_lines

DEEP = "[" * 100_000
RESULT = {"test_error": 0.1, "train_loss": 0.2, "params": 9, "macs": 9, "seconds": 1.0}


def collect_beside_a_sound_run(folder, result):
    """Reads a run with this content of result.json; returns the runs and the notes."""
    make_run(folder / "a", with_fields(BASE, {"seed": 1}), 0.1)
    make_run(folder / "b", BASE, 0.1)
    (folder / "b" / "result.json").write_bytes(result)
    notes: list[str] = []
    return collect_runs([folder], notes.append), notes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "does not describe a result: it is []"),
        ("3", "does not describe a result: it is 3"),
        ("null", "does not describe a result: it is None"),
        ('"x"', "does not describe a result: it is 'x'"),
        ("{}", "does not describe a result: it has no params"),
        (json.dumps(RESULT | {"macs": None}), "does not describe a result: it has no macs"),
        (json.dumps(RESULT | {"seconds": float("nan")}), "a result: it has no seconds"),
        (json.dumps(RESULT | {"test_error": "a"}), "a result: test_error is 'a'"),
        (json.dumps(RESULT | {"train_loss": True}), "a result: train_loss is True"),
        (json.dumps(RESULT | {"train_loss": [1]}), "a result: train_loss is [1]"),
        (json.dumps(RESULT | {"params": 1.5}), "a result: params is 1.5"),
        (json.dumps(RESULT | {"macs": -1}), "a result: macs is -1"),
        (json.dumps(RESULT | {"best_test_error": 10**400}), "a result: best_test_error is 1000"),
        ("", "cannot be read: Expecting value"),
        (DEEP, "cannot be read: maximum recursion depth exceeded"),
        ("\udcff", "cannot be read: 'utf-8' codec"),
    ],
    ids=str,
)
def test_a_run_with_a_damaged_result_is_left_out(tmp_path, text, reason):
    runs, notes = collect_beside_a_sound_run(tmp_path, text.encode(errors="surrogateescape"))
    assert [run.path.name for run in runs] == ["a"]
    (note,) = notes
    assert note.startswith(f"{tmp_path / 'b' / 'result.json'} ")
    assert reason in note


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "null"])
def test_a_number_that_is_not_finite_was_not_measured(tmp_path, number):
    text = json.dumps(RESULT)[:-1] + f', "test_error": {number}, "train_loss": {number}}}'
    runs, notes = collect_beside_a_sound_run(tmp_path, text.encode())
    assert notes == []
    assert [run.test_error for run in runs] == [0.1, None]
    assert runs[1].result is not None
    assert runs[1].result["train_loss"] is None


def test_a_report_of_runs_without_measured_errors_is_made(tmp_path):
    runs, _ = collect_beside_a_sound_run(
        tmp_path, json.dumps(RESULT | {"test_error": None, "train_loss": None}).encode()
    )
    page, *_ = write_report(tmp_path / "report.html", runs, form_seed_groups(runs))
    assert page.read_text().count(">finished<") == 2


def test_a_failed_run_needs_no_measurements(tmp_path):
    runs, _ = collect_beside_a_sound_run(tmp_path, b'{"status": "failed"}')
    assert [run.state for run in runs] == ["finished", "failed"]


LINE = '{"step": 1, "split": "test", "loss": 1, "error": 0.5, "seconds": null}'


@pytest.mark.parametrize(
    "damaged",
    [
        '{"step": 2, "split": "train", "loss": "x"}',
        '{"step": 2, "split": "train", "error": [1]}',
        '{"step": 2, "split": "train", "error": true}',
        '{"step": 2, "split": "train", "seconds": "x"}',
        '{"step": 2, "split": "train", "images_per_second": {}}',
        '{"step": 2, "split": "train", "loss": NaN}',
        '{"step": 2, "split": "train", "loss": 1e400}',
        '{"step": 2, "split": "train", "loss": 1%s}' % ("0" * 400),
        '{"step": 1e400, "split": "train"}',
        '{"step": 2.5, "split": "train"}',
        '{"step": "2", "split": "train"}',
        '{"step": -2, "split": "train"}',
        '{"step": 9223372036854775808, "split": "train"}',
        '{"step": 2, "split": 3}',
        '{"split": "train"}',
        "3",
        DEEP,
        '{"step": %s}' % (DEEP + "]" * len(DEEP)),
    ],
    ids=lambda text: text[:50],
)
def test_a_log_is_read_up_to_a_line_of_the_wrong_types(tmp_path, damaged):
    (tmp_path / "metrics.jsonl").write_text(f"{LINE}\n{LINE}\n{damaged}\n{LINE}\n")
    assert read_lines(tmp_path / "metrics.jsonl") == [json.loads(LINE)] * 2


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json"])
def test_a_folder_in_the_place_of_a_file_is_named(tmp_path, name):
    path = tmp_path / "run"
    make_run(path, BASE, 0.1)
    (path / name).unlink()
    (path / name).mkdir()
    with pytest.raises(UsageError) as error:
        collect_runs([path])
    assert str(error.value) == f"{path / name} cannot be read: {os.strerror(errno.EISDIR)}"


@pytest.mark.parametrize("name", ["ü" * 300, "a\0b", "\ud800", "ü" * 300 + "/a"], ids=range(4))
def test_a_trial_with_a_name_that_no_file_can_have_has_not_begun(tmp_path, name):
    make_run(tmp_path / "trials" / BASE.content_hash, BASE, 0.1)
    list_trials(tmp_path, {BASE.content_hash: {}, name: {}})
    (run,) = collect_runs([tmp_path])
    assert run.sweep is not None
    assert (run.sweep.trials, run.sweep.waiting) == (2, 1)
    assert not look_at([tmp_path], 0).ended


def test_a_sweep_that_cannot_be_read_is_watched_as_its_runs_alone(tmp_path):
    make_run(tmp_path / "trials" / BASE.content_hash, BASE, 0.1)
    (tmp_path / "sweep.json").write_text(DEEP)
    assert look_at([tmp_path], 0).ended


@pytest.mark.parametrize(
    ("ended", "state", "why"),
    [
        ({"state": "pruned", "why": None}, "pruned", ""),
        ({"state": "pruned"}, "pruned", ""),
        ({"state": "failed", "why": 3}, "failed", ""),
        ({"state": "failed", "why": "it is so"}, "failed", "it is so"),
        ({"state": 5, "why": 3}, "unfinished", ""),
        ([], "unfinished", ""),
    ],
    ids=str,
)
def test_only_a_text_says_why_a_trial_ended(tmp_path, ended, state, why):
    make_run(tmp_path / "trials" / BASE.content_hash, BASE)
    list_trials(tmp_path, {BASE.content_hash: {}})
    (tmp_path / "ended").mkdir()
    (tmp_path / "ended" / f"{BASE.content_hash}.json").write_text(json.dumps(ended))
    (run,) = collect_runs([tmp_path])
    assert (run.state, run.why) == (state, why)


@pytest.mark.parametrize("text", ["[]", "3", '{"continued": 4}', DEEP], ids=range(4))
def test_a_damaged_environment_counts_as_unknown(tmp_path, text):
    make_run(tmp_path / "run", with_fields(BASE, {"initialize_from": "there"}), 0.1)
    (tmp_path / "run" / "environment.json").write_text(text)
    (run,) = collect_runs([tmp_path])
    assert run.initialized_from is None
