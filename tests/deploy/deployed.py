"""What stands in src/docs/deploy, read once, and how `causeway` is called."""

import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "src/docs/deploy"
CAUSEWAY = os.environ["CAUSEWAY_BIN"]
# What .env is asked for.
SECRETS = {
    "REDIS_PASSWORD": "0123456789abcdef0123456789abcdef",
    "CLUSTER_SECRET": "fedcba9876543210fedcba9876543210",
    "CALLBACK_TOKEN": "callback-token",
    "ADMIN_TOKEN": "admin-token",
}


class Loader(yaml.SafeLoader):
    """YAML in which a key stands once."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        assert len(keys) == len(set(keys)), f"line {node.start_mark.line + 1}: a key stands twice: {keys}"
        return super().construct_mapping(node, deep)


def read(name):
    return (DEPLOY / name).read_text()


def documents(name):
    return list(yaml.load_all(read(name), Loader))


def run(*words, env=None, **more):
    """A program, with nothing of this process's settings; what it printed is in the message when it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CAUSEWAY_")}
    words = [str(word) for word in words]
    ended = subprocess.run(words, env=clean | (env or {}), capture_output=True, text=True, timeout=120, **more)
    assert ended.returncode == 0, f"{' '.join(words)}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
    return ended.stdout + ended.stderr


def image_variables():
    """ENV of the Containerfile."""
    return dict(re.findall(r"(CAUSEWAY_[A-Z_]+)=(\S+)", "\n".join(
        line for line in read("Containerfile").splitlines() if not line.startswith("#"))))


def compose():
    """The Compose file with its variables filled in, as `docker compose` does."""
    def value(match):
        name, default = match.group("name"), match.group("default")
        if name is None:
            return "$"
        return SECRETS.get(name) or default
    text = re.sub(r"\$(?:\$|\{(?P<name>[A-Z_]+)(?::\?[^}]*|:-(?P<default>[^}]*))\})", value, read("compose.yaml"))
    assert "${" not in text, text
    return yaml.load(text, Loader)


def variables(service):
    return {name: str(value) for name, value in service["environment"].items()}


def seconds(text):
    """`4m`, `4min`, `10s` or a number."""
    number, unit = re.fullmatch(r"(\d+)(s|m|min|)", str(text)).groups()
    return int(number) * (60 if unit.startswith("m") else 1)
