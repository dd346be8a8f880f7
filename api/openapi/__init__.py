"""The API's own description: a table of every operation, and the OpenAPI document made from it.

A new route adds its entry to the table of its area in `tables/` and its answer to `answers/`; tests
compare the tables with the registered routes, and every answer of the HTTP tests with its schema.
"""
