"""Pinecone's limits on requests and records, as constants; ours where Pinecone names none.

Every one is inclusive: the value itself is still allowed.
"""

UPSERT_RECORDS_MAX = 1000
UPSERT_BYTES_MAX = 2 << 20  # Pinecone says 2 MB; 2 MiB forgives clients that count either way
RECORDS_UPSERT_MAX = 96  # records whose text is embedded here
EMBED_INPUTS_MAX = 96
REQUEST_BYTES_MAX = 2 << 20  # any other data-plane body: a query by vector with a large filter
DELETE_IDS_MAX = 1000
FETCH_IDS_MAX = 1000

SCHEMA_FIELDS_MAX = 256  # of a namespace: every manifest of it repeats them
SCHEMA_BYTES_MAX = 16 << 10  # of their names together

ID_CHARS_MAX = 512  # ASCII without NUL
NAMESPACE_CHARS_MAX = 512  # ASCII without NUL
METADATA_BYTES_MAX = 40 << 10  # of the metadata as compact JSON

DIMENSION_MAX = 20_000
SPARSE_NONZERO_MAX = 2048  # newer Pinecone documents; older ones said 1000
SPARSE_INDEX_MAX = 0xFFFF_FFFF

TOP_K_MAX = 10_000
SCAN_FACTOR_MIN, SCAN_FACTOR_MAX = 0.5, 4.0  # the largest is the default
MAX_CANDIDATES_MAX = 100_000
QUERY_RESULT_BYTES_MAX = 4 << 20
SEARCH_FIELDS_MAX = 100
LIST_LIMIT_MAX = 100
LIST_LIMIT_DEFAULT = 100
FETCH_BY_METADATA_LIMIT_MAX = 10_000
FETCH_BY_METADATA_LIMIT_DEFAULT = 100

# Of one import, as Pinecone documents them; the bounds below the line are ours.
IMPORT_FILES_MAX = 100_000
IMPORT_FILE_BYTES_MAX = 10 << 30
IMPORT_NAMESPACES_MAX = 10_000
IMPORT_RECORDS_MAX = 100_000_000
IMPORT_URI_CHARS_MAX = 1500
IMPORT_ID_CHARS_MAX = 1000
# ---
IMPORTS_UNFINISHED_MAX = 100  # of one index
IMPORTS_KEPT_MAX = 1000  # of one index; the oldest finished ones are forgotten
IMPORT_REASONS_MAX = 20  # why rows were left out: the first ones are told
IMPORT_READER_BYTES_MAX = 1 << 30  # memory of the process that decodes files

# Pinecone documents only the length of `$in`. Depth and conditions are far beyond what people
# write, and keep recursion and the work per record bounded.
FILTER_IN_VALUES_MAX = 10_000
FILTER_CONDITIONS_MAX = 1000
FILTER_DEPTH_MAX = 32

# A 2 MiB JSON body takes at most about twice as much in the log (a value of a vector: 2 bytes
# become 4); only a filter of hundreds of thousands of one-digit numbers takes more, and is refused.
# Below the 8 MiB that the logs accept, with room for key and headers.
LOG_RECORD_BYTES_MAX = 7 << 20
REQUEST_ID_CHARS_MAX = 128
