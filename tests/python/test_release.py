"""Only what is complete can be published."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AUTHOR = ["-c", "user.name=test", "-c", "user.email=test@example.com"]


class Repository:
    """A release in a repository of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "scripts").mkdir()
        script = (ROOT / "scripts" / "version").read_text()
        self.write("scripts/version", script)
        (folder / "scripts" / "version").chmod(0o755)
        self.write("Cargo.toml", '[package]\nname = "zmqlocker"\nversion = "1.2.3"\n')
        self.write("Cargo.lock", '[[package]]\nname = "zmqlocker"\nversion = "1.2.3"\n')
        self.write("CHANGELOG.md", "# Changelog\n\n## 1.2.3 (2026-01-02)\n\n- News.\n\n## 1.2.2\n")
        self.git("init", "-q")
        self.commit()
        self.git("tag", "v1.2.3")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *AUTHOR, *arguments], cwd=self.folder, check=True)

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "-qm", "change")

    def version(self, *arguments: str) -> tuple[int, str]:
        """Run the script: its status and all that it says."""
        command = [str(self.folder / "scripts" / "version"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_what_is_tagged_and_described_may_be_published(repository: Repository) -> None:
    assert repository.version("--tagged") == (0, "1.2.3\n")


def test_a_version_is_told_before_it_is_published(repository: Repository) -> None:
    repository.write("CHANGELOG.md", "# Changelog\n\n## 1.2.3 (unreleased)\n")
    assert repository.version() == (0, "1.2.3\n")
    status, said = repository.version("--tagged")
    assert status == 1
    assert "does not give the day" in said


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("Cargo.lock", '[[package]]\nname = "zmqlocker"\nversion = "1.2.2"\n', "run cargo check"),
        ("CHANGELOG.md", "# Changelog\n\n## 1.2.2 (2026-01-02)\n", "the top of CHANGELOG.md"),
    ],
)
def test_a_version_that_is_not_the_same_everywhere_is_refused(
    repository: Repository, name: str, text: str, problem: str
) -> None:
    repository.write(name, text)
    status, said = repository.version()
    assert status == 1
    assert problem in said


def test_what_is_not_the_commit_of_the_tag_is_not_published(repository: Repository) -> None:
    repository.write("news", "")
    assert repository.version("--tagged") == (
        1,
        "version: there are changes that are not committed\n",
    )
    repository.commit()
    assert repository.version("--tagged") == (
        1,
        'version: the commit has the tag "", not v1.2.3\n',
    )
