"""Writes `generated/` from `vector_service.proto`: `python -m api.grpc.generate [folder]`.

Two modules: the messages as the file has them, and `packed_pb2`, where every `repeated float` is
`bytes`. On the wire they are the same, as floats travel packed, little-endian float32; so vectors
come out of a message, and go into one, without a Python object for each number.
"""

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

HERE = Path(__file__).parent
FULL = "vector_service.proto"
PACKED = "packed.proto"


def packed(proto: str) -> str:
    """The other form of the file. Its messages are in a package, as names are global in a process;
    messages' names are not on the wire.
    """
    proto = re.sub(r"service \w+ {.*?\n}\n", "", proto, flags=re.DOTALL)
    proto = proto.replace("repeated float ", "bytes ")
    return proto.replace('syntax = "proto3";\n', 'syntax = "proto3";\n\npackage firndb.packed;\n')


def generate(folder: Path) -> None:
    """Write the modules and their types into `folder`."""
    from grpc_tools import protoc

    text = (HERE / FULL).read_text()
    with tempfile.TemporaryDirectory() as made:
        sources = Path(made)
        (sources / FULL).write_text(text)
        (sources / PACKED).write_text(packed(text))
        wanted = [f"--{kind}_out={folder}" for kind in ("python", "pyi")]
        known = files("grpc_tools") / "_proto"
        status = protoc.main(
            ["protoc", f"-I{sources}", f"-I{known}", *wanted, FULL, PACKED],
        )
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "generated")
