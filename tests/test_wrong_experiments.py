"""More than a thousand wrong experiment files and command lines: each is valid, or one line.

The same functions read them as in the scripts. The seed is fixed, so a failure comes back.
"""

import contextlib
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from resflax.commands import train
from resflax.errors import UsageError
from resflax.experiment import from_json, to_json
from resflax.runs.run_folder import RunFolder, Status, default_run_path
from resflax.terminal.command import message_line
from resflax.terminal.options import parse_with_experiment

FILES = sorted((Path(__file__).parents[1] / "experiments").rglob("*.py"))
FILE_MUTATIONS, COMMAND_MUTATIONS, PROCESSES = 700, 500, 12

# ruff: noqa: E501
# Things a hand can put where something else belongs.
VALUES = (
    "0", "-1", "1", "2", "3.5", "1e400", "-1e308", "nan", "inf", "1e-320", "10**30", "2**31",
    "9" * 400, "9" * 5000, "True", "None", "[]", "()", "(1, 2)", "(0.5, 0.1)", "{}", "''", "'none'",
    "'x' * 10**6", '"zero_pad"', "'\\ud800'", "'\\0'", "'größe'", "'深い'", "'\\u202e'", "b'x'",
    "object()", "lambda: 0", "ResNet", "ResNet(20)", "SGD()", "Cosine()", "Digits()", "DenseNet(40, 12)",
    "print", "1 / 0", "exit()", "...", "(i for i in ())", "1j", "float('nan')", "__import__('os')",
    "ResNet(depth=-4)", "DenseNet(10, 0)", "StepDecay(boundaries=(2, 1))", "open('/nowhere')",
)  # fmt: skip
WORDS = (
    "experiment", "Experiment", "name", "steps", "epochs", "depth", "shortcut", "optimizer", "modle",
    "learning_rate", "learningrate", "batch_size", "Name", "größe", "import", "class", "def", "=",
    "==", ",", "(", ")", "[", ":", '"', "'", "\\", "\t", "#", ";", "\0", "\ufeff", "\x0c", "π", "🙂",
)  # fmt: skip
FIELDS = (
    "name", "model.depth", "model.shortcut", "model.block", "model.layout", "model.groups",
    "model.order", "model.stem", "model.zero-init-last-scale", "model.squeeze-excitation",
    "model.stochastic_depth", "model.growth-rate", "data.name", "data.data-dir", "data.crop-padding",
    "data.validation", "data.flip", "optimizer.learning-rate", "optimizer.learning_rate",
    "optimizer.momentum", "optimizer.nesterov", "schedule.boundaries", "schedule.factor",
    "schedule.warmup-steps", "schedule.warmup", "batch-size", "steps", "epochs", "seed", "precision",
    "parallel", "batch-norm", "log-every", "evaluate-every", "checkpoint-every", "initialize-from",
    "on-nonfinite", "run-dir", "from", "modle.depth", "model", "model.", "model.depth.x", "data",
    "größe", "help-me", "", "-", "optimizer.momentum.", "Model.Depth", "type",
)  # fmt: skip
TEXTS = (
    "0", "1", "-1", "3", "20", "56", "0.5", "1e400", "nan", "inf", "-inf", "1e-320", "9" * 400,
    "9" * 5000, "2147483648", "True", "False", "true", "None", "none", "zero_pad", "post", "pmap",
    "", " ", "größe", "深い", "\u202e", "🙂", "\udcff", "--", "-", "--seed", "a b", "x" * 10_000,
    "../..", "/", "a/b", ".", "1,2", "(1, 2)", "[1]", "{}", "0x10", "1_000", "١٢", "+5", "1.0",
    "linear", "bfloat16", "rollback", "%s", "{0}", "\n", "[red]", "$(exit)",
)  # fmt: skip


def mutated_file(rng):
    """The text of an experiment with one to three mistakes."""
    text = rng.choice(FILES).read_text()
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = rng.choice(MISTAKES)(rng, text)
    return text


def _place(rng, text):
    return rng.randrange(len(text) + 1)


def _line(rng, text, change):
    lines = text.splitlines(keepends=True) or [""]
    number = rng.randrange(len(lines))
    lines[number] = change(lines[number])
    return "".join(lines)


def _value(rng, text):
    def change(line):
        head, equals, tail = line.partition("=")
        if not equals:
            return line
        end = ")," if tail.rstrip().endswith(")),") else ","
        return f"{head}={rng.choice(VALUES)}{end}\n"

    return _line(rng, text, change)


def _number(rng, text):
    digits = [i for i, c in enumerate(text) if c.isdigit()]
    if not digits:
        return text
    place = rng.choice(digits)
    return text[:place] + rng.choice(VALUES) + text[place + 1 :]


def _insert(rng, text):
    place = _place(rng, text)
    return text[:place] + rng.choice(WORDS) + text[place:]


def _cut(rng, text):
    one, other = sorted((_place(rng, text), _place(rng, text)))
    return text[:one] + text[other:]


def _rename(rng, text):
    word = rng.choice([w for w in WORDS if w.isidentifier() and w in text] or ["experiment"])
    return text.replace(word, rng.choice(WORDS), 1)


MISTAKES = (
    _value,
    _value,
    _value,
    _number,
    _insert,
    _cut,
    _rename,
    lambda rng, text: _line(rng, text, lambda line: ""),
    lambda rng, text: _line(rng, text, lambda line: line * 2),
    lambda rng, text: text[: _place(rng, text)],
)


def mutated_command(rng):
    """One to three overrides, most of them wrong."""
    arguments: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        dashes = rng.choice(("--", "--", "--", "--", "-", "—"))
        option, text = dashes + rng.choice(FIELDS), rng.choice(TEXTS)
        form = rng.random()
        arguments += [f"{option}={text}"] if form < 0.2 else [option, text][: 1 + (form < 0.9)]
    return arguments


def read(arguments):
    """What train.py does before it loads data; the error, or None if there is none to be made."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            options = parse_with_experiment(train.Options, arguments, usage="")
            experiment = options.experiment.resolved()
            assert from_json(to_json(experiment)) == experiment
            path = Path(options.run_dir) if options.run_dir else default_run_path(experiment)
            assert RunFolder(path).status(experiment) is Status.NEW
    except UsageError as error:
        return str(error)
    except SystemExit:
        asked = bool({"-h", "--help"} & set(arguments))
        return None if asked else "it ended the program without a word"
    return None


def assert_one_line(said):
    line = message_line(said)
    assert line.isprintable() or not line.isascii(), line
    assert len(line) > 10, line
    assert "Traceback" not in line


@pytest.fixture
def empty(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert list(folder.iterdir()) == []


def test_experiment_files(empty):
    rng, refused = random.Random(1), 0
    path = empty.parent / "mutated.py"
    for _ in range(FILE_MUTATIONS):
        text = mutated_file(rng)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        said = read([str(path)])
        if said is not None:
            refused += 1
            assert_one_line(said)
    assert FILE_MUTATIONS // 2 < refused < FILE_MUTATIONS


def test_command_lines(empty):
    rng, refused = random.Random(2), 0
    for _ in range(COMMAND_MUTATIONS):
        said = read([str(rng.choice(FILES)), *mutated_command(rng)])
        if said is not None:
            refused += 1
            assert_one_line(said)
    assert COMMAND_MUTATIONS // 2 < refused < COMMAND_MUTATIONS


def test_in_processes_of_their_own(empty):
    """What is refused above is refused by the script: one line, exit 2, nothing written."""
    rng, tried = random.Random(3), 0
    script = Path(__file__).parents[1] / "scripts" / "train.py"
    path = empty.parent / "mutated.py"
    while tried < PROCESSES:
        if rng.random() < 0.5:
            path.write_bytes(mutated_file(rng).encode("utf-8", "surrogatepass"))
            arguments = [str(path)]
        else:
            arguments = [str(rng.choice(FILES)), *mutated_command(rng)]
        if read(arguments) is None or any("\0" in a for a in arguments):
            continue
        tried += 1
        done = subprocess.run(
            [sys.executable, str(script), *arguments],
            env=os.environ | {"PYTHONPATH": str(script.parents[1])},
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 2, (arguments, done.stderr)
        assert done.stdout == b"", arguments
        assert done.stderr.startswith(b"error: "), arguments
        assert done.stderr.count(b"\n") == 1, arguments
