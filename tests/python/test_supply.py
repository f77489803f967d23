"""What comes in from others is written down, and what is known against it is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from conftest import PATIENCE

ROOT = Path(__file__).parents[2]
RUSTSEC = "https://github.com/RustSec/advisory-db"
ADVISORY = """
```toml
[advisory]
id = "RUSTSEC-2026-9999"
package = "smallvec"
date = "2026-11-01"

[versions]
patched = [">= 99.0.0"]
```

# A hole that is planted by a test

It is not there.
"""


def installed(name: str) -> str:
    """Return the text of a file that the wheel brings beside its code."""
    found = [
        path for path in metadata.files("zmqlocker") or [] if path.match(f"*.dist-info/{name}")
    ]
    assert len(found) == 1, f"{name}: {found}"
    return Path(str(found[0].locate())).read_text()


def test_the_wheel_brings_the_terms_of_what_is_compiled_into_it() -> None:
    terms = installed("licenses/THIRD-PARTY-LICENSES.txt")
    assert "Mozilla Public License Version 2.0" in terms
    assert "ISC License" in terms
    assert "  pyo3 " in terms
    assert terms == (ROOT / "THIRD-PARTY-LICENSES.txt").read_text()


def test_the_wheel_brings_its_bill_of_materials() -> None:
    crates = json.loads(installed("sboms/zmqlocker.cyclonedx.json"))
    names = {component["name"] for component in crates["components"]}
    assert {"zmq", "pyo3", "redb"} <= names
    bundled = json.loads(installed("sboms/bundled.cdx.json"))
    assert [component["name"] for component in bundled["components"]] == ["libzmq", "libsodium"]


def audit(database: Path) -> subprocess.CompletedProcess[str]:
    """Look for known holes in the crates, by a database on this machine."""
    environment = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{database}.insteadOf",
        "GIT_CONFIG_VALUE_0": RUSTSEC,
    }
    try:
        return subprocess.run(
            [ROOT / "scripts" / "audit", "crates"],
            env=os.environ | environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=PATIENCE,
        )
    finally:
        # Whoever looks next must not find what was planted.
        shutil.rmtree(ROOT / "target" / "advisories", ignore_errors=True)


def test_an_audit_without_a_database_does_not_pass(tmp_path: Path) -> None:
    done = audit(tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nothing is known of the crates" in done.stderr


def test_an_audit_finds_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "crates" / "smallvec").mkdir(parents=True)
    (tmp_path / "crates" / "smallvec" / "RUSTSEC-2026-9999.md").write_text(ADVISORY)
    author = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        [*author, "commit", "-qm", "plant"],
    ):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    done = audit(tmp_path)
    assert done.returncode == 1
    assert "A hole that is planted by a test" in done.stderr
