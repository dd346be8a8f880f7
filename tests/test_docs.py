"""What README and docs promise is there: settings, commands, make targets, links, limits' texts and
tests, metrics, and what the images are made with.

At stake: a newcomer who types what stands there and gets "no such command".
"""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from prometheus_client.registry import Collector

import core.limits
from builder.backups.metrics import BackupMetrics
from builder.importing.worker import ImportMetrics
from builder.metrics import BuilderMetrics
from cli.main import cli
from cli.runtime.keys import SNIPPET
from core.clock import SystemClock
from infra.settings import PREFIX, Settings
from infra.telemetry import Metrics

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "infra" / "deploy"
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *DEPLOY.glob("*.md"))
    if path.name != "test-report.md"
)
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}
# Of an f-string with a text of its own, not one that only puts values together.
WORDS_MIN = 15
SOURCES = [
    p
    for f in ("api", "builder", "core", "ingest", "infra", "query")
    for p in (ROOT / f).rglob("*.py")
]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def code_of(text: str) -> Iterator[str]:
    """Everything in backticks: lines of fenced blocks, and what stands inside of sentences."""
    for fenced in re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from fenced.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def named_settings(text: str) -> set[str]:
    """`FIRNDB_KAFKA`, but not the beginnings `FIRNDB_` and `FIRNDB_S3_` of several."""
    return {name for name in re.findall(r"FIRNDB_\w*\*?", text) if not name.endswith(("_", "*"))}


def test_a_beginning_of_names_is_no_name() -> None:
    assert named_settings("FIRNDB_*, FIRNDB_S3_* and `FIRNDB_KAFKA`: FIRNDB_...") == {
        "FIRNDB_KAFKA"
    }


@every_page
def test_settings_are_real(page: Path) -> None:
    assert named_settings(page.read_text()) <= SETTINGS


@every_page
def test_commands_are_real(page: Path) -> None:
    """`firndb status [INDEX]`, `firndb keys create|list|revoke`: each word and each option."""
    for line in code_of(page.read_text()):
        if match := re.match(r"firndb(?: (.*?))?(?:\s{2,}|#|$)", line):
            for word in _check_command((match[1] or "").removesuffix("...")):
                pytest.fail(f"{page.name} names {line.strip()!r}, but there is no {word!r}")


def _check_command(arguments: str) -> Iterator[str]:
    command: click.Command = cli
    for word in shlex.split(arguments.replace("[", " ").replace("]", " ")):
        if word.startswith("--"):
            known = {o for p in command.params for o in p.opts} | {"--help", "--version"}
            if word not in known:
                yield word
        elif isinstance(command, click.Group):
            for one in word.split("|"):
                if one not in command.commands:
                    yield one
            command = command.commands.get(word.split("|")[0], command)


@every_page
def test_make_targets_are_real(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in code_of(page.read_text()):
        if match := re.match(r"make (?:[A-Z]+=\S+ )*([a-z][a-z-]*)", line):
            assert match[1] in targets, f"{page.name} names {line.strip()!r}"


@every_page
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if file.name == "test-report.md":
            continue  # written by `make test-long`
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}


def test_the_readmes_snippet_is_the_one_that_the_server_prints() -> None:
    """`tests/e2e/test_startup.py` runs the printed one."""
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    printed = SNIPPET.format(key="...", url="http://127.0.0.1:8080")
    assert ast.dump(ast.parse(shown)) == ast.dump(ast.parse(printed))


def test_every_option_and_command_explains_itself() -> None:
    def visit(name: str, command: click.Command) -> None:
        assert command.help, name
        assert len(command.get_short_help_str(100)) <= 66, (
            f"{name}: cut off in a list at 80 columns"
        )
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, f"{name} {parameter.name}"
        if isinstance(command, click.Group):
            for below, each in command.commands.items():
                visit(f"{name} {below}", each)

    visit("firndb", cli)


# The tables of docs/limits.md


def limits() -> list[tuple[str, str, str]]:
    """(limit, its text, its test) of every row that has both."""
    rows = []
    for line in (ROOT / "docs" / "limits.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 4 and cells[0] != "limit":
            text = re.fullmatch(r"(?:\d{3}|Failed) `(.*)`", cells[2])
            assert text, f"{cells[0]}: a status and a text"
            rows.append((cells[0], text[1], cells[3].strip("`| ")))
    return rows


def texts_in_code() -> list[re.Pattern[str]]:
    """Every literal and f-string of the code, with any text where a value is put in."""
    patterns = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    re.escape(str(v.value)) if isinstance(v, ast.Constant) else ".+"
                    for v in node.values
                ]
                if sum(len(part) for part in parts if part != ".+") >= WORDS_MIN:
                    patterns.append(re.compile("".join(parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                patterns.append(re.compile(re.escape(node.value)))
    return patterns


def test_limits_are_refused_with_the_texts_that_the_page_shows() -> None:
    patterns = texts_in_code()
    assert len(limits()) > 25
    for limit, text, _ in limits():
        assert any(p.fullmatch(text) for p in patterns), f"{limit}: nothing says {text!r}"


def test_every_limit_of_the_core_is_on_the_page() -> None:
    """By its value, in one of the ways in which one would write it down."""
    page = (ROOT / "docs" / "limits.md").read_text()
    for name, value in vars(core.limits).items():
        if name.endswith("_MAX"):
            shown = {f"{value:,}", f"{value:g}"}
            shown |= {
                f"{value / 1024**n:g} {unit}" for n, unit in enumerate(("KiB", "MiB", "GiB"), 1)
            }
            assert any(re.search(rf"(?<![\d,]){re.escape(one)}(?!\d)", page) for one in shown), name


def test_limits_name_tests_that_are_there() -> None:
    for limit, _, reference in limits():
        file, _, name = reference.partition("::")
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), limit


# docs/operations.md


def test_every_metric_is_explained() -> None:
    known = Metrics()
    BuilderMetrics(known)
    ImportMetrics(known)
    BackupMetrics(known, SystemClock())
    registered: dict[Collector, list[str]] = known._registry._collector_to_names
    names = {_shown(names) for names in registered.values()}
    others = ("cli/runtime/gauges.py", "infra/embedding/bounded.py")
    for path in [*ROOT.glob("api/**/*.py"), *(ROOT / file for file in others)]:
        names |= set(re.findall(r'"(firndb_\w+)"', path.read_text()))
    page = (ROOT / "docs" / "operations.md").read_text()
    told = set(re.findall(r"`(firndb_\w+)`", page))
    assert names == told


def _shown(names: list[str]) -> str:
    """A counter's has `_total` at its end, as on /metrics."""
    return next((name for name in names if name.endswith("_total")), names[0])


# infra/deploy


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml"])
def test_images_are_set_up_with_real_settings(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert named_settings(text) <= SETTINGS
    assert named_settings(text)


def test_images_compile_annoy_for_any_processor() -> None:
    """What its own setup.py gives the compiler, but for the processor."""
    text = (DEPLOY / "Dockerfile").read_text()
    (arguments,) = re.findall(r"^ENV ANNOY_COMPILER_ARGS=(\S+)$", text, re.MULTILINE)
    flags = set(arguments.split(","))
    assert not [flag for flag in flags if flag.startswith(("-march", "-mcpu", "-mtune"))]
    assert {"-O3", "-ffast-math", "-std=c++14", "-DANNOYLIB_MULTITHREADED_BUILD"} <= flags
    assert text.index("ANNOY_COMPILER_ARGS=") < text.index("pip install")
    assert "--no-binary annoy" in text


def test_images_do_not_run_as_root_and_tell_their_health() -> None:
    stages = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")
    assert len(stages) == 3, "comments, a stage that compiles, a stage that runs"
    assert re.search(r"^USER firndb$", stages[-1], re.MULTILINE)
    assert "\nHEALTHCHECK " in stages[-1]
    assert "g++" not in stages[-1]


def test_compose_runs_every_role_on_images_of_stated_versions() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    services = text.partition("\nservices:\n")[2].partition("\nvolumes:\n")[0]
    assert {"api", "builder", "freshness"} <= set(re.findall(r"^  (\w+):$", services, re.M))
    for image in re.findall(r"image: (\S+)", services):
        assert image == "firndb" or re.search(r":v?\d", image), image
    for published in re.findall(r'^ +- "([\d.:-]+)"$', services, re.MULTILINE):
        assert published.startswith("127.0.0.1:"), published
