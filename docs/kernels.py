"""Kernels that have imported libraries before a page asks for them, which takes five seconds.

A server imports them at the first request, and forks at each: a page has a process of its own, in
which nothing has been computed. Jupyter starts `python docs/kernels.py -f FILE` as it starts any
kernel (`_jupyter/kernels` says so), which asks the server for one.
"""

import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SOCKET = "EMJAX_KERNELS"
# What an import of emjax does not bring is not imported from emjax: a page that forgets to import
# `emjax.plot` must fail. None computes anything: JAX must not fork after it has.
LIBRARIES = (
    "ipykernel.kernelapp",
    "matplotlib_inline.backend_inline",
    "matplotlib.pyplot",
    "pandas",
    "sklearn.datasets",
    "numpyro",
    "emjax",
)


def start_server() -> None:
    """Start the server, which ends with this process, and have Jupyter ask it for kernels."""
    os.environ["JUPYTER_PATH"] = str(Path(__file__).resolve().with_name("_jupyter"))
    folder = tempfile.mkdtemp()
    os.environ[SOCKET] = str(Path(folder) / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.environ[SOCKET])
        listener.listen()
        subprocess.Popen(
            [sys.executable, __file__, "--serve", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )


def serve(listener: socket.socket) -> None:
    """Fork at every request, until whoever started the server is gone."""
    # kernels look whether their parent is still there
    os.environ["JPY_PARENT_PID"] = str(os.getpid())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        request, _ = listener.accept()
        for name in LIBRARIES:
            importlib.import_module(name)
        # kernels need not search for garbage in what was imported, nor often while they trace
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
        if os.fork() == 0:
            listener.close()
            be_kernel(request)
        request.close()
    shutil.rmtree(Path(os.environ[SOCKET]).parent)


def be_kernel(request: socket.socket) -> None:
    """Be the kernel that was asked for, for as long as the process that asked for it lives."""
    from ipykernel.kernelapp import launch_new_instance

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    folder, arguments = json.loads(request.makefile().readline())
    os.chdir(folder)
    threading.Thread(target=end_with, args=[request], daemon=True).start()
    launch_new_instance(arguments)
    sys.exit()


def end_with(request: socket.socket) -> None:
    """End this process when the other end of a request is closed."""
    request.recv(1)
    os._exit(1)


def ask(arguments: list[str]) -> None:
    """Ask the server for a kernel, and wait for its end, or for that of who started this process.

    Interrupts do not end it.
    """
    starter = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as request:
        request.connect(os.environ[SOCKET])
        request.sendall(json.dumps([os.getcwd(), arguments]).encode() + b"\n")
        while os.getppid() == starter and not select.select([request], [], [], 1)[0]:
            pass


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(socket.socket(fileno=int(sys.argv[2])))
    else:
        ask(sys.argv[1:])
