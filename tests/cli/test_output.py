"""What commands print: for people, for programs, and when something goes wrong."""

import json

import pytest

from cli.output import plain_errors, print_json, print_table
from core.errors import ConfigError, Fenced, FirnError, NotFound


def test_columns_are_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"name": "a", "records": 5, "files": None, "ok": True},
        {"name": "longer", "records": 1234567, "files": 2, "ok": False},
    ]
    print_table(rows, ["name", "records", "files", "ok"])
    assert capsys.readouterr().out.splitlines() == [
        "name      records  files   ok",
        "a               5      -  yes",
        "longer  1,234,567      2   no",
    ]


def test_names_that_clients_chose_say_nothing_to_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The audit log has paths of refused requests: they break no line and move no cursor."""
    print_table([{"name": "a\n2026 default done\x1b[2J\u202e", "ok": "größe"}], ["name", "ok"])
    _head, row = capsys.readouterr().out.splitlines()
    assert row == "a\\n2026 default done\\x1b[2J\\u202e  größe"


def test_a_table_without_rows_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([], ["name", "records"])
    assert capsys.readouterr().out == "name  records\n"


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"name": "größe", "records": 1234567, "files": None}])
    assert json.loads(capsys.readouterr().out) == [
        {"name": "größe", "records": 1234567, "files": None}
    ]


@pytest.mark.parametrize(
    "error", [ConfigError("set it\n  right"), NotFound("set it right"), Fenced("set it   right")]
)
def test_an_error_of_ours_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], error: FirnError
) -> None:
    @plain_errors
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert told.err == "firndb: set it right\n"
    assert told.out == ""


def test_ctrl_c_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    @plain_errors
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        command()
    assert capsys.readouterr().err.startswith("firndb: ")


def test_a_defect_keeps_its_traceback() -> None:
    """Nobody can do something about it without one."""

    @plain_errors
    def command() -> None:
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        command()


def test_results_pass_through() -> None:
    @plain_errors
    def command(number: int) -> int:
        return number + 1

    assert command(1) == 2
