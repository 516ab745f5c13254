#!/usr/bin/env bash
# Generates the stubs and runs Submit.java, with nothing but Debian's packages: default-jdk-headless, libgrpc-java, libnetty-java, libprotobuf-java,
# libperfmark-java, protobuf-compiler-grpc-java-plugin, protobuf-compiler.
#   UNIQUANF_SERVER=HOST:PORT run.sh SOURCE_TREE
set -euo pipefail
source_tree=$(realpath "$1")
for tool in javac protoc grpc_java_plugin; do command -v $tool >/dev/null || { echo "no $tool here"; exit 77; }; done
[ -e /usr/share/java/grpc-netty.jar ] && [ -e /usr/share/java/protobuf.jar ] || { echo "no libgrpc-java or libprotobuf-java here"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
protoc -I "$source_tree/proto" --plugin=protoc-gen-grpc-java="$(command -v grpc_java_plugin)" --java_out="$work" \
  --grpc-java_out="$work" "$source_tree"/proto/uniquanf/v1/*.proto "$source_tree"/proto/google/{rpc,api}/*.proto
jars=$(ls /usr/share/java/{grpc-*,protobuf,guava,failureaccess,netty-*,perfmark*,geronimo-annotation-1.3-spec,opencensus*,error_prone_annotations,gson}.jar 2>/dev/null | tr '\n' ':' || true)
cp "$source_tree/examples/clients/java/Submit.java" "$work/"
cd "$work"
javac -nowarn -cp "$jars" -d classes $(find . -name '*.java')
# libgrpc-java calls io.perfmark but does not depend on it: without libperfmark-java the example is compiled, and no more.
case $jars in *perfmark*) ;; *) echo "compiled; no libperfmark-java here, so it cannot run"; exit 77 ;; esac
java -cp "$jars:classes" Submit "$source_tree/examples"
