#!/usr/bin/env bash
# Certificates and a policy for one fleet, so that it can listen beyond this machine:
#   scripts/make_certificates.sh DIR [--data URI]... [HOST...]   # everything; HOSTs are further names of the servers, and jobs may
#                                                                # read and write below the URIs
#   scripts/make_certificates.sh DIR --for tenant/research/user/alice   # one more caller: DIR/alice.crt, DIR/alice.key
# DIR gets ca.crt and ca.key (kept when they are there), server, worker, user and operator (.crt and .key), and policy.json
# (kept as well). The servers are localhost, 127.0.0.1, "server" and the HOSTs. Keep ca.key to yourself: whoever has it can be anybody.
# The programs read renewed files without a restart. In production use your own authority, such as cert-manager or SPIRE.
here=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -ge 1 ] || die "usage: scripts/make_certificates.sh DIR [--data URI]... [HOST...] | DIR --for NAME"
command -v openssl >/dev/null || die "openssl is missing: apt-get install openssl"
dir=$(cd "$here" && realpath -m "$1")
shift
domain=uniquanf.local
ca_days=3650 days=365
umask 077
mkdir -p "$dir"

quietly() { "$@" 2>"$dir/openssl.log" || { cat "$dir/openssl.log" >&2; die "openssl fails: $*"; }; }

issue() {  # FILE COMMON_NAME USAGE NAMES
  quietly openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/$1.key" \
    -out "$dir/$1.csr" -subj "/CN=$2"
  printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\nsubjectAltName=%s\n' \
    "$3" "$4" >"$dir/$1.ext"
  quietly openssl x509 -req -in "$dir/$1.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -days $days -sha256 \
    -extfile "$dir/$1.ext" -out "$dir/$1.crt"
  rm -f "$dir/$1.csr" "$dir/$1.ext"
}
issue_caller() { issue "$1" "$1" clientAuth "URI:spiffe://$domain/$2"; }  # FILE NAME

if [ ! -s "$dir/ca.key" ]; then
  quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/ca.key" -out "$dir/ca.crt" \
    -days $ca_days -sha256 -subj "/CN=uniquanf" -addext keyUsage=critical,keyCertSign,cRLSign
fi

if [ "${1:-}" = --for ]; then
  [ $# = 2 ] || die "--for takes one name, such as tenant/research/user/alice or worker/gpu-1"
  issue_caller "${2##*/}" "$2"
  rm -f "$dir/openssl.log"
  say "$dir/${2##*/}.crt is $2"
  exit
fi

data=
while [ "${1:-}" = --data ]; do
  case ${2:-} in
    file:///*|s3://*) ;;
    *) die "--data takes a URI: file:///directory or s3://bucket/prefix" ;;
  esac
  case $2 in *[\"\\]*) die "--data: no quotes and backslashes" ;; esac
  data+="${data:+, }\"$2\""
  shift 2
done
names=DNS:localhost,IP:127.0.0.1,DNS:server
for host in "$@"; do
  case $host in
    *[!0-9.]*) names+=,DNS:$host ;;
    *) names+=,IP:$host ;;
  esac
done
issue server server serverAuth "$names"
issue_caller worker worker/fleet
issue_caller user tenant/default/user/user
issue_caller operator operator/operator
[ -s "$dir/policy.json" ] || cat >"$dir/policy.json" <<END
{
  "version": 1,
  "certificates": {"trust_domain": "$domain"},
  "bindings": [
    {"principals": ["tenant/*/user/*"], "role": "user"},
    {"principals": ["operator/*"], "role": "operator"},
    {"principals": ["worker/*"], "role": "worker"}
  ],
  "tenants": {"*": {"max_priority": 0, "data": {"read": [$data], "output": [$data]}}}
}
END
rm -f "$dir/openssl.log"
say "certificates and a policy are in $dir"
