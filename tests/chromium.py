"""A headless Chromium that tests drive through its DevTools protocol; it keeps what went wrong and what was asked of the network."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-port=0 --window-size=1300,1200"
).split()
PATIENCE_SECONDS = 60


class PageLeftError(AssertionError):
    """The page was left before it had answered."""


class Tab:
    """One page. `problems` are console errors and exceptions, `requests` the URLs that were asked for."""

    def __init__(self, socket: Connection):
        self._socket = socket
        self._calls = 0
        self.problems: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to a page and wait until it is there."""
        self._call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def look(self, *, width: int, dark: bool) -> None:
        """Show pages as a window or phone of this width does, in the light or in the dark."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """The value of an expression of the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def leave(self, script: str) -> None:
        """Run what leads to another page, after this call was answered: a page that is left answers no more."""
        self.run(f"void setTimeout(() => {{ {script} }})")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true, of whatever page is there by then."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._holds(condition):
            assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {condition}"
            time.sleep(0.1)

    def _holds(self, condition: str) -> bool:
        try:
            return self.run(f"Boolean({condition})")
        except PageLeftError:
            return False

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode={"ArrowRight": 39, "ArrowLeft": 37}.get(key, 0),
            )

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE_SECONDS))
            if message.get("id") == self._calls:
                if "navigated or closed" in message.get("error", {}).get("message", ""):
                    raise PageLeftError(message)
                assert "error" not in message, message
                return message["result"]
            self._note(message["method"], message["params"])

    def _note(self, method: str, facts: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif method == "Runtime.exceptionThrown" or (method == "Runtime.consoleAPICalled" and facts["type"] == "error"):
            self.problems.append(json.dumps(facts))
        elif method == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.problems.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")


@contextmanager
def open_tab(folder: Path) -> Iterator[Tab]:
    """A tab of a fresh Chromium whose profile lies in `folder`."""
    program = shutil.which("chromium")
    assert program, "needs Chromium: apt-get install chromium"
    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{await_port(folder, process)}/json") as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.kill()
        process.wait()


def await_port(folder: Path, process: subprocess.Popen) -> int:
    """The port on which Chromium listens."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        path = folder / "DevToolsActivePort"
        if path.is_file() and (lines := path.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.1)
    raise RuntimeError("Chromium did not start")
