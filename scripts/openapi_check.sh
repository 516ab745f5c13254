#!/usr/bin/env bash
# Whether an OpenAPI document keeps to the specification, by a validator that others wrote; needs node, npm and its registry.
#
#   scripts/openapi_check.sh [DOCUMENT]
#
# The package is kept in .cache/openapi. Ends with 77 where npm or its registry is missing.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
document=$(realpath "${1:-docs/openapi.json}")
command -v npm >/dev/null || { echo "skipped: there is no npm here"; exit 77; }
cache=$PWD/.cache/openapi
mkdir -p "$cache"
if [ ! -d "$cache/node_modules/@apidevtools/swagger-parser" ]; then
  (cd "$cache" && npm install --ignore-scripts --no-audit --no-fund --silent @apidevtools/swagger-parser@12.1.0) ||
    { echo "skipped: the npm registry cannot be reached"; exit 77; }
fi
NODE_PATH=$cache/node_modules node -e '
  const { readFileSync } = require("fs");
  const parser = require("@apidevtools/swagger-parser");
  const document = JSON.parse(readFileSync(process.argv[1], "utf8"));
  const ids = Object.values(document.paths).flatMap((path) => Object.values(path)).map((operation) => operation.operationId);
  if (new Set(ids).size !== ids.length) throw new Error("two operations have one id");
  parser.validate(document).then(
    () => console.log(`${ids.length} operations: valid`),
    (error) => { console.error(String(error)); process.exit(1); });
' "$document"
