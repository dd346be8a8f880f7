"""`make demo`: real embeddings through the official client, readable on one screen."""

import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from bench.dataset import documents, query_vectors, questions, vectors
from bench.demo import SEARCHES
from core.filters.parse import parse_filter
from core.filters.row import matches
from tests.e2e.deployments import embedded
from tests.e2e.processes import KEY, ROOT, clean_environment

SHOWN = 60  # characters of a text that its line shows for sure


def run_demo(folder: os.PathLike[str], **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bench.demo", "--data", str(folder)],
        env={**clean_environment(), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def true_neighbours(row: int, condition: dict[str, Any] | None) -> list[str]:
    """The first words of the three nearest texts that match, by brute force."""
    wanted = parse_filter(condition or {})
    scores = vectors() @ query_vectors()[row]
    texts = []
    for at in np.argsort(-scores).tolist():
        document = documents()[at]
        if matches(wanted, {**document.metadata, "source": document.source}):
            texts.append(document.text[:SHOWN].strip())
        if len(texts) == 3:
            break
    return texts


def check(output: str) -> None:
    """Questions and neighbours are there, nearly all the true ones, on one screen."""
    asked = re.findall(r'^"(.+)"$', output, re.MULTILINE)
    assert asked == [questions()[row].text for row, _ in SEARCHES]
    found = re.findall(r"^   0\.\d{3}  (\S.*)$", output, re.MULTILINE)
    expected = [text for search in SEARCHES for text in true_neighbours(*search)]
    assert len(found) == len(expected)
    same = sum(shown[:SHOWN].strip() == text for shown, text in zip(found, expected, strict=True))
    assert same >= 0.8 * len(expected), f"{same} of {len(expected)} are the true neighbours"
    screen = [line for line in re.split("[\r\n]", output) if "upserted" not in line]
    assert len(screen) <= 50
    assert max(len(line) for line in screen) <= 120


@pytest.mark.timeout(300)
def test_it_starts_a_server_of_its_own_when_none_runs(tmp_path: os.PathLike[str]) -> None:
    output = run_demo(tmp_path)
    assert "no server runs" in output
    check(output)


@pytest.mark.timeout(300)
def test_it_uses_the_server_that_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    with embedded(tmp_path_factory.mktemp("server")) as deployment:
        named = {"PINECONE_CONTROLLER_HOST": deployment.url, "PINECONE_API_KEY": KEY}
        output = run_demo(tmp_path_factory.mktemp("empty"), **named)
        assert "no server runs" not in output
        check(output)
        with deployment.control() as client:
            assert [i["name"] for i in client.get("/indexes").json()["indexes"]] == ["demo-texts"]
