"""Stand-ins for models that Pinecone hosts: FirnDB serves them as local embedders for the run."""

from collections.abc import Callable

from tests.e2e.ecosystem.words import embed

DIMENSION = 1024
NAMES = ("multilingual-e5-large", "llama-text-embed-v2")


def make() -> Callable[[list[str], str], list[list[float]]]:
    return lambda texts, input_type: [embed(text, DIMENSION) for text in texts]


def configuration() -> str:
    """The text of the file that FIRNDB_EMBEDDERS names."""
    return "".join(
        f'[{name}]\nlocal = "{__name__}:make"\ndimension = {DIMENSION}\n' for name in NAMES
    )
