"""docs/openapi.json against the OpenAPI specification, with a validator that others wrote: openapi_test.py OPENAPI_JSON.

Ends with 77 (skipped) where the package openapi-spec-validator is not installed (pip install openapi-spec-validator).
"""

import json
import pathlib
import sys

try:
    import openapi_spec_validator
except ImportError:
    print("skipped: no openapi_spec_validator here (pip install openapi-spec-validator)")
    sys.exit(77)

document = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
if hasattr(openapi_spec_validator, "validate"):
    openapi_spec_validator.validate(document)
else:
    openapi_spec_validator.validate_spec(document)
ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
if len(ids) != len(set(ids)):
    sys.exit("two operations have one id")
print(f"{len(ids)} operations, {len(document['components']['schemas'])} schemas: valid")
