#!/usr/bin/env bash
# Fails when an include goes against the direction of dependencies (DESIGN.md):
# common knows nobody; server, worker and client never know each other; numerics never see gRPC or proto.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
bad=0
forbid() {  # FOLDER PATTERN
  if git grep -nE "^#include [\"<]($2)" -- "$1" ; then
    echo "^ $1 must not include ($2)" >&2
    bad=1
  fi
}
forbid common 'server/|worker/|client/|tests/'
forbid server 'worker/|client/|tests/'
forbid client 'worker/|server/|tests/'
forbid worker 'server/|client/|tests/'
for folder in worker/backend worker/ops worker/packed worker/block worker/model worker/generate worker/quant worker/distill worker/export worker/task \
              worker/batch common/base common/object_store common/safetensors common/spec common/artifact; do
  forbid "$folder" 'grpc|google/protobuf|uniquanf/v1/|common/rpc|common/telemetry|sqlite3|libpq'
done
forbid worker/backend 'worker/(ops|packed|block|model|generate|quant|distill|task|batch|agent)/'
forbid worker/ops 'worker/(packed|block|model|generate|quant|distill|task|batch|agent)/'
forbid worker/packed 'worker/(block|model|generate|quant|distill|task|batch|agent)/'
forbid worker/block 'worker/(model|generate|quant|distill|task|batch|agent)/'
forbid worker/model 'worker/(generate|quant|distill|task|batch|agent)/'
forbid worker/generate 'worker/(quant|distill|text|export|task|batch|agent)/'
forbid worker/quant 'worker/(model|generate|distill|task|batch|agent)/'
forbid worker/distill 'worker/(generate|task|batch|agent)/'
forbid worker/export 'worker/(backend|ops|packed|generate|quant|distill|task|batch|agent)/'
forbid worker/task 'worker/(batch|agent)/'
forbid server/core 'server/(store|runtime|access|http|service)/|grpc|uniquanf/v1/|sqlite3'
forbid server/store 'server/(runtime|http|service)/|grpc'
forbid server/runtime 'server/(access|http|service)/|grpc'
forbid server/access 'server/(store|runtime|http|service)/|grpc|uniquanf/v1/'
forbid server/http 'server/(store|runtime|service)/'
[ $bad = 0 ] || die "include directions are violated, see above"
say "include directions: ok"
