"""`visxp ui` in its own process and the Chromium that looks at it, for tests, screenshots and measurements."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"),
]


def start(
    folder: Path, *options: str, port: int = 0, patience: float = 180
) -> tuple[subprocess.Popen[bytes], str, Path]:
    """Start `visxp ui` and wait for its address.

    Args:
        folder: holds `index` and, unless the shipped one is meant, `checkpoint`.
        options: further options.
        port: 0 for a free one.
        patience: seconds to wait for it.

    Raises:
        AssertionError: If it ends, or is not there in time; with what it wrote.
    """
    log = folder / f"ui-{time.monotonic_ns()}.log"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "visxp_search.cli", "ui", "--index", str(folder / "index"), "--port", str(port)]
    if (folder / "checkpoint").exists():
        command += ["--model", str(folder / "checkpoint")]
    with log.open("wb") as stream:
        process = subprocess.Popen([*command, *options], stderr=stream, env=environment)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://\S+/", log.read_text())
        if found:
            return process, found.group(), log
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"visxp ui did not start: {log.read_text()}")


def stop(process: subprocess.Popen[bytes], *, patience: float = 60) -> None:
    """End it as Ctrl-C does."""
    process.send_signal(signal.SIGINT)
    process.wait(patience)
