"""`report --watch`: when it renews the report, when it ends, and what it survives."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT
from forked_command import ForkedCommand
from reported import BASE, list_trials, make_run, make_sweep

from resflax.experiment import with_fields
from resflax.report import watching
from resflax.report.watching import look_at, watch

SOON = """
import signal
import resflax.report.watching as watching
watching.POLL_SECONDS = 0.05
watching.REST = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
"""


@pytest.fixture
def trials(tmp_path):
    """The run folders of three trials that a sweep lists; none has begun."""
    experiments = [with_fields(BASE, {"seed": seed}) for seed in range(3)]
    hashes = [experiment.content_hash for experiment in experiments]
    list_trials(tmp_path / "sweep", {trial: {"name": None} for trial in hashes})
    paths = [tmp_path / "sweep" / "trials" / trial for trial in hashes]
    return dict(zip(paths, experiments, strict=True))


@pytest.fixture
def watched(tmp_path):
    """Starts the command, as `scripts/report.py sweep --watch`, and ends it after the test."""
    commands = []

    def start():
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        script = ROOT / "scripts" / "report.py"
        arguments = ["sweep", "--watch", "--output", "page.html"]
        commands.append(ForkedCommand(script, arguments, environment, tmp_path, SOON))
        return commands[-1]

    yield start
    for command in commands:
        if command.poll() is None:
            os.kill(command.pid, signal.SIGKILL)
            command.wait()


def end(folder, **state):
    """Notes that a trial of a sweep ended without a result."""
    ended = folder.parent.parent / "ended"
    ended.mkdir(exist_ok=True)
    (ended / f"{folder.name}.json").write_text(json.dumps(state))


def wait_until(condition, seconds=200.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def has_ended(*folders):
    return look_at(folders, time.time()).ended


def test_trials_that_have_not_begun_have_not_ended(trials, tmp_path):
    sweep, (first, second, third) = tmp_path / "sweep", trials
    for trial in (first, second):
        make_run(trial, trials[trial], 0.1)
    assert has_ended(first)
    assert not has_ended(sweep)
    make_run(third, trials[third])
    assert not has_ended(sweep)
    end(third, state="failed", why="nan")
    assert has_ended(third)
    assert has_ended(sweep)
    assert has_ended(tmp_path)  # a folder of sweeps
    make_run(tmp_path / "other", BASE)
    assert not has_ended(tmp_path)
    make_run(tmp_path / "finished", BASE, 0.1)
    assert has_ended(sweep, tmp_path / "finished")


def test_folders_without_runs_are_waited_for(tmp_path):
    assert not has_ended(tmp_path)
    assert not has_ended(tmp_path / "none")
    list_trials(tmp_path / "sweep", {})
    assert not has_ended(tmp_path / "sweep")


def test_a_search_may_get_more_trials_for_a_while(trials, tmp_path):
    for trial, experiment in trials.items():
        make_run(trial, experiment, 0.1)
    (tmp_path / "sweep" / "search.journal").touch()
    now = time.time()
    assert not look_at([tmp_path / "sweep"], now).ended
    assert look_at([tmp_path / "sweep"], now + 100).ended


def test_every_change_is_seen(trials, tmp_path):
    trial = next(iter(trials))
    looks = [look_at([tmp_path], 0).files]
    make_run(trial, trials[trial])
    looks.append(look_at([tmp_path], 0).files)
    with open(trial / "metrics.jsonl", "a") as file:
        file.write("{")
    looks.append(look_at([tmp_path], 0).files)
    end(trial, state="failed", why="nan")
    looks.append(look_at([tmp_path], 0).files)
    assert len(set(looks)) == 4
    assert look_at([tmp_path], 0).files == looks[-1]


def test_the_report_is_renewed_after_changes_alone_and_the_last_time_at_the_end(
    trials, tmp_path, monkeypatch
):
    calls, slept = [], []
    steps = iter([None, *trials.items()])

    def sleep(seconds):
        slept.append(seconds)
        step = next(steps)
        if step is not None:
            make_run(*step, 0.1)

    def renew(more):
        calls.append(more)

    monkeypatch.setattr(time, "sleep", sleep)
    watch([tmp_path / "sweep"], renew)
    assert calls == [True, True, True, False]  # at once, and after each trial
    assert slept == [watching.POLL_SECONDS] * 4  # nothing had changed after the first


def test_a_report_that_takes_long_is_renewed_seldom(trials, tmp_path, monkeypatch):
    clock, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        for trial in trials.items():
            make_run(*trial, 0.1)

    def renew(more):
        clock[0] += 20

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", sleep)
    watch([tmp_path / "sweep"], renew)
    assert slept == [100]


def test_what_has_ended_is_reported_once(script, tmp_path):
    make_sweep(tmp_path / "sweep")
    unfinished = with_fields(BASE, {"seed": 9}).content_hash
    end(tmp_path / "sweep" / "trials" / unfinished, state="pruned", why="bad")
    done = script("report", "sweep", "--watch")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout[8:] == " report.html: 8 runs: 6 finished, 1 pruned, 1 failed\n"
    assert "renew_" not in (tmp_path / "report.html").read_text().partition("<script>")[0]


def test_it_follows_a_sweep_to_its_end_through_faulty_runs(trials, tmp_path, watched):
    page = tmp_path / "page.html"
    first, second, third = trials
    command = watched()
    printed = Path(command._folder, "stderr")

    def fill():
        wait_until(lambda: printed.exists() and "waiting" in printed.read_text())
        make_run(first, trials[first], 0.1)
        wait_until(page.exists)
        second.mkdir()
        (second / "experiment.json").write_text('{"format": 3, "na')  # half of it
        wait_until(lambda: "Left out" in page.read_text())
        shutil.rmtree(second)
        make_run(second, trials[second], 0.1)
        make_run(third, trials[third])
        wait_until(lambda: "1 unfinished" in page.read_text())
        assert 'id="renew_"' in page.read_text()
        end(third, state="failed", why="the loss is nan")

    filling = threading.Thread(target=fill)
    filling.start()
    out, err = command.communicate(timeout=300)
    filling.join()
    assert command.returncode == 0, err
    *_, last = out.splitlines()
    assert last[8:] == " page.html: 3 runs: 2 finished, 1 failed"
    waiting, *left_out = err.splitlines()  # runs are perhaps read while this test writes them
    assert waiting.startswith("waiting: none of the 3 trials of sweep has begun")
    assert left_out[0].startswith(f"left out: sweep/trials/{second.name}")
    assert all(line.startswith("left out: sweep/trials/") for line in left_out)
    assert 'id="renew_"' not in page.read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_and_leave_a_whole_page(tmp_path, watched, number, code):
    make_sweep(tmp_path / "sweep")
    command = watched()
    wait_until((tmp_path / "page.html").exists)
    os.kill(command.pid, number)
    _, err = command.communicate(timeout=300)
    assert command.returncode == code
    assert err == ""
    assert (tmp_path / "page.html").read_text().endswith("</html>\n")
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
