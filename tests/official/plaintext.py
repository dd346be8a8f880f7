"""A pytest plugin for 9.x: gRPC without TLS, for which it reads no environment variable."""

from typing import Any

from pinecone.grpc import GrpcIndex

defaults: dict[str, Any] = GrpcIndex.__init__.__kwdefaults__ or {}
defaults["secure"] = False
