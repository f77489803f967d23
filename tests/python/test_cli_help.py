"""What the command says of itself, word for word, and what shells make of it.

After a change of the options: `python tests/python/test_cli_help.py > tests/golden/help.txt`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ZMQLOCKER, environment, zmqlocker
from conftest import PATIENCE

GOLDEN = Path(__file__).parents[1] / "golden" / "help.txt"


def pages(*words: str) -> list[str]:
    """The help of a command, and then of those that it names."""
    page = zmqlocker(*words, "--help")[1]
    listed = page.partition("Commands:")[2].partition("\n\n")[0]
    names = [name for name in re.findall(r"^  ([a-z]\S*)", listed, re.MULTILINE) if name != "help"]
    return [page, *(below for name in names for below in pages(*words, name))]


def all_help() -> str:
    return "".join(f"{'=' * 80}\n{page}" for page in pages())


def test_the_help_is_this() -> None:
    assert all_help() == GOLDEN.read_text()


def test_the_help_fits_80_columns() -> None:
    wide = [line for line in GOLDEN.read_text().splitlines() if len(line) > 80]
    assert wide == []


def test_each_command_has_an_example_and_its_exit_statuses() -> None:
    _, whole, *commands = GOLDEN.read_text().split("=" * 80 + "\n")
    assert "Exit status: " in whole
    assert len(commands) > 20
    for page in commands:
        assert "Exit status: " in page, page
        assert "Usage: zmqlocker serve" in page or "Example" in page, page


def test_a_server_keeps_what_is_set_in_its_environment_to_itself() -> None:
    status, output, _ = zmqlocker("serve", "--help", ZMQLOCKER_URL="tcp://hidden:1")
    assert status == 0
    assert "hidden" not in output


def test_bash_completes_commands_and_options() -> None:
    status, script, error = zmqlocker("completions", "bash")
    assert (status, error) == (0, "")

    def complete(*words: str) -> list[str]:
        source = script + (
            'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()\n'
            '_zmqlocker zmqlocker "${@: -1}" "${@: -2:1}"; printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(
            ["bash", "-c", source, "bash", *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        return done.stdout.split()

    assert complete("zmqlocker", "se") == ["serve", "set-limit"]
    assert complete("zmqlocker", "serve", "--data") == ["--data-dir"]
    assert complete("zmqlocker", "serve", "--log-format", "") == ["text", "json"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_that_they_can_read(shell: str, tmp_path: Path) -> None:
    status, script, error = zmqlocker("completions", shell)
    assert (status, error) == (0, "")
    assert "set-limit" in script
    assert "data-dir" in script
    if shutil.which(shell):
        file = tmp_path / "script"
        file.write_text(script)
        subprocess.run([shell, "--no-execute", str(file)], timeout=PATIENCE, check=True)


def test_a_wrong_shell_is_wrong_usage() -> None:
    status, output, error = zmqlocker("completions", "powershell")
    assert (status, output) == (2, "")
    assert "bash, zsh, fish" in error


def test_the_entry_point_is_the_module() -> None:
    script = Path(sys.executable).with_name("zmqlocker")
    done = subprocess.run(
        [script, "--version"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
        env=environment(),
    )
    module = subprocess.run(
        [*ZMQLOCKER, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == module.stdout


if __name__ == "__main__":
    sys.stdout.write(all_help())
