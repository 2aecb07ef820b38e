"""The Compose file's services as processes of this machine: what a container engine would start, with the same commands,
variables and files, on loopback addresses in place of the network's and on free ports in place of the published ones."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import websockets

from deployed import CAUSEWAY, DEPLOY, SECRETS, compose, image_variables, read, run, variables

PATIENCE = 60


def until(what, holds):
    """Waits for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.05)
    return found


class Place:
    """Where everything is on this machine: each address of the Compose network becomes one of loopback, each port a free
    one, each name its service's address."""

    def __init__(self, services):
        self.addresses = {name: service["networks"]["inside"]["ipv4_address"].replace("10.", "127.", 1)
                          for name, service in services.items()}
        self.ports = {}
        with ExitStack() as held:
            for port in ("443", "6379", "7400", "8080", "8081"):
                free = held.enter_context(socket.socket())
                free.bind(("0.0.0.0", 0))
                self.ports[port] = str(free.getsockname()[1])

    def moved(self, text, name):
        """A text of the service `name`, as it reads here."""
        text = re.sub(r"\b10\.(77\.\d+\.\d+)", r"127.\1", text)
        text = text.replace("0.0.0.0:", f"{self.addresses[name]}:").replace("bind :", f"bind {self.addresses[name]}:")
        for other, address in self.addresses.items():
            text = re.sub(rf"(?<![\w-]){other}:(?=\d)", f"{address}:", text)
        return re.sub(r"((?:[:/]|port )\s*)(\d+)\b", lambda m: m[1] + self.ports.get(m[2], m[2]), text)

    def at(self, name, port):
        return self.addresses[name], int(self.ports[port])


class Service:
    """A process in place of a container; its log is shown when a test fails."""

    def __init__(self, stack, folder, name, words, env):
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CAUSEWAY_")}
        self.name, self.env = name, clean | env
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(words, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            start_new_session=True, cwd=folder)
        stack.push(self.end)

    def end(self, kind, *_):
        if kind is not None:
            print(f"--- {self.name} ---\n{self.log.read_text()[-4000:]}")
        # The group is its own: a shell and what it started.
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def has_health(self, command):
        assert self.process.poll() is None, f"{self.name} has ended"
        return subprocess.run(command, env=self.env, capture_output=True, timeout=10).returncode == 0


def call(method, place, name, port, path, token, body=None):
    """The status and the body of an HTTP call."""
    host, port = place.at(name, port)
    request = urllib.request.Request(f"http://{host}:{port}{path}", method=method, data=body,
                                     headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def clients_through_haproxy(place, nodes):
    host, port = place.at("haproxy", "443")
    uri = f"ws://{host}:{port}/chat/dev"
    clients = [await websockets.connect(uri) for _ in nodes]
    ids = []
    for client in clients:
        await client.send(json.dumps({"action": "whoami"}))
        ids.append(json.loads(await client.recv())["connectionId"])
    push = lambda id, text: asyncio.to_thread(
        call, "POST", place, "haproxy", "443", f"/chat/dev/@connections/{id}", SECRETS["CALLBACK_TOKEN"], text.encode())
    for client, id in zip(clients, ids, strict=True):
        # Whichever node HAProxy takes this to.
        for n in range(len(nodes)):
            assert await push(id, f"hello {n}") == (200, ""), id
        assert [await client.recv() for _ in nodes] == [f"hello {n}" for n in range(len(nodes))]

    listed = {row["connectionId"]: row for row in json.loads(
        (await asyncio.to_thread(call, "GET", place, "node1", "8081", "/connections", SECRETS["ADMIN_TOKEN"]))[1])["connections"]}
    assert set(listed) == set(ids), listed
    # By the PROXY protocol: not HAProxy's own address.
    assert {row["sourceIp"] for row in listed.values()} == {"127.0.0.1"}, listed

    # What the engine sends to stop them; every client is told.
    started = time.monotonic()
    for node in nodes:
        node.process.send_signal(signal.SIGTERM)
    told = []
    for client in clients:
        try:
            await asyncio.wait_for(client.recv(), PATIENCE)
        except websockets.ConnectionClosed as closed:
            told.append(closed.rcvd and closed.rcvd.code)
    assert told == [1001] * len(nodes), told
    assert time.monotonic() - started > 5, "sessions stay for drain-delay"


def test_the_compose_services_run_as_processes():
    services = compose()["services"]
    place = Place(services)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        folder = Path(folder)
        words = [word.replace("dir /data", f"dir {folder}").replace(
            "| redis-server -", f"'bind {place.addresses['redis']}' 'port {place.ports['6379']}' | redis-server -")
            for word in services["redis"]["command"]]
        redis = Service(stack, folder, "redis", words, variables(services["redis"]))
        kind, check = services["redis"]["healthcheck"]["test"]
        assert kind == "CMD-SHELL"
        host, port = place.at("redis", "6379")
        check = check.replace("redis-cli", f"redis-cli -h {host} -p {port}")
        until("the health of Redis", lambda: redis.has_health(["sh", "-c", check]))
        asked = lambda key: run("redis-cli", "-h", host, "-p", port, "config", "get", key, env=variables(services["redis"])).split()[1]
        assert (asked("maxmemory-policy"), asked("appendonly")) == ("noeviction", "yes")

        (folder / "routes").mkdir()
        (folder / "routes/chat.yaml").symlink_to((DEPLOY / "../../../routes/chat.yaml").resolve())
        healthy = json.loads(re.search(r"^ +CMD (\[.*\])$", read("Containerfile"), re.M)[1])
        nodes = []
        for name in ("node1", "node2", "node3"):
            env = image_variables() | variables(services[name])
            env = {key: place.moved(value, name) for key, value in env.items()} | {"CAUSEWAY_ROUTES": str(folder / "routes")}
            nodes.append(Service(stack, folder, name, [CAUSEWAY, "run"], env))
        for node in nodes:
            own = place.at(node.name, "8081")
            check = [word.replace("127.0.0.1/8081", f"{own[0]}/{own[1]}") for word in healthy]
            until(f"the health of {node.name}", lambda: node.has_health(check))

        # On loopback, where it connects from has to be said; and the files of a machine for tests may not be enough.
        config = place.moved(read("haproxy.cfg"), "haproxy") + f"    source {place.addresses['haproxy']}\n"
        (folder / "haproxy.cfg").write_text(re.sub(r"maxconn \d+", "maxconn 500", config))
        haproxy = Service(stack, folder, "haproxy", ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], {})

        def all_are_listed():
            listed = subprocess.run([CAUSEWAY, "nodes", "list"], env=nodes[0].env, capture_output=True, text=True, timeout=60)
            rows = [line.split() for line in listed.stdout.splitlines()[1:-1]]
            return {row[0] for row in rows if row[-1] == "up"} == {"node1", "node2", "node3"}
        until("all nodes in `causeway nodes list`", all_are_listed)

        def is_open():
            assert haproxy.process.poll() is None, "HAProxy has ended"
            try:
                return call("GET", place, "haproxy", "443", "/chat/dev/@groups/none", SECRETS["CALLBACK_TOKEN"])[0] == 200
            except OSError:
                return False
        until("HAProxy", is_open)
        asyncio.run(clients_through_haproxy(place, nodes))
        for node in nodes:
            assert node.process.wait(PATIENCE) == 0, node.name
        # Nothing is left in the registry but the tombstones.
        left = run("redis-cli", "-h", host, "-p", port, "--scan", "--pattern", "*causeway:r:*", env=variables(services["redis"]))
        assert left.strip() == "", left
