"""What the package exports, and that its documents tell the truth."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import zmqlocker
from conftest import PATIENCE

ROOT = Path(__file__).parents[2]
GUIDES = ["limits.md", "locks.md"]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_exported_names_are_these() -> None:
    assert zmqlocker.__all__ == [
        "AuthError",
        "Block",
        "BoundExceeded",
        "ClientInfo",
        "ConfigError",
        "CostTooLarge",
        "DeadlockError",
        "Decision",
        "Fence",
        "KeyInfo",
        "KindMismatch",
        "Lease",
        "Limit",
        "Lock",
        "LockHolder",
        "LockInfo",
        "LockLost",
        "LockTimeout",
        "LockWaiter",
        "Locker",
        "LockerClient",
        "LockerError",
        "LockerServer",
        "NotHeld",
        "Permit",
        "ProtocolError",
        "Reservation",
        "RwLock",
        "ServerStatus",
        "ServerUnavailable",
        "__version__",
        "has_curve",
        "libzmq_version",
    ]
    modules = {"asyncio"}
    public = {name for name in vars(zmqlocker) if not name.startswith("_")} - modules
    assert public | {"__version__"} == set(zmqlocker.__all__)


def test_every_public_name_says_what_it_is() -> None:
    for name in zmqlocker.__all__:
        if name == "__version__":
            continue
        thing = getattr(zmqlocker, name)
        assert inspect.getdoc(thing), name
        assert thing.__module__.startswith("zmqlocker"), name
        if isinstance(thing, type) and not issubclass(thing, Exception):
            for method, member in vars(thing).items():
                assert method.startswith("_") or inspect.getdoc(member), f"{name}.{method}"


def test_the_signatures_are_those_of_the_first_design() -> None:
    signatures = {
        "Locker": "(max_requests=1, in_seconds=1.0)",
        "LockerServer": "(max_requests=1, in_seconds=1.0, url='tcp://*:7777', "
        "*, limits=None, config=None, block=True, patience=0.0, data_dir=None, "
        "bounds=None, curve_key=None, clients=None, metrics=None, registry=None, name=None, "
        "advertise=None, peers=None, peers_url=None)",
        "LockerClient": "(url='tcp://localhost:7777', *, name='', timeout=Ellipsis, "
        "on_failure='raise', share=None, server_key=None, key_file=None)",
    }
    for name, signature in signatures.items():
        assert str(inspect.signature(getattr(zmqlocker, name))) == signature


def test_the_version_is_that_of_the_distribution() -> None:
    assert zmqlocker.__version__ == metadata.version("zmqlocker")


def test_libzmq_is_the_one_that_was_built() -> None:
    assert zmqlocker.libzmq_version() == "4.3.5"
    assert zmqlocker.has_curve()


def test_nothing_else_is_needed_at_run_time() -> None:
    assert metadata.requires("zmqlocker") is None


@pytest.mark.parametrize("script", ["run_server.py", "run_client.py"])
def test_the_scripts_of_the_readme_are_the_examples(script: str) -> None:
    def code(text: str) -> list[str]:
        unframed = re.sub(r'^""".*?"""\n|if __name__ == .*\n', "", text, flags=re.DOTALL)
        lines = [line.strip() for line in unframed.splitlines()]
        return [line for line in lines if line]

    example = re.sub(r"if __name__.*\n", "", (ROOT / "examples" / script).read_text())
    assert code(example) in [code(block) for block in BLOCKS]


@pytest.mark.parametrize("block", [block for block in BLOCKS if "assert" in block])
def test_the_examples_of_the_readme_run(block: str) -> None:
    subprocess.run([sys.executable, "-c", block], check=True, timeout=PATIENCE)


def examples_of(guide: str) -> list[tuple[str, str]]:
    """What all examples of a guide share, and each of the others."""
    text = (ROOT / "docs" / guide).read_text()
    shared, *blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [(shared, block) for block in blocks]


@pytest.mark.parametrize(
    ("shared", "block"), [example for guide in GUIDES for example in examples_of(guide)]
)
def test_each_example_of_a_guide_runs_by_itself(shared: str, block: str) -> None:
    source = f"{shared}\n{block}\nclient.close()\nserver.stop()"
    subprocess.run([sys.executable, "-c", source], check=True, timeout=PATIENCE)


def test_guides_have_examples() -> None:
    assert all(len(examples_of(guide)) >= 10 for guide in GUIDES)


def test_there_are_examples_in_the_readme() -> None:
    assert len(BLOCKS) == 8


def test_the_command_of_the_package_runs() -> None:
    for command in [["zmqlocker"], [sys.executable, "-m", "zmqlocker"]]:
        program = Path(sys.executable).parent / command[0]
        done = subprocess.run(
            [program, *command[1:], "--version"], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"zmqlocker {zmqlocker.__version__}\n"


def test_the_demo_draws_a_timeline_and_keeps_the_limit() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zmqlocker", "demo", "--seconds", "2"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    title, slots, *clients, total = done.stdout.splitlines()
    assert re.fullmatch(r"a server grants 5/0.8s at tcp://127.0.0.1:\d+, 3 processes ask", title)
    assert re.fullmatch(r"slots    \|[ |]+", slots)
    for number, client in enumerate(clients, 1):
        assert re.fullmatch(rf"client {number} [#. ]+ +\d+ go +\d+ sorry", client)
    assert len(clients) == 3
    assert re.search(r"\d+ go in [34] slots, at most 5 in one: kept$", total)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stderr == ""
