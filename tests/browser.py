"""A page in a browser without a window, as tests need it: Chromium, spoken to through pipes.

The protocol is Chrome's own (https://chromedevtools.github.io/devtools-protocol), so that neither a
driver nor a library is needed. Messages are JSON, each with a zero byte at its end.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_browser() -> str | None:
    """The path of a Chromium; None if there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class PageLeftError(Exception):
    """A page was left for another one before it could answer."""


class Browser:
    """A browser with one page, as a context manager."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="resflax-browser-")
        commands, self._to = (_high(end) for end in os.pipe())
        self._from, answers = (_high(end) for end in os.pipe())
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe",
            f"--user-data-dir={self._folder.name}", "about:blank",
        ]  # fmt: skip
        self._pid = os.posix_spawn(
            program,
            [program, *options],
            os.environ | {"HOME": self._folder.name},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, commands, 3),  # it reads from 3 and writes to 4
                (os.POSIX_SPAWN_DUP2, answers, 4),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
        )
        os.close(commands)
        os.close(answers)
        self._unread, self._count, self._session = b"", 0, ""
        (target,) = (
            target["targetId"]
            for target in self._ask("Target.getTargets")["targetInfos"]
            if target["type"] == "page"
        )
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._ask("Page.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._to)  # it ends, because nobody can command it any more
        os.close(self._from)
        for _ in range(100):
            if os.waitpid(self._pid, os.WNOHANG)[0]:
                break
            time.sleep(0.05)
        else:
            os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        for _ in range(100):  # its processes may still write to the folder
            shutil.rmtree(self._folder.name, ignore_errors=True)
            if not os.path.exists(self._folder.name):
                break
            time.sleep(0.05)
        self._folder.cleanup()

    def show(
        self, page: Path, *, width: int = 1280, scheme: str = "light", media: str = ""
    ) -> None:
        """Loads a page, and waits until it is there.

        Args:
          page: the HTML file.
          width: the width of the window in CSS pixels; the page is as on a phone if it is below
            600.
          scheme: the colours that the reader prefers, `light` or `dark`.
          media: `print`, or "" for a screen.
        """
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=800, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        preferred = [{"name": "prefers-color-scheme", "value": scheme}]
        self._ask("Emulation.setEmulatedMedia", media=media, features=preferred)
        self._ask("Page.navigate", url=page.absolute().as_uri())
        self.wait_until("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; of a promise, its result."""
        answer = self._ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_until(self, condition: str, seconds: float = 30.0) -> None:
        """Waits until a JavaScript expression is true in the page."""
        end = time.monotonic() + seconds
        while not self._is_true(condition):
            assert time.monotonic() < end, f"still not true: {condition}"
            time.sleep(0.02)

    def _is_true(self, condition: str) -> bool:
        """Whether a JavaScript expression is true; not while another page is being loaded."""
        try:
            return bool(self.evaluate(condition))
        except PageLeftError:
            return False

    def press(self, key: str) -> None:
        """Presses and releases a key: `Tab`, `Enter`, or a character."""
        code, text = {"Tab": (9, ""), "Enter": (13, "\r")}.get(key, (0, key))
        for kind in ("keyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent",
                type=kind, key=key, windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )  # fmt: skip

    def screenshot(self, *, whole: bool = True) -> bytes:
        """A PNG of the page."""
        return self._data("Page.captureScreenshot", captureBeyondViewport=whole)

    def to_pdf(self) -> bytes:
        """The page as a PDF, as it is printed."""
        return self._data("Page.printToPDF", preferCSSPageSize=True)

    def _data(self, method: str, **parameters: Any) -> bytes:
        return base64.b64decode(self._ask(method, **parameters)["data"])

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command, and returns the answer to it."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                fault = answer.get("error", {}).get("message")
                if fault == "Inspected target navigated or closed":
                    raise PageLeftError
                assert fault is None, (method, fault)
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        """The next message of the browser."""
        while b"\0" not in self._unread:
            assert select.select([self._from], [], [], 60)[0], "the browser does not answer"
            more = os.read(self._from, 2**20)
            assert more, "the browser has ended"
            self._unread += more
        message, _, self._unread = self._unread.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


def _high(descriptor: int) -> int:
    """The same file under a number from 10 on, so that it is neither 3 nor 4."""
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return high
