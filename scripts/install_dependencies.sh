#!/usr/bin/env bash
# Installs the Debian 12 packages that building, running and testing need; does nothing when all are
# there. `--test` adds what only tests and checks need (a PostgreSQL server, clang), `--nightly` also what scripts/nightly.sh needs
# (clang's sanitizers and fuzzer, Go and Java for the guides of the API).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=(
  build-essential cmake ninja-build pkg-config ccache mold git ca-certificates
  libgrpc++-dev protobuf-compiler-grpc protobuf-compiler libprotobuf-dev libabsl-dev libre2-dev
  prometheus-cpp-dev libcpp-httplib-dev libsqlite3-dev libpq-dev libcurl4-openssl-dev libexpat1-dev libssl-dev openssl
  nlohmann-json3-dev libyaml-cpp-dev libopenblas-pthread-dev libonig-dev libutf8proc-dev libzstd-dev zlib1g-dev libgtest-dev libgmock-dev
)
case ${1:-} in --test | --nightly) packages+=(
  postgresql clang clang-format clang-tidy curl python3 python3-protobuf python3-grpcio mypy) ;; esac
[ "${1:-}" != --nightly ] || packages+=(libclang-rt-14-dev llvm
  golang-go golang-google-grpc-dev golang-google-genproto-dev golang-github-golang-protobuf-1-5-dev golang-google-protobuf-dev
  protoc-gen-go-1-5 protoc-gen-go-grpc default-jdk-headless libgrpc-java libnetty-java libprotobuf-java libperfmark-java
  protobuf-compiler-grpc-java-plugin)

[ -r /etc/debian_version ] || die "these scripts know Debian 12; elsewhere install the packages listed in $0"
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0
say "installing ${#missing[@]} packages: ${missing[*]}"
as_root apt-get update -qq
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
  die "installing failed; is this Debian 12 with its main repository enabled?"
