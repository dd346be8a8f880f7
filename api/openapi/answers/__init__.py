"""What the API answers, as structs: they are read for the OpenAPI document, not sent."""
