"""A small client for a headless Chromium: one page at a time, over the pipe of the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in _NAMES if (found := shutil.which(name))), None)

_PATIENCE = 60.0  # seconds for an answer
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-sync",
    "--disable-extensions", "--hide-scrollbars=false", "--force-color-profile=srgb", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """A Chromium with one page; everything that the page logged, threw, asked for or was refused is in `events`."""

    def __init__(self, writer: int, reader: int) -> None:
        self._writer, self._reader = writer, reader
        self._rest, self._number, self._session = b"", 0, ""
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; events that come meanwhile are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            part = os.read(self._reader, 1 << 20)
            if not part or time.monotonic() > end:
                raise RuntimeError("Chromium is gone")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message = dict(json.loads(line))
        if "method" in message:
            self.events.append((message["method"], message["params"]))
        return message

    def open(self, file: Path, width: int, *, height: int = 900, dark: bool = False, script: bool = True) -> None:
        """Load a file at a width and wait until it stands."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Emulation.setScriptExecutionDisabled", value=not script)
        self.events.clear()
        self.send("Page.navigate", url=file.resolve().as_uri())
        end = time.monotonic() + _PATIENCE
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            if time.monotonic() > end:
                raise RuntimeError(f"{file} does not load")
            self._next()

    def value(self, expression: str) -> Any:
        """Return what an expression gives in the page, as plain data."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def count(self, selector: str) -> int:
        """Return how many elements there are, without script in the page."""
        return len(self._nodes(selector))

    def seen(self, selector: str) -> int:
        """Return how many elements take up room, without script in the page."""
        boxes = 0
        for node in self._nodes(selector):
            try:
                self.send("DOM.getBoxModel", nodeId=node)
            except RuntimeError:  # what is not laid out has no box
                continue
            boxes += 1
        return boxes

    def _nodes(self, selector: str) -> list[int]:
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        return list(self.send("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"])

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, target: Path, *, whole: bool = True) -> None:
        """Write what is seen, or the whole page, as png."""
        options: dict[str, Any] = {"captureBeyondViewport": whole}
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        target.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png", **options)["data"]))

    def complaints(self) -> list[str]:
        """Return what the page logged, threw or was refused since it was opened."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
        return [f"{method}: {params}" for method, params in self.events if method in kinds]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened, its own among them."""
        return [params["request"]["url"] for method, params in self.events if method == "Network.requestWillBeSent"]


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a Chromium with a profile of its own and end it, profile and all."""
    assert CHROMIUM is not None
    to_child, from_child = os.pipe(), os.pipe()

    def connect() -> None:
        # Read both out of the way first: one of them may itself be 3 or 4.
        read, write = os.dup(to_child[0]), os.dup(from_child[1])
        high = os.dup2(read, 60), os.dup2(write, 61)
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            command, close_fds=False, preexec_fn=connect, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_child[0])
        os.close(from_child[1])
        try:
            yield Browser(to_child[1], from_child[0])
        finally:
            os.close(to_child[1])  # the browser ends when its pipe does
            os.close(from_child[0])
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
