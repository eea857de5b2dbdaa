"""A page in headless Chromium: served from folders on this machine, asked by JavaScript, clicked on, and seen.

Speaks Chromium's DevTools protocol over two pipes (``--remote-debugging-pipe``), so nothing beside Chromium is needed.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--remote-debugging-pipe",
)  # fmt: skip

#: Chromium reads from descriptor 3 and writes to 4.
LAUNCH = """
import fcntl, os, sys
given = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for number, descriptor in zip(given, (3, 4)):
    os.dup2(number, descriptor)
    os.close(number)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class BrowserError(Exception):
    """Chromium, or what runs in it, did not do what it was asked."""


def find() -> str | None:
    """The program; None if there is none. ``LMONNX_CHROMIUM`` names another one."""
    return os.environ.get("LMONNX_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def version(program: str) -> str:
    """Of the browser, such as ``"150.0.7871.100"``."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else said.strip()


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files of several folders, each below a name of its own."""

    folders: Mapping[str, Path]

    def translate_path(self, path: str) -> str:
        parts = urllib.parse.unquote(path.partition("?")[0]).strip("/").split("/")
        place = self.folders.get(parts[0])
        if place is None or ".." in parts:
            return os.devnull + "/nothing"
        return str(place.joinpath(*parts[1:]))

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextlib.contextmanager
def serving(folders: Mapping[str, Path]) -> Iterator[str]:
    """The address of a server of folders, or of files, by the first part of the path."""
    handler = type("Handler", (_Handler,), {"folders": dict(folders)})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory="."))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Page:
    """One page; a context manager that ends the browser.

    Args:
        program: Chromium.
        size: width and height of the window, in pixels.
        timeout: seconds that an answer may take.
    """

    def __init__(self, program: str, size: tuple[int, int] = (1000, 800), timeout: float = 120) -> None:
        self._timeout, self._count, self._rest = timeout, 0, b""
        self._profile = tempfile.mkdtemp(prefix="lmonnx-browser-")
        to_read, self._out = os.pipe()
        self._in, to_write = os.pipe()
        command = [program, *FLAGS, f"--user-data-dir={self._profile}", f"--window-size={size[0]},{size[1]}"]
        launch = [sys.executable, "-c", LAUNCH, str(to_read), str(to_write), *command, "about:blank"]
        self._process = subprocess.Popen(
            launch, pass_fds=(to_read, to_write), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        try:
            self._session = ""
            targets = self.call("Target.getTargets")["targetInfos"]
            page = next(target["targetId"] for target in targets if target["type"] == "page")
            self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser and removes its profile."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for descriptor in (self._in, self._out):
            os.close(descriptor)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol.

        Raises:
            BrowserError: if it fails, or takes longer than the timeout.
        """
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self._timeout
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error'].get('message')}")
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._in, 1 << 20) if ready else b""
            if not part:
                raise BrowserError("the browser ended" if ready else f"no answer within {self._timeout:.0f} seconds")
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def open(self, address: str) -> None:
        """Goes to an address and waits until everything that the page names is there."""
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """What an expression of JavaScript gives; a promise is waited for.

        Raises:
            BrowserError: if it throws.
        """
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description") or details["text"])
        return result["result"].get("value")

    def until(self, expression: str) -> None:
        """Waits until an expression is true.

        Raises:
            BrowserError: if that takes longer than the timeout.
        """
        deadline = time.monotonic() + self._timeout
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                raise BrowserError(f"not within {self._timeout:.0f} seconds: {expression}")
            time.sleep(0.05)

    def choose(self, selector: str, file: Path) -> None:
        """Puts a file into an input of the page."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file.resolve())])

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Presses the mouse, moves, and lets go; in pixels of the page."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
