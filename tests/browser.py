"""A real headless browser for the pages that this project writes: Debian's Chromium, by chromedriver's WebDriver.

    with browser() as page:
        page.open(folder / "index.html", width=390)
        assert page.errors() == [] and page.requests() == [] and page.axe() == []

`browser()` skips the test, and says so, where chromium or chromedriver is absent. `Browser.axe` skips it where the
accessibility checker is: `npm install axe-core`, in the project's folder or in one whose axe.min.js MINBERT_AXE names.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

AXE = Path(__file__).resolve().parents[1] / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE = 120  # seconds that a script may take on a busy machine
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
             "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip


@contextmanager
def browser() -> Iterator["Browser"]:
    """A browser that shows nothing yet; it is closed afterwards."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not chromium:
        pytest.skip("no chromium and chromedriver on this machine (Debian: chromium, chromium-driver)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            port = next(
                m[1] for line in process.stdout if (m := re.search(r"started successfully on port (\d+)", line))
            )
            page = Browser(f"http://127.0.0.1:{port}", chromium, profile)
            try:
                yield page
            finally:
                page.close()
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


class Browser:
    """One tab. Sizes are in CSS pixels."""

    def __init__(self, server: str, chromium: str, profile: str):
        options = {"binary": chromium, "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        wanted["timeouts"] = {"script": 1000 * PATIENCE}
        self.url, self.file = f"{server}/session", ""
        self.url += "/" + self._post("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _post(self, path: str, values: dict, method: str = "POST") -> Any:
        data = json.dumps(values).encode() if method == "POST" else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=2 * PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def close(self):
        self._post("", {}, "DELETE")

    def devtools(self, command: str, **parameters) -> dict:
        """A command of the DevTools protocol, such as "Page.printToPDF"."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, file: Path, width: int = 1280, height: int = 900, dark: bool = False, media: str = "screen"):
        """Show a file in a window so wide. From 600 pixels down it is a phone's, with a finger in place of a mouse."""
        phone = width <= 600
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        self.devtools("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._log("browser"), self._log("performance")  # what came before
        self.file = file.resolve().as_uri()
        self._post("/url", {"url": self.file})

    def run(self, script: str, *arguments) -> Any:
        """What a JavaScript function's body returns, or the promise that it returns comes to."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def press(self, *keys: str):
        """Keys, one after the other: "Tab", "Enter", "Escape", "ArrowDown"."""
        codes = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "ArrowDown": "\ue015", "Space": " "}
        downs = [{"type": kind, "value": codes.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("/actions", {"actions": [{"type": "key", "id": "keys", "actions": downs}]})

    def point(self, selector: str, press: bool = False, kind: str = "mouse"):
        """Move the mouse (or a finger, kind "touch") to the middle of an element, scrolled into view; perhaps press."""
        where = "const r = document.querySelector(arguments[0]); r.scrollIntoView({block: 'center'});"
        where += "const b = r.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]"
        x, y = self.run(where, selector)
        steps = [{"type": "pointerMove", "x": round(x), "y": round(y), "origin": "viewport"}]
        steps += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}] if press else []
        source = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps}
        self._post("/actions", {"actions": [source]})

    def _log(self, kind: str) -> list[dict]:
        return self._post("/se/log", {"type": kind})

    def errors(self) -> list[str]:
        """What the page wrote to the console since `open` or the last call, warnings included."""
        return [entry["message"] for entry in self._log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """The addresses that the page asked for since `open` or the last call, its own file not counted."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if url.partition("#")[0] != self.file and not url.startswith(("data:", "chrome:"))]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return self.run("return document.documentElement.scrollWidth - window.innerWidth")

    def axe(self) -> list[str]:
        """What axe-core finds wrong, a line for each element."""
        path = Path(os.environ.get("MINBERT_AXE", AXE))
        if not path.exists():
            pytest.skip("no axe-core on this machine (npm install axe-core, or MINBERT_AXE names its axe.min.js)")
        self.run(path.read_text(encoding="utf-8"))
        violations = self.run("return axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)")
        return [
            f"{v['id']}: {v['help']}: {n['html'][:120]} {n['failureSummary']}" for v in violations for n in v["nodes"]
        ]

    def screenshot(self, path: Path, whole: bool = False):
        """A PNG file of the window, or of the whole page."""
        data = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def print(self) -> bytes:
        """The page as a PDF, as it is printed."""
        return base64.b64decode(self.devtools("Page.printToPDF", preferCSSPageSize=True)["data"])
