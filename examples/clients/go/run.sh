#!/usr/bin/env bash
# Generates the stubs and runs main.go, with nothing but Debian's packages: golang-go, golang-google-grpc-dev, golang-google-genproto-dev,
# golang-github-golang-protobuf-1-5-dev, golang-google-protobuf-dev, protoc-gen-go-1-5, protoc-gen-go-grpc, protobuf-compiler.
#   UNIQUANF_SERVER=HOST:PORT run.sh SOURCE_TREE
set -euo pipefail
source_tree=$(realpath "$1")
for tool in go protoc protoc-gen-go protoc-gen-go-grpc; do command -v $tool >/dev/null || { echo "no $tool here"; exit 77; }; done
[ -d /usr/share/gocode/src/google.golang.org/grpc ] || { echo "no golang-google-grpc-dev here"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/src/uniquanf/v1" "$work/src/example"
protoc -I "$source_tree/proto" --go_out="$work/src" --go-grpc_out="$work/src" "$source_tree"/proto/uniquanf/v1/*.proto
cp "$source_tree/examples/clients/go/main.go" "$work/src/example/"
export GOPATH=$work:/usr/share/gocode GO111MODULE=off GOCACHE=${GOCACHE:-${TMPDIR:-/tmp}/uniquanf-go-cache} GOFLAGS=
cd "$work/src/example"
go build -o "$work/example" .
"$work/example" "$source_tree/examples"
