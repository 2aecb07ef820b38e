"""Each file by itself against what defines its form, then what must agree between them."""

import json
import re
import shutil
import tempfile
from pathlib import Path

import compose_spec
import kubernetes_validate
import yaml

from deployed import CAUSEWAY, DEPLOY, ROOT, compose, documents, image_variables, read, run, seconds, variables

HELP = run(CAUSEWAY, "run", "--help")
FLAGS = set(re.findall(r"^\s+(--[a-z-]+)", HELP, re.M))
SETTINGS = set(re.findall(r"\[env: (CAUSEWAY_[A-Z_]+)", HELP))
# What the last steps of a drain may take, as operations.md has it.
LAST_STEPS = 105
# The oldest and the newest minor version that the manifests are for.
KUBERNETES = ("1.29", "1.34")


def objects(kind=None):
    return [found for found in documents("kubernetes.yaml") if kind in (None, found["kind"])]


def pod():
    [deployment] = objects("Deployment")
    return deployment["spec"]["template"]["spec"]


def container():
    [only] = pod()["containers"]
    return only


def drain(settings):
    """Seconds that a drain of a full node may take, by its settings: those of a file, or variables."""
    found = {key.removeprefix("CAUSEWAY_").lower().replace("_", "-"): value for key, value in settings.items()}
    batches = -(-int(found["max-sessions"]) // int(found.get("drain-batch", 10_000)))
    return (seconds(found["drain-delay"]) + seconds(found["drain-grace"])
            + batches * seconds(found.get("drain-interval", 1)) + LAST_STEPS)


def needed_delay():
    """Seconds until HAProxy has taken a node out, by haproxy.cfg."""
    text = read("haproxy.cfg")
    one = lambda pattern: int(re.search(pattern, text)[1])
    return one(r"fall (\d+)") * (one(r"inter (\d+)s") + one(r"timeout check (\d+)s"))


def test_the_help_was_understood():
    assert len(FLAGS) > 30 and len(SETTINGS) > 30, (FLAGS, SETTINGS)


# --- Containerfile ---

def test_the_container_file_passes_the_linter():
    assert run("hadolint", "--failure-threshold", "style", DEPLOY / "Containerfile") == ""


def test_what_the_container_file_copies_is_there_and_is_enough():
    copied = [line.split()[1:] for line in read("Containerfile").splitlines() if line.startswith("COPY ")]
    built = [words for words in copied if not words[0].startswith("--from=")]
    assert built, copied
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for *sources, target in built:
            for source in sources:
                assert (ROOT / source).exists(), source
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, folder / target)
                else:
                    shutil.copy(ROOT / source, folder / target)
        # Cargo finds every target that the manifest names; every file that the code includes is there.
        found = json.loads(run("cargo", "metadata", "--format-version=1", "--no-deps", "--offline", cwd=folder))
        assert any(target["name"] == "causeway" and "bin" in target["kind"]
                   for package in found["packages"] for target in package["targets"]), found
        for file in (folder / "src").rglob("*.rs"):
            if "tests" in file.parts or file.name == "tests.rs":
                continue
            for included in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', file.read_text()):
                assert (file.parent / included).exists(), f"{file}: {included}"


def test_what_is_left_out_of_the_build_is_not_needed():
    lines = read("Containerfile.dockerignore").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {word for line in read("Containerfile").splitlines()
              if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]}
    assert kept == copied, (kept, copied)
    assert "src/docs/deploy/.env" in lines, "secrets do not go into an image"


# --- Compose ---

def test_the_compose_file_is_one():
    def check(file):
        parsed = compose_spec.PyCompose.from_json(json.dumps(file))
        parsed.validate()
        parsed.to_spec()
    check(compose())
    for break_it in (lambda file: file["services"]["node1"].update(restrt="always"),
                     lambda file: file["services"]["node1"]["networks"].update(other={}),
                     lambda file: file["services"]["node1"].update(stop_grace_period="4 moons")):
        broken = compose()
        break_it(broken)
        try:
            check(broken)
        except ValueError:
            continue
        raise AssertionError("the check finds nothing")


def test_what_the_compose_file_names_is_there():
    file = compose()
    named = set(file["volumes"])
    for name, service in file["services"].items():
        assert set(service.get("depends_on", {})) <= set(file["services"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in named or (DEPLOY / source).is_file(), f"{name}: {source}"
        if build := service.get("build"):
            assert (DEPLOY / build["context"]).resolve() == ROOT, build
            assert (ROOT / build["dockerfile"]).is_file(), build


def test_no_secret_stands_in_the_compose_file():
    for match in re.finditer(r"\$\{?([A-Z_]+)([^}]*)\}?", re.sub(r"\$\$[A-Z_]+", "", read("compose.yaml"))):
        assert match[2].startswith((":?", ":-")), f"{match[0]} may be empty without a word"
    for line in read("compose.yaml").splitlines():
        if re.search(r"(SECRET|TOKEN|PASSWORD|AUTH|REDIS): ", line) and not line.lstrip().startswith("#"):
            assert "${" in line, line
    assert "/src/docs/deploy/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_compose_file_and_haproxy_agree():
    services = compose()["services"]
    text = read("haproxy.cfg")
    servers = dict(re.findall(r"^\s+server (\S+) (\S+)$", text, re.M))
    address = lambda name: services[name]["networks"]["inside"]["ipv4_address"]
    nodes = {name for name in services if name.startswith("node")}
    port = image_variables()["CAUSEWAY_LISTEN"].split(":")[1]
    assert servers == {name: f"{address(name)}:{port}" for name in nodes} and len(nodes) == 3, servers
    assert re.search(r"check port (\d+)", text)[1] == image_variables()["CAUSEWAY_ADMIN"].split(":")[1]
    assert services["haproxy"]["ports"] == ["8080:" + re.search(r"bind :(\d+)", text)[1]]
    for name in nodes:
        found = variables(services[name])
        assert found["CAUSEWAY_TRUSTED_PROXIES"] == address("haproxy") and "send-proxy" in text, name
        assert found["CAUSEWAY_NODE_ADDRESS"] == f"{name}:7400", name
        assert seconds(found["CAUSEWAY_DRAIN_DELAY"]) > needed_delay(), name
        assert seconds(services[name]["stop_grace_period"]) >= drain(found), (name, drain(found))
        assert services[name]["ulimits"]["nofile"] > int(found["CAUSEWAY_MAX_SESSIONS"]) + 256, name
        unknown = set(found) - SETTINGS
        assert not unknown, unknown
    assert set(image_variables()) <= SETTINGS


# --- systemd ---

def unit():
    lines = [line for line in read("causeway.service").splitlines() if "=" in line and not line.startswith("#")]
    return [tuple(line.split("=", 1)) for line in lines]


def test_systemd_takes_the_unit_and_finds_it_closed():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "causeway.service"
        file.write_text(read("causeway.service").replace("/usr/local/bin/causeway", CAUSEWAY))
        said = run("systemd-analyze", "verify", "--man=no", file)
        assert "causeway.service" not in said, said
        # 0 is closed, 10 open; it fails above the threshold, which counts tenths.
        run("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", file)


def test_the_unit_gives_a_drain_its_time_and_sessions_their_files():
    settings, found = documents("causeway.yaml")[0], dict(unit())
    assert seconds(found["TimeoutStopSec"]) >= drain(settings), drain(settings)
    assert int(found["LimitNOFILE"]) > settings["max-sessions"] + 256
    assert settings["access-log"].startswith(f"/var/log/{found['LogsDirectory']}/")
    assert seconds(settings["drain-delay"]) > needed_delay()
    assert ("ExecReload", "/bin/kill -HUP $MAINPID") in unit()
    for key, command in unit():
        if key.startswith("Exec") and "causeway" in command:
            assert set(re.findall(r"--[a-z-]+", command)) <= FLAGS, command


def test_causeway_accepts_the_settings_of_a_machine():
    named = dict(line.split("=", 1) for line in read("causeway.env").splitlines() if line and not line.startswith("#"))
    assert set(named) <= SETTINGS, named
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shutil.copy(DEPLOY / "causeway.yaml", folder)
        shutil.copytree(ROOT / "routes", folder / "routes")
        assert "ok: " in run(CAUSEWAY, "check", "--config", folder / "causeway.yaml", env=named)
        # What stands in comments works, too.
        text = read("causeway.yaml").replace("# tls-cert:", "tls-cert:").replace("# tls-key:", "tls-key:")
        assert text != read("causeway.yaml")
        (folder / "causeway.yaml").write_text(text)
        run(CAUSEWAY, "check", "--config", folder / "causeway.yaml", env=named)
    # The machines of the example are those of haproxy.cfg.
    text = read("haproxy.cfg")
    assert f"server node1 {named['CAUSEWAY_LISTEN']}\n" in text, named
    assert f"check port {named['CAUSEWAY_ADMIN'].split(':')[1]} " in text
    assert f"HAProxy at {documents('causeway.yaml')[0]['trusted-proxies']} " in text
    command = re.search(r"causeway run .*?\n#\n", text, re.S)[0]
    assert set(re.findall(r"--[a-z-]+", command)) <= FLAGS, command


# --- HAProxy ---

def test_haproxy_takes_its_files():
    for name in ("haproxy.cfg", "haproxy-local.cfg"):
        said = run("haproxy", "-c", "-f", DEPLOY / name)
        assert "WARNING" not in said, said


# --- Redis ---

def test_the_rights_in_the_manual_are_those_that_are_tested():
    manual = re.search(r"^ACL SETUSER gateway on >PASSWORD (.*)$", (ROOT / "src/docs/operations.md").read_text(), re.M)[1]
    tested = re.search(r'const ACL: &str = "(.*?)";', (ROOT / "src/cluster/tests/mod.rs").read_text(), re.S)[1]
    tested = re.sub(r"\\\n\s*", "", tested).replace("test-*", "causeway:*")
    assert manual.split() == tested.split(), (manual, tested)


# --- Kubernetes ---

def test_the_manifests_fit_their_schemas():
    for version in KUBERNETES:
        for found in objects():
            kubernetes_validate.validate(found, version, strict=True)
    wrong = objects("Deployment")[0]
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    try:
        kubernetes_validate.validate(wrong, KUBERNETES[0], strict=True)
    except kubernetes_validate.ValidationError:
        return
    raise AssertionError("the check finds nothing")


def test_labels_ports_and_names_meet():
    [deployment] = objects("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    of_image = {name: int(image_variables()[f"CAUSEWAY_{name}"].split(":")[1]) for name in ("LISTEN", "ADMIN")}
    assert (ports["public"], ports["admin"]) == (of_image["LISTEN"], of_image["ADMIN"])
    assert f"--node-address=$(POD_IP):{ports['nodes']}" in container()["args"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    [budget] = objects("PodDisruptionBudget")
    [policy] = objects("NetworkPolicy")
    assert budget["spec"]["selector"]["matchLabels"] == policy["spec"]["podSelector"]["matchLabels"] == labels
    for service in objects("Service"):
        assert service["spec"]["selector"] == labels
        assert all(port["targetPort"] in ports for port in service["spec"]["ports"]), service
    rules = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["spec"]["ingress"]}
    assert set(rules) == set(ports), rules
    assert rules["public"] is None and rules["nodes"] == [{"podSelector": {"matchLabels": labels}}], rules
    probes = {kind: container()[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/health", "liveness": "/health", "readiness": "/ready"}
    assert all(probe["port"] == "admin" for probe in probes.values())
    term = pod()["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]
    assert term["labelSelector"]["matchLabels"] == labels
    volumes = {volume["name"] for volume in pod()["volumes"]}
    assert volumes == {mount["name"] for mount in container()["volumeMounts"]}
    maps = {found["metadata"]["name"] for found in objects("ConfigMap")}
    assert {volume["configMap"]["name"] for volume in pod()["volumes"] if "configMap" in volume} == maps
    # The commands in its head make the Secrets that it asks for.
    head = read("kubernetes.yaml").split("apiVersion", 1)[0]
    asked = {entry["valueFrom"]["secretKeyRef"]["key"] for entry in container()["env"]
             if "secretKeyRef" in entry["valueFrom"]}
    assert asked == set(re.findall(r"--from-literal=([a-z-]+)=", head)), asked


def test_a_pod_has_time_to_drain():
    settings = yaml.safe_load(objects("ConfigMap")[0]["data"]["causeway.yaml"])
    grace = pod()["terminationGracePeriodSeconds"]
    stop = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert grace >= stop + drain(settings), (stop, drain(settings))
    readiness, startup = container()["readinessProbe"], container()["startupProbe"]
    assert seconds(settings["drain-delay"]) > readiness["periodSeconds"] * readiness["failureThreshold"] + readiness["timeoutSeconds"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > 30, "a start may wait so long for the registry"


def test_causeway_accepts_the_settings_of_a_pod():
    named = {entry["name"]: "x" * 20 for entry in container()["env"] if entry["name"].startswith("CAUSEWAY_")}
    assert set(named) <= SETTINGS, named
    named = image_variables() | named | {"CAUSEWAY_REDIS": "redis://:password@redis.example.internal:6379"}
    known = {"POD_IP": "10.1.2.3", "POD_NAME": "causeway-7d4b9c-x2x4z"}
    with tempfile.TemporaryDirectory() as folder:
        for found, mount in zip(objects("ConfigMap"), ("config", "routes"), strict=True):
            # As the kubelet mounts it: links into a folder that is exchanged as a whole.
            data = Path(folder) / mount / "..2026"
            data.mkdir(parents=True)
            (data.parent / "..data").symlink_to("..2026")
            for name, text in found["data"].items():
                (data / name).write_text(text)
                (data.parent / name).symlink_to(f"..data/{name}")
        here = lambda text: text.replace("/etc/causeway", folder)
        words = [re.sub(r"\$\((\w+)\)", lambda match: known[match[1]], here(word)) for word in container()["args"]]
        assert words[0] == "run" and {word.split("=")[0] for word in words[1:]} <= FLAGS, words
        named["CAUSEWAY_ROUTES"] = here(named["CAUSEWAY_ROUTES"])
        said = run(CAUSEWAY, "check", *words[1:], env=named)
        assert "ok: 1 API" in said, said
