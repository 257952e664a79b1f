"""A headless Chromium, driven over the DevTools protocol through two pipes: no port, no package."""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FETCHED = Path(__file__).resolve().parents[2] / "build/chromium/chromium"
_SECONDS = 30.0  # for any answer: far more than it takes
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--disable-dev-shm-usage", "--force-color-profile=srgb", "--force-device-scale-factor=1", "--mute-audio",
)  # fmt: skip


def find() -> str | None:
    """The browser: TRIVEC_CHROMIUM, or on PATH, or where scripts/chromium put it."""
    named = os.environ.get("TRIVEC_CHROMIUM")
    if named:
        return shutil.which(named) or named
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or (str(FETCHED) if FETCHED.is_file() else None)


class Place(NamedTuple):
    """A pixel of a page."""

    x: float
    y: float


class Chromium:
    """A browser process; leave it with `with`."""

    def __init__(self, executable: str) -> None:
        self._home = tempfile.mkdtemp(prefix="trivec-chromium-")
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # The browser reads from descriptor 3 and writes to 4; a shell gives its pipes these numbers.
        command = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", executable, *_FLAGS, f"--user-data-dir={self._home}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []
        """What pages reported on their own."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.send("Browser.close")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the session that it leads: its own children
        self._process.wait(5)
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._home, ignore_errors=True)

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        deadline = time.monotonic() + _SECONDS
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._in], [], [], left)[0]:
                raise TimeoutError(f"Chromium did not answer within {_SECONDS} s.")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise OSError(f"Chromium ended, status {self._process.poll()}.")
            self._buffer += data
        first, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message

    def open(
        self,
        place: Path | str,
        *,
        width: int = 1200,
        height: int = 800,
        dark: bool = False,
        ready: str = "globalThis.trivecMap !== undefined",
    ) -> "Page":
        """A file or an address in a tab of its own, when `ready` is true."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        page.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        page.dark(dark)
        page.send("Page.navigate", url=place if isinstance(place, str) else place.resolve().as_uri())
        page.wait(ready)
        return page


class Page:
    """A tab."""

    def __init__(self, browser: Chromium, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the tab."""
        return self._browser.send(method, self._session, **parameters)

    def close(self) -> None:
        """Close the tab."""
        self._browser.send("Target.closeTarget", targetId=self._target)

    def events(self, *methods: str) -> list[dict[str, Any]]:
        """The parameters of the events of these names so far."""
        ours = (event for event in self._browser.events if event.get("sessionId") == self._session)
        return [event["params"] for event in ours if event["method"] in methods]

    def take(self, *methods: str) -> list[dict[str, Any]]:
        """The same, and forget them."""
        found = self.events(*methods)
        kept = [e for e in self._browser.events if e.get("sessionId") != self._session or e["method"] not in methods]
        self._browser.events[:] = kept
        return found

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript; of a promise what it comes to."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + _SECONDS
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"never true: {condition}")
            time.sleep(0.02)

    def settle(self) -> None:
        """Until what was asked for is drawn."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def position(self, index: int) -> Place:
        """Where a text's dot is."""
        found = self.evaluate(f"trivecMap.position({index})")
        return Place(found["x"], found["y"])

    def text(self, selector: str) -> str:
        """What an element shows."""
        found = self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")
        assert isinstance(found, str)
        return found

    def visible(self, selector: str) -> bool:
        """Whether an element has a box."""
        return bool(self.evaluate(f"document.querySelector({json.dumps(selector)}).getClientRects().length"))

    def mouse(self, kind: str, place: Place, **parameters: Any) -> None:
        """An event of the mouse: mouseMoved, mousePressed, mouseReleased, mouseWheel."""
        self.send("Input.dispatchMouseEvent", type=kind, x=place.x, y=place.y, **parameters)

    def hover(self, place: Place) -> None:
        """Move the mouse."""
        self.mouse("mouseMoved", place)

    def click(self, place: Place) -> None:
        """Move the mouse, press and release."""
        self.hover(place)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, place, button="left", clickCount=1)

    def key(self, name: str, text: str = "", modifiers: int = 0) -> None:
        """Press a key and release it; modifiers are 2 for Control, 8 for Shift."""
        codes = {"Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39, "Tab": 9}
        code = {"windowsVirtualKeyCode": codes[name]} if name in codes else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=name, text=text, modifiers=modifiers, **code)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=name, modifiers=modifiers, **code)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.send("Input.insertText", text=text)

    def dark(self, on: bool) -> None:
        """What prefers-color-scheme says."""
        value = "dark" if on else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def screenshot(self) -> bytes:
        """A PNG of what is seen."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
