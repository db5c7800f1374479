"""docker-compose.yml and Dockerfile, as far as they can be checked without Docker, and what the README says of them."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from visxp_search import __version__
from visxp_search.cli import _with_values, main

ROOT = Path(__file__).resolve().parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
README = (ROOT / "README.md").read_text()
QDRANT = ("qdrant-1", "qdrant-2", "qdrant-3")
OWN = ("ray-head", "ray-worker", "page")


def test_the_services_are_those_of_the_guide() -> None:
    """A Qdrant cluster of three, a Ray cluster, the page and the proxy in front of it."""
    assert set(SERVICES) == {*QDRANT, *OWN, "proxy"}


def test_only_the_proxy_is_published() -> None:
    """No other service has ports on the machine, and all others are in the inner network alone."""
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    for name, service in SERVICES.items():
        assert set(service["networks"]) == ({"inside", "outside"} if name == "proxy" else {"inside"}), name
        assert not service.get("privileged") and service.get("network_mode") is None
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_all_images_are_pinned() -> None:
    """Each image is one release, and ours is built of this one."""
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+\.\d+\.\d+(-[a-z]+)?$", service["image"]), name
    assert all(SERVICES[name]["image"] == f"visxp-search:{__version__}" for name in OWN)
    assert re.search(r"^FROM python:3\.11\.\d+-", DOCKERFILE, re.MULTILINE)


def test_services_restart_and_are_watched() -> None:
    """A service that ends is started again; all have a health check but workers, which Ray watches."""
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped", name
        assert name == "ray-worker" or service["healthcheck"]["test"][0] == "CMD", name


def test_the_cluster_of_qdrant_keeps_its_data_and_asks_for_a_key() -> None:
    """Each node has a volume and an address of its own, joins the first one, and wants the key that all others send."""
    assert len({tuple(SERVICES[name]["volumes"]) for name in QDRANT}) == 3
    for name in QDRANT:
        service = SERVICES[name]
        snapshots = name.replace("qdrant", "snapshots")
        assert service["volumes"] == [f"{name}:/qdrant/storage", f"{snapshots}:/qdrant/snapshots"]
        assert {name, snapshots} <= set(COMPOSE["volumes"])
        assert service["ulimits"]["nofile"] >= 65536
        command = service["command"]
        assert command[command.index("--uri") + 1] == f"http://{name}:6335"
        assert ("--bootstrap" in command) == (name != "qdrant-1")
        assert service["environment"]["QDRANT__CLUSTER__ENABLED"] == "true"
        assert service["environment"]["QDRANT__SERVICE__API_KEY"].startswith("${VISXP_QDRANT_API_KEY:?")
        assert service["networks"]["inside"]["aliases"] == ["qdrant"]
    for name in ("ray-head", "page"):  # what could make the index waits for all nodes, or they would get no shards
        assert set(SERVICES[name]["depends_on"]) == set(QDRANT)
    for name in OWN:
        environment = SERVICES[name]["environment"]
        assert environment["VISXP_INDEX"].startswith("http://qdrant:6333/")
        assert environment["VISXP_QDRANT_API_KEY"].startswith("${VISXP_QDRANT_API_KEY:?")
        assert int(environment["VISXP_QDRANT_SHARDS"]) % len(QDRANT) == 0
        assert environment["VISXP_QDRANT_REPLICAS"] == "2"


def test_no_secret_stands_in_the_file() -> None:
    """Keys and passwords come from the environment, and the archive is only read."""
    for name in OWN:
        for key, value in SERVICES[name]["environment"].items():
            assert value.startswith("${") or not re.search("KEY|AUTH|PASS", key), (name, key)
        assert all(volume.endswith(":ro") for volume in SERVICES[name]["volumes"])


def _visxp_commands() -> list[list[str]]:
    composed = [service["command"] for service in SERVICES.values() if service["command"][0] == "visxp"]
    inside = re.findall(r"docker compose exec \S+ (visxp [^`\n#]+)", README)
    return [*composed, *(shlex.split(line) for line in inside)]


@pytest.mark.parametrize("command", _visxp_commands(), ids=" ".join)
def test_commands_in_containers_exist(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each `visxp` command of the compose file and of the guide has the options that it is given."""
    assert main([*_with_values(command[1:]), "--help"]) == 0
    printed = capsys.readouterr().out
    assert all(word.partition("=")[0] in printed for word in command if word.startswith("--"))


def test_the_guide_indexes_in_the_cluster() -> None:
    """The guide says how the cluster is made to work, and there are commands to check."""
    commands = [" ".join(command) for command in _visxp_commands()]
    assert any(command.startswith("visxp ui") for command in commands)
    assert any(re.match(r"visxp index add /archive .*--ray$", command) for command in commands)
    for variable in re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()):
        assert variable in README, variable


def test_the_image_is_made_of_the_lock_and_runs_as_nobody_special() -> None:
    """Everything copied is there, the lock decides versions, and the last user is not root."""
    copied = [word for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists() and f"!{name}" in ignored, name
    assert "--constraint requirements.lock '.[ray,web]'" in DOCKERFILE
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["visxp"] and DOCKERFILE.index("USER visxp") > DOCKERFILE.index("pip install")
    assert not re.search(r"curl|wget|https?://", DOCKERFILE)
