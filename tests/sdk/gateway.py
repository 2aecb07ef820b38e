"""A real gateway process, and a runner that notes what passed."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("CAUSEWAY_BIN", str(ROOT / "target/debug/causeway"))


class Gateway:
    """`causeway dev`, or `run` with a configuration, on free ports, over the repository's own definitions."""

    def __init__(self, config=None):
        self.config = config

    def __enter__(self):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CAUSEWAY_")}
        mode = ["run", "--config", str(self.config), "--log-level", "error"] if self.config else ["dev"]
        command = [BINARY, *mode, str(ROOT / "routes"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command + ["--access-log", "off"], stdout=subprocess.PIPE, text=True, env=environment
        )
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening public=(\S+) admin=(\S+)\n", line)
        if not found:
            self.process.kill()
            raise RuntimeError(f"no gateway: {line!r}")
        self.public, self.admin = found.groups()
        return self

    def __exit__(self, *failure):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        if failure == (None, None, None) and self.process.returncode != 0:
            raise RuntimeError(f"the gateway ended with {self.process.returncode}")


TESTS = []


def test(*numbers):
    """Registers a test; `numbers` are those of the specification's checklist that it proves."""

    def register(function):
        TESTS.append((function, numbers))
        return function

    return register


def main(suite, gateway):
    """Runs every test and writes `PASS name numbers` lines to target/test-results/."""
    results = ROOT / "target/test-results" / f"{suite}.txt"
    results.parent.mkdir(parents=True, exist_ok=True)
    lines, failed = [], 0
    for function, numbers in TESTS:
        name = f"{suite}::{function.__name__}"
        try:
            function(gateway)
        except Exception:
            failed += 1
            traceback.print_exc()
            lines.append(f"FAIL {name}")
        else:
            lines.append(" ".join(["PASS", name, *map(str, numbers)]))
    results.write_text("".join(line + "\n" for line in lines))
    print(f"{suite}: {len(TESTS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
