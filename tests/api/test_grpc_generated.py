"""The committed gRPC modules are what `make proto` writes."""

from pathlib import Path

from api.grpc import generate


def test_the_generated_modules_are_those_of_the_proto_file(tmp_path: Path) -> None:
    generate.generate(tmp_path)
    committed = generate.HERE / "generated"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(p.name for p in committed.glob("*_pb2.*"))
    for name in names:
        assert (tmp_path / name).read_text() == (committed / name).read_text(), "run `make proto`"
