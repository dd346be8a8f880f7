"""What an official client does over TLS, REST and gRPC: a few records written by one, read by both.

Run by tests/e2e/test_tls.py with the interpreter of a client's own environment. Nothing of FirnDB
is imported. `SSL_CERT_FILE` and the first argument name the authority that is trusted.
"""

import os
import sys
from typing import Any

import pinecone
from pinecone import Pinecone, ServerlessSpec

HOST = os.environ["PINECONE_CONTROLLER_HOST"]
MAJOR = int(pinecone.__version__.split(".")[0])
AUTHORITY = sys.argv[1]
NAME = f"tls-{MAJOR}"


def grpc_index(client: Any, host: str) -> Any:
    if MAJOR < 8:
        from pinecone import grpc

        bare = vars(grpc)["PineconeGRPC"](host=HOST, ssl_ca_certs=AUTHORITY)
        return bare.Index(host=host)
    from pinecone.grpc import GrpcIndex

    return GrpcIndex(host=host) if MAJOR < 10 else client.index(host=host, grpc=True)


client: Any = Pinecone(host=HOST, ssl_ca_certs=AUTHORITY)
spec = ServerlessSpec(cloud="aws", region="us-east-1")
client.create_index(NAME, dimension=3, metric="cosine", spec=spec)
model = client.describe_index(NAME)
assert model.host.startswith("https://"), model.host
over_grpc = grpc_index(client, model.host)
over_grpc.upsert(vectors=[{"id": "a", "values": [1.0, 0.0, 0.0], "metadata": {"kind": "noun"}}])
found = over_grpc.query(vector=[1.0, 0.0, 0.0], top_k=1, include_metadata=True)
assert [(m.id, m.metadata["kind"]) for m in found.matches] == [("a", "noun")]
fetched = client.Index(host=model.host).fetch(ids=["a"])
assert list(fetched.vectors["a"].values) == [1.0, 0.0, 0.0]
print("served over TLS")
