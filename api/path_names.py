"""Names as a part of a path: anything, as clients percent-encode it."""

from starlette.convertors import Convertor, register_url_convertor


class AnyText(Convertor[str]):
    """Starlette's own `path` ends at a newline, which a namespace's name may have."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any", AnyText())

NAME = "{name:any}"
