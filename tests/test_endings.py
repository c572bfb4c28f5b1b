"""How programs end: when nobody reads what they print any more, and by signals."""

import errno
import io
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from forked_command import hangups_reach_children
from rich.console import Console
from whole_runs import ROOT, assert_same, run, start, start_interpreter

from resflax.errors import Interrupted
from resflax.terminal.interruption import SIGNALS, Interruption
from resflax.terminal.output import ForgivingText, Output, log_file

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")

# --- Commands in processes of their own, without JAX

COMMAND = """
import os, signal, sys
{before}
from rich.console import Console
from resflax.terminal.command import run
from resflax.terminal.output import accept_lost_output

def command(arguments):
{body}

run(command)
"""
PRINTS = {
    "print": "print('text')",
    "much": "[print('text' * 50) for _ in range(1000)]",
    "flush": "print('text', flush=True)",
    "rich": "Console().print('text')",
    "exit": "print('text'); sys.exit(0)",
    "bytes": "sys.stdout.buffer.write(b'text')",
}


def ending(
    body: str, redirections: str = "", before: str = "", options: tuple[str, ...] = ()
) -> tuple[int, str, str]:
    """The exit code of a command, and what it printed to stdout and stderr."""
    code = COMMAND.format(body=f"    {body}", before=before)
    with hangups_reach_children():
        process = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, *options, "-c", code],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=60,
        )
    return process.returncode, process.stdout, process.stderr


def piped_to_nobody(body: str, *options: str) -> tuple[int, str]:
    """The exit code and the stderr of a command whose reader has gone before it prints."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, *options, "-c", COMMAND.format(body=f"    {body}", before="")],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    os.close(writer)
    return process.returncode, process.stderr


@pytest.mark.parametrize("name", PRINTS)
def test_a_command_whose_reader_has_gone_ends_quietly_with_141(name: str):
    assert piped_to_nobody(PRINTS[name]) == (141, "")


def test_a_command_whose_result_is_in_files_does_not_mind():
    body = "print('text', flush=True); print('more'); accept_lost_output()"
    assert piped_to_nobody(body) == (0, "")
    assert piped_to_nobody(body, "-u") == (0, "")


@needs_full
def test_a_result_that_cannot_be_written_is_a_failure():
    message = "error: the output could not be written: the disk is full\n"
    assert ending(PRINTS["rich"], ">/dev/full") == (1, "", message)
    assert ending(PRINTS["much"], ">/dev/full", options=("-u",)) == (1, "", message)
    assert ending("print('text'); accept_lost_output()", ">/dev/full") == (0, "", "")
    # What is printed to stderr is no result.
    assert ending("print('text'); print('x', file=sys.stderr)", "2>/dev/full") == (0, "text\n", "")


def test_streams_that_are_closed_from_the_start_are_not_given_to_other_files(tmp_path: Path):
    body = f"f = open({str(tmp_path / 'file')!r}, 'w'); print(f.fileno(), file=sys.stderr)"
    code, out, err = ending(body, ">&- <&-")
    assert (code, out) == (0, "")
    assert int(err) > 2
    assert ending("print('text')", ">&-") == (
        1,
        "",
        "error: the output could not be written: Bad file descriptor\n",
    )
    assert ending("print('text'); sys.stderr.write('x')", "2>&-") == (0, "text\n", "")


def test_what_can_be_written_arrives_whole_and_as_it_was_encoded():
    text = "ä" * 100_000
    before = "sys.stdout.reconfigure(encoding='latin-1', errors='strict')"
    body = "print('\\xe4' * 100_000, sys.stdout.encoding, sys.stdout.line_buffering)"
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(body=f"    {body}", before=before)],
        stdout=writer,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    os.set_blocking(writer, False)  # as another program with the same pipe may do
    os.close(writer)
    with open(reader, encoding="latin-1") as file:
        time.sleep(0.5)
        assert file.read() == f"{text} latin-1 False\n"
    assert process.wait() == 0


# --- Streams


class Failing(io.StringIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number: int | None = number

    def write(self, text: str) -> int:
        if self.number is not None:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_a_console_of_a_users_program_goes_on_after_an_error(number: int):
    stream = Failing(number)
    console = Console(file=ForgivingText(stream))  # type: ignore[arg-type]
    console.print("lost")
    stream.number = None
    console.print("written")
    assert stream.getvalue().endswith("written\n")


def test_a_users_program_is_not_troubled_again_by_a_pipe_that_was_closed():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        text = ForgivingText(stream)
        assert (text.isatty(), text.fileno(), text.encoding) == (False, writer, stream.encoding)
        text.write("lost")
        text.flush()
        stream.write("lost, too")


@needs_full
def test_a_log_goes_on_after_an_error(tmp_path: Path):
    log = log_file(tmp_path / "log")
    log.write("one\n")
    full, kept = os.open(FULL, os.O_WRONLY), os.dup(log.fileno())
    os.dup2(full, log.fileno())
    log.write("two\n")
    os.dup2(kept, log.fileno())
    log.write("three\n")
    assert (tmp_path / "log").read_text() == "one\nthree\n"
    output: Any = log.buffer.raw  # type: ignore[attr-defined]
    assert isinstance(output, Output)
    assert output.lost is not None
    assert output.lost.errno == errno.ENOSPC
    log.close()
    os.close(full)
    os.close(kept)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EIO])
def test_a_fault_of_the_system_that_nothing_expected_is_one_line(number: int):
    reason = "the disk is full" if number == errno.ENOSPC else os.strerror(number)
    fault = rf"raise OSError({number}, os.strerror({number}), 'runs/caf\udce9')"
    assert ending(fault) == (1, "", rf"error: runs/caf\xe9: {reason}" + "\n")


# --- Signals


@pytest.mark.parametrize("number", [n for n in SIGNALS if n != signal.SIGINT])
def test_a_signal_ends_a_command(number: signal.Signals):
    kill = f"os.kill(os.getpid(), signal.{number.name}); print('goes on')"
    assert ending(kill) == (128 + number, "", "")


def test_signals_that_a_command_was_started_to_ignore_stay_ignored():
    numbers = [int(number) for number in SIGNALS if number != signal.SIGINT]
    ignore = f"[signal.signal(number, signal.SIG_IGN) for number in {numbers}]"
    kill = f"[os.kill(os.getpid(), number) for number in {numbers}]; print('goes on')"
    assert ending(kill, before=ignore) == (0, "goes on\n", "")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_training_notes_every_signal_that_it_does_not_ignore(number: signal.Signals):
    def handler(number: int, frame: Any) -> None:
        raise Interrupted(number)

    before = signal.signal(number, handler)
    try:
        with Interruption() as interruption:
            signal.raise_signal(number)
            assert interruption
            assert interruption.signal == number
        assert signal.getsignal(number) is handler
        signal.signal(number, signal.SIG_IGN)
        with Interruption() as interruption:
            signal.raise_signal(number)
            assert bool(interruption) == (number == signal.SIGINT)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


# --- Trainings


def test_a_training_goes_on_when_its_reader_has_gone(experiment, undisturbed, tmp_path):
    folder = tmp_path / "run"
    process = start_interpreter(experiment, "--run-dir", folder)
    assert process.stdout is not None
    assert process.stderr is not None
    first = [process.stdout.readline() for _ in range(2)]  # as `| head -2` does
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert [line.split()[1] for line in first] == ["7/40", "14/40"]
    assert_same(folder, undisturbed)


def test_a_training_is_saved_when_its_terminal_is_closed(experiment, undisturbed, tmp_path):
    folder = tmp_path / "run"
    keyboard, screen = pty.openpty()
    process = start_interpreter(
        experiment,
        "--run-dir",
        folder,
        patch="import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)",
        stdin=screen,
        stdout=screen,
        stderr=screen,
        start_new_session=True,
    )
    os.close(screen)
    printed = b""
    while b" 7/40" not in printed:
        printed += os.read(keyboard, 1000)
    os.close(keyboard)  # the system sends SIGHUP, and printing fails from now on
    assert process.wait(timeout=60) == 129
    assert not (folder / "result.json").exists()
    (newest, *_) = sorted((int(p.name) for p in (folder / "checkpoints").iterdir()), reverse=True)
    out, _ = run(experiment, "--run-dir", folder)
    assert f"continuing from step {newest} of 40" in out
    assert newest >= 7
    assert_same(folder, undisturbed)


@pytest.mark.slow
@needs_full
def test_a_training_needs_no_output(experiment, undisturbed, tmp_path):
    with FULL.open("w") as full:
        process = start_interpreter(
            experiment, "--run-dir", tmp_path / "full", stdout=full, stderr=full
        )
        assert process.wait(timeout=120) == 0
        assert_same(tmp_path / "full", undisturbed)
        process = start_interpreter(undisturbed, "--json", script="evaluate", stdout=full)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert err == "error: the output could not be written: the disk is full\n"
    script = ROOT / "scripts" / "train.py"
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, script, experiment]
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    folder = tmp_path / "closed"
    subprocess.run([*closed, "--run-dir", folder], check=True, env=environment, timeout=120)
    assert_same(folder, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_other_signals_save_too(experiment, undisturbed, tmp_path, number):
    folder = tmp_path / "run"
    process = start_interpreter(experiment, "--run-dir", folder)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    run(experiment, "--run-dir", folder)
    assert_same(folder, undisturbed)


@pytest.mark.slow
def test_the_soft_limit_of_processor_time_saves_first(experiment, undisturbed, tmp_path):
    folder = tmp_path / "run"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_CPU, ({}, 600))"
    process = start(experiment, "--run-dir", folder, "--steps", 100_000, patch=limit.format(20))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGXCPU, err
    assert err.startswith("stopped at step ")
    assert (folder / "checkpoints" / err.split()[3]).is_dir()
