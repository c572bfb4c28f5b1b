"""Forks processes that run scripts, and have all modules that these scripts import.

usage: python command_server.py SOCKET

A client connects to SOCKET and sends one line, a JSON object of what to run (`run`). It gets the
number of the process at once, and the exit code at the end, each on a line. The server ends when
its standard input does.
"""

import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from typing import Any

MODULES = """
resflax.commands.train resflax.runs.session resflax.evaluation.evaluate resflax.evaluation.predict
resflax.runs.pretrained resflax.sweep.launcher resflax.report.build tensorflow_datasets grain
orbax.checkpoint optuna submitit matplotlib.pyplot
"""


def next_request(path: str) -> dict[str, Any]:
    """Returns, in a new process for each, what clients ask for; never returns in the server."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for commands
    while True:
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            request = json.loads(connection.makefile(encoding="utf-8").readline())
            command = os.fork()
            if command == 0:
                connection.close()
                assert isinstance(request, dict)
                return request
            connection.sendall(f"{command}\n".encode())
            code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
            connection.sendall(f"{code}\n".encode())
            os._exit(0)
        connection.close()


def run(
    script: str,
    arguments: list[str],
    environment: dict[str, str],
    folder: str,
    output: str,
    patch: str,
) -> None:
    """Runs a script with its arguments, as `python SCRIPT ARGUMENTS` does, to its end.

    Args:
      script: the path of the script.
      arguments: what follows it on the command line.
      environment: all variables.
      folder: the working folder.
      output: a folder for the files `stdout` and `stderr`.
      patch: statements to run before the script.
    """
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, name in enumerate((os.devnull, f"{output}/stdout", f"{output}/stderr")):
        opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = [script, *arguments]
    sys.orig_argv = [sys.executable, script, *arguments]
    sys.path[0] = os.path.dirname(script)
    exec(patch, {})
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    for module in MODULES.split():
        importlib.import_module(module)
    run(**next_request(sys.argv[1]))
