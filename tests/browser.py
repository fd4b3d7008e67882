"""Pages in headless Chromium."""

from __future__ import annotations

import http.server
import queue
import subprocess
import threading
from pathlib import Path


def dom_of(url: str, profile: Path, budget: int) -> str:
    """What a page has become in Chromium, after so many milliseconds of its own time at most."""
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={profile}", f"--virtual-time-budget={budget}", url],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert "<" in done.stdout, done.stderr
    return done.stdout


class Reports:
    """Where pages of tests report to: `fetch(url, {method: "POST", mode: "no-cors", body: text})`.

    Chromium runs in real time here. In virtual time, which `dom_of` has, timers end early on a busy
    machine: before a frame was painted.
    """

    def __init__(self) -> None:
        reports: queue.Queue[str] = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                reports.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._reports = reports
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Reports:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def script(self) -> str:
        """JavaScript: a function `report` of a text."""
        url = f"http://127.0.0.1:{self._server.server_port}/"
        options = '{ method: "POST", mode: "no-cors", body: text }'
        return f'const report = (text) => fetch("{url}", {options});\n'

    def of(self, url: str, profile: Path, seconds: float = 240) -> str:
        """What the page at `url` reports. AssertionError where it does not in so many seconds."""
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
            "--window-size=1000,1800", f"--user-data-dir={profile}", url,
        ]  # fmt: skip
        with open(profile.with_suffix(".log"), "w") as log:
            browser = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                return self._reports.get(timeout=seconds)
            except queue.Empty:
                raise AssertionError(
                    f"no report: {profile.with_suffix('.log').read_text()}"
                ) from None
            finally:
                browser.terminate()
                browser.wait(30)
