"""Headless Chromium, driven over its DevTools protocol through a pair of pipes: no driver, no port,
no package. Tests are skipped where there is no Chromium."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE = 60.0
# Chromium reads commands from file 3 and answers on file 4.
LAUNCH = "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4)\n"
LAUNCH += "os.execvp(sys.argv[3], sys.argv[3:])"


class Chromium:
    """One browser."""

    def __init__(self, program, folder):
        to_read, self.commands = self._pipe()
        self.answers, to_write = self._pipe()
        flags = [*FLAGS, f"--user-data-dir={folder}"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(to_read), str(to_write), program, *flags],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.rest, self.events, self.numbers = b"", [], itertools.count(1)

    @staticmethod
    def _pipe():
        import fcntl

        ends = os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]  # 3 and 4 stay free
        for end in ends:
            os.close(end)
        return high

    def call(self, method, session=None, **parameters):
        """One command and its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for said in self._hear(until):
                if said.get("id") != number:
                    self.events.append(said)
                elif "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                else:
                    return said["result"]
        raise TimeoutError(method)

    def _hear(self, until):
        ready, _, _ = select.select([self.answers], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return []
        got = os.read(self.answers, 1 << 20)
        if not got:
            raise RuntimeError("the browser has ended")
        *whole, self.rest = (self.rest + got).split(b"\0")
        return [json.loads(one) for one in whole]

    def close(self):
        with contextlib.suppress(RuntimeError, TimeoutError, OSError):
            self.call("Browser.close")
        os.close(self.commands)
        os.close(self.answers)
        self.process.wait(timeout=PATIENCE)


class Page:
    """One tab."""

    def __init__(self, browser, width=1440, height=900):
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def run(self, script):
        """The value of a JavaScript expression; promises are waited for."""
        said = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def until(self, script):
        """Waits until an expression is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.run(script):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}; the page says {self.complaints()}")

    def click(self, selector):
        """Presses the mouse in the middle of an element, as a person would, once it lies still."""
        x, y, hit = self.run(
            f"new Promise((done) => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); let last = null; const look = () => {"
            " const b = e.getBoundingClientRect(), at = [b.x + b.width / 2, b.y + b.height / 2];"
            " const still = last && at.join() === last.join(); last = at;"
            " if (still) done([...at, e.contains(document.elementFromPoint(...at))]);"
            " else requestAnimationFrame(look); }; look(); })"
        )
        assert hit, f"something lies over {selector}"
        self.click_at(x, y)

    def click_at(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector, text):
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def screenshot(self, path, *, full=False):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(data["data"]))

    def _mine(self, method):
        self.run("0")  # hears what is waiting
        return [
            event["params"] for event in self.browser.events
            if event.get("sessionId") == self.session and event.get("method") == method
        ]  # fmt: skip

    def requested(self):
        """Addresses the page asked for."""
        return [said["request"]["url"] for said in self._mine("Network.requestWillBeSent")]

    def complaints(self):
        """Errors the page met."""
        thrown = [said["exceptionDetails"] for said in self._mine("Runtime.exceptionThrown")]
        logged = [said["entry"] for said in self._mine("Log.entryAdded")]
        return thrown + [entry for entry in logged if entry["level"] == "error"]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None or os.name != "posix":
        pytest.skip(f"no browser to test with: none of {', '.join(NAMES)} is installed")
    found = Chromium(program, tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


@pytest.fixture
def new_page(browser):
    """Opens tabs, and closes them."""
    pages = []

    def make(**size):
        pages.append(Page(browser, **size))
        return pages[-1]

    yield make
    for page in pages:
        browser.call("Target.closeTarget", targetId=page.target)
