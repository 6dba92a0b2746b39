"""A real browser for tests of pages."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from PIL import Image

CHROMIUM = shutil.which("chromium")


class Browser:
    """Headless chromium on the DevTools protocol, over two pipes."""

    def __init__(self, profile: Path) -> None:
        to_read, self.write_to = os.pipe()
        self.read_from, to_write = os.pipe()
        flags = (
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions "
            f"--disable-background-networking --remote-debugging-pipe --user-data-dir={profile}"
        )
        command = f'exec "$0" {flags} about:blank 3<&{to_read} 4>&{to_write}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.buffer, self.calls, self.session = b"", 0, None
        self.problems: list[str] = []
        self.loaded = False
        self.known = ("file:", "data:")  # where requests may go
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.calls += 1
        message: dict[str, Any] = {"id": self.calls, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        while (answer := self.message()).get("id") != self.calls:
            self.event(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def message(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            assert select.select([self.read_from], [], [], 30)[0], "chromium says nothing"
            part = os.read(self.read_from, 1 << 20)
            assert part, "chromium went away"
            self.buffer += part
        first, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(first)

    def event(self, message: dict[str, Any]) -> None:
        """Every error, warning and foreign request is kept as a problem."""
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.problems.append(json.dumps(params))
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(self.known):
            self.problems.append(params["request"]["url"])
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(f"a dialog: {params['message']}")

    def open(self, url: str, ready: str, width: int = 1100, dark: bool = False) -> None:
        """A page, until an expression is true. Its requests may go to where it comes from."""
        self.problems = []
        self.known = ("file:", "data:", url.split("#")[0])
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=True)
        self.load("about:blank")  # a link that differs in its fragment alone loads nothing
        self.load(url)
        self.wait_for(ready)

    def load(self, url: str) -> None:
        self.loaded = False
        self.call("Page.navigate", url=url)
        while not self.loaded:
            self.event(self.message())

    def wait_for(self, expression: str) -> None:
        end = time.monotonic() + 20
        while not self.run(expression):
            assert time.monotonic() < end, (expression, self.problems, self.run("document.body.innerText")[:500])
            time.sleep(0.02)

    def run(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str) -> None:
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, "Tab": 9}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def screenshot(self, path: Path) -> Image.Image:
        """Of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))
        return Image.open(path)

    def close(self) -> None:
        self.session = None
        self.call("Browser.close")
        self.process.wait(20)
        os.close(self.write_to)
        os.close(self.read_from)
