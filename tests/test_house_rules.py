"""The house rules of CONTRIBUTING.md, as tests: import arrows, sizes, leftovers, reasons."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A package may import those to its left, and itself. `storage` and `infra` stand side by side, as
# do `builder` and `freshness`: neither imports its neighbour.
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "storage": {"core"},
    "infra": {"core"},
    "ingest": {"core", "storage", "infra"},
    "builder": {"core", "storage", "infra", "ingest"},
    "freshness": {"core", "storage", "infra", "ingest"},
    "query": {"core", "storage", "infra", "ingest", "freshness"},
    "api": {"core", "storage", "infra", "ingest", "builder", "freshness", "query"},
    "cli": {"core", "storage", "infra", "ingest", "builder", "freshness", "query", "api"},
}
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
# The words are put together here so that this file does not find itself.
LEFTOVERS = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "breakpoint" + r"\(\)")))
VAGUE_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py", "manager.py"}


def tracked(pattern: str) -> list[Path]:
    """Files of the checkout that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:  # an unpacked release has no git
        return sorted(p for package in MAY_IMPORT for p in (ROOT / package).rglob(pattern))
    return sorted(p for line in listed.stdout.split("\n") if line and (p := ROOT / line).exists())


def sources() -> list[Path]:
    """Without what protoc wrote (`make proto`)."""
    return [path for path in tracked("*.py") if path.parent != ROOT / "api/grpc/generated"]


def imported_packages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of every absolute import, also of those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.lineno, node.module.split(".")[0]


def test_imports_point_one_way() -> None:
    backward = []
    for path in sources():
        package = path.relative_to(ROOT).parts[0]
        if package not in MAY_IMPORT:
            continue
        allowed = MAY_IMPORT[package] | {package}
        for line, target in imported_packages(ast.parse(path.read_text())):
            if target in {*MAY_IMPORT, "tests", "bench"} and target not in allowed:
                backward.append(f"{path.relative_to(ROOT)}:{line} imports {target}")
    assert not backward, "\n".join(backward)


def test_core_does_no_io() -> None:
    """The domain is pure: nothing of the network, the disk or a database is imported in core/."""
    forbidden = {"socket", "sqlite3", "sqlalchemy", "confluent_kafka", "faust", "s3fs", "fastapi"}
    forbidden |= {"uvicorn", "aiohttp", "requests", "httpx", "subprocess", "shutil", "tempfile"}
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for path in sources()
        if path.relative_to(ROOT).parts[0] == "core"
        for line, target in imported_packages(ast.parse(path.read_text()))
        if target in forbidden
    ]
    assert not found, "\n".join(found)


def test_files_and_functions_fit_on_a_screen() -> None:
    big = []
    for path in sources():
        text = path.read_text()
        if (lines := text.count("\n")) > FILE_LINES_MAX:
            big.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > FUNCTION_LINES_MAX:
                    big.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {size} lines")
    assert not big, "\n".join(big)


def test_no_leftovers() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in [*sources(), *tracked("Makefile"), *tracked("*.toml"), *tracked("*.md")]
        for number, line in enumerate(path.read_text().split("\n"), 1)
        if LEFTOVERS.search(line)
    ]
    assert not found, "\n".join(found)


def test_file_names_say_what_is_in_them() -> None:
    assert not [str(p.relative_to(ROOT)) for p in sources() if p.name in VAGUE_NAMES]


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_every_module_says_its_job(package: str) -> None:
    """A stranger knows a file's one job from its first lines."""
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.relative_to(ROOT).parts[0] == package
        and (text := path.read_text()).strip()
        and ast.get_docstring(ast.parse(text)) is None
    ]
    assert not silent, silent


def test_dependencies_give_their_reason() -> None:
    """Every line of dependencies in pyproject.toml says why it is there."""
    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("dependencies = [", 1)[1].split("[project.scripts]", 1)[0]
    bare = [
        line.strip()
        for line in block.split("\n")
        if re.match(r'\s*"[a-zA-Z]', line) and "#" not in line
    ]
    assert not bare, bare
