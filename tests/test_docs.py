"""The README and the command line say the same."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from tests.test_cli import _commands
from visxp_search.cli import app, main

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
COMMANDS = [" ".join(command) for command in _commands(app)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    """No command is undocumented."""
    group, _, name = command.rpartition(" ")
    plain = README.replace("\\|", "|")  # as tables write it
    assert re.search(rf"visxp {group} [a-z| ]*\b{name}\b" if group else rf"visxp {name}\b", plain), command


def _lines_of_commands() -> list[str]:
    in_code = re.findall(r"`(visxp [^`]+)`", README.replace("\\|", "|"))
    in_blocks = [line.strip().removeprefix("$ ") for line in README.splitlines() if re.match(r" +\$? ?visxp ", line)]
    return sorted(set(in_code + in_blocks))


@pytest.mark.parametrize("line", _lines_of_commands())
def test_every_command_line_in_the_readme_parses(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command line of the README names a command and options that exist: with --help added it prints its help."""
    words = shlex.split(line.partition("#")[0])[1:]
    if "|" in words:  # several commands of a group
        words = words[: words.index("|")]
    assert main([*words, "--help"]) == 0
    printed = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in printed, option


def test_the_readme_begins_with_what_it_is_for() -> None:
    """Within the first 30 lines stand install, index, search and what it cannot do."""
    head = "\n".join(README.splitlines()[:30])
    for needed in ("make demo", "visxp index add", "visxp search clip", "visxp search sound", "cannot"):
        assert needed in head, needed


def test_help_of_groups_is_complete() -> None:
    """Each group of commands says what it is for."""
    assert isinstance(app, typer.Typer)
    assert all(group.typer_instance and group.typer_instance.info.help for group in app.registered_groups)
