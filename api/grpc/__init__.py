"""The data plane over gRPC."""

import os

# Read once, when the library is loaded. At its own level it writes into our log what clients say
# with their goodbyes, whatever bytes these are.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
