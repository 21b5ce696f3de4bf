"""A console script whose packages are missing says so in one line."""

from __future__ import annotations

import pytest

from ddfd_ros.core.commands import LateCommand


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that can be imported; returns how."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", ["/usr/bin/ddfd-something", "--option"])

    def write(name: str, text: str) -> LateCommand:
        (tmp_path / f"{name}.py").write_text(text)
        return LateCommand(name, "main", "training.txt")

    return write


def test_the_command_runs_and_its_exit_code_counts(module):
    assert module("late_fine", "def main():\n    return 7\n")() == 7


@pytest.mark.parametrize(
    "text",
    ["import no_such_thing.inside\n", "def main():\n    import no_such_thing\n"],
    ids=["at the top", "when running"],
)
def test_a_missing_package_is_one_line(module, capsys, text):
    assert module(f"late_{len(text)}", text)() == 2
    said = capsys.readouterr().err
    assert said.startswith("ddfd-something: expected a Python package with the module no_such")
    assert said.endswith("pip install -r requirements/training.txt\n")
    assert said.count("\n") == 1


def test_a_missing_module_of_ours_is_a_fault_to_be_seen(module):
    command = module("late_ours", "import ddfd_ros.no_such_module\n")
    with pytest.raises(ModuleNotFoundError):
        command()
