"""Notebooks: progress in one output that changes in place, and an interrupt that saves."""

import os
import re
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT
from rich.console import Console
from whole_runs import EXPERIMENT, assert_same

from resflax.terminal.display import Display
from resflax.terminal.notebook import LINES


class Cell:
    """A stand-in for IPython's `display`: what a notebook's cell shows."""

    def __init__(self):
        self.outputs, self.changes = [], 0

    def display(self, shown, *, display_id):
        assert display_id is True
        number = len(self.outputs)
        self.outputs.append(self.text(shown))
        cell = self

        class Handle:
            def update(self, shown):
                cell.outputs[number] = cell.text(shown)
                cell.changes += 1

        return Handle()

    def text(self, shown):
        bundle = shown._repr_mimebundle_(include=(), exclude=())
        assert bundle["text/html"].startswith("<pre")
        return re.sub(r"\x1b\[[\d;]*m", "", bundle["text/plain"])


@pytest.fixture
def cell(monkeypatch):
    module, cell = ModuleType("IPython.display"), Cell()
    monkeypatch.setattr(module, "display", cell.display, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return cell


def test_lines_and_bars_share_one_output(cell, capsys):
    with Display(Console(force_jupyter=True)) as display:
        for number in range(1000):
            display.say(f"line {number}")
        with display.bar("training [1]", 50, 7) as bar:
            (output,) = cell.outputs
            assert output.splitlines()[:-1] == [f"line {n}" for n in range(1000 - LINES, 1000)]
            assert output.splitlines()[-1].startswith("training [1] ")
            assert " 7/50 " in output
            before = cell.changes
            for done in range(8, 50):
                bar.set(done)
            assert cell.changes <= before + 2  # a moment ago it was drawn
            time.sleep(0.3)
            bar.set(50, note="9 images/s")
            (output,) = cell.outputs
            assert " 50/50 9 images/s" in output
    assert cell.outputs == ["\n".join(f"line {n}" for n in range(1000 - LINES, 1000)) + "\n"]
    assert capsys.readouterr().out == ""


def test_a_display_with_nothing_to_show_makes_no_output(cell):
    with Display(Console(force_jupyter=True)):
        pass
    with Display(Console(force_jupyter=True, quiet=True)) as display:
        display.say("not the first host")
    assert cell.outputs == []


class Kernel:
    """A kernel process, in which cells are run as a notebook does."""

    def __init__(self, folder):
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import KernelManager

        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        }
        only_this_python = KernelSpecManager(kernel_dirs=[])
        self.manager = KernelManager(kernel_spec_manager=only_this_python)
        self.manager.start_kernel(cwd=str(folder), env=environment)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code, interrupt_after=None):
        """Runs a cell; returns its printed text, its displays in the order made, and its error.

        The kernel is interrupted when a display shows the text `interrupt_after`.
        """
        printed, displays, error = "", {}, None
        request = self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed += content["text"]
            elif kind in ("display_data", "update_display_data"):
                displays[content["transient"]["display_id"]] = content["data"]["text/plain"]
                if interrupt_after is not None and interrupt_after in str(displays):
                    self.manager.interrupt_kernel()
                    interrupt_after = None
            elif kind == "error":
                error = content["ename"], content["evalue"]
            elif kind == "status" and content["execution_state"] == "idle":
                return printed, list(displays.values()), error

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    kernel = Kernel(tmp_path_factory.mktemp("notebook"))
    yield kernel
    kernel.close()


@pytest.mark.filterwarnings("default")  # those of the notebook's client are not ours
def test_an_interrupted_cell_saves_and_continues_when_it_is_run_again(kernel, undisturbed):
    slow = """
import time
from resflax.runs.loop import TrainingLoop
advance = TrainingLoop._advance
def slow(*arguments):
    time.sleep(0.2)
    return advance(*arguments)
TrainingLoop._advance = slow
"""
    assert kernel.run("import resflax" + EXPERIMENT + slow) == ("", [], None)
    train = "result = resflax.train(experiment, 'run')"
    printed, displays, error = kernel.run(train, interrupt_after="step 14/40")
    assert error is not None
    name, text = error
    assert name == "KeyboardInterrupt"
    match = re.fullmatch(r"stopped at step (\d+) of 40 and saved; .*", text)
    assert match is not None, text
    step = int(match[1])
    assert 14 <= step < 40
    assert len(displays) == 1
    printed_again, displays, error = kernel.run(train)
    assert error is None
    (output,) = displays
    assert f"continuing from step {step} of 40" in output
    assert "step 40/40  test" in output
    assert printed + printed_again == ""

    printed, _, error = kernel.run("print(result.path.absolute())")
    assert error is None
    assert_same(Path(printed.strip()), undisturbed)
