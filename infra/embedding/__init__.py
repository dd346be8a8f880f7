"""Embedders: models behind HTTP and Python functions, as `FIRNDB_EMBEDDERS` lists them."""
