#!/bin/sh
# Makes the root file systems of the images; the Dockerfiles run it as root in a Debian container, nobody else does.
#   root.sh install PACKAGE...   installs packages, and their lists stay for the next call
#   root.sh finish NAME          leaves what programs need to run: no package tools, no setuid programs, no logs; adds the user
#                                of the programs and /usr/share/sbom/NAME.spdx.json, the list of packages
# APT_SOURCES, where set, is the only line of sources.list (for example a dated snapshot of Debian). SOURCE_DATE_EPOCH is the
# newest time that files keep. Two runs with the same packages give the same bytes.
set -eu
export DEBIAN_FRONTEND=noninteractive

install_packages() {
  if [ -n "${APT_SOURCES:-}" ]; then
    rm -rf /etc/apt/sources.list.d/debian.sources
    echo "$APT_SOURCES" >/etc/apt/sources.list
  fi
  # Nothing would read them, and they are most of what some packages are.
  printf 'path-exclude=/usr/share/%s/*\n' doc man info locale lintian >/etc/dpkg/dpkg.cfg.d/small
  echo force-unsafe-io >>/etc/dpkg/dpkg.cfg.d/small  # nothing here survives a crash anyway
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "$@"
}

# SPDX 2.3 in JSON of the installed packages.
list_packages() {
  created=$(date -u -d "@${SOURCE_DATE_EPOCH:-0}" +%Y-%m-%dT%H:%M:%SZ)
  cat <<END
{
  "spdxVersion": "SPDX-2.3",
  "dataLicense": "CC0-1.0",
  "SPDXID": "SPDXRef-DOCUMENT",
  "name": "$1",
  "documentNamespace": "urn:uniquanf:sbom:$1:$(dpkg-query -W | sha256sum | cut -c1-32)",
  "creationInfo": {"created": "$created", "creators": ["Tool: uniquanf-docker-root.sh"]},
  "packages": [
END
  dpkg-query -W -f='${Package} ${Version} ${Architecture} ${source:Package}\n' | LC_ALL=C sort | awk '
    { id = $1; gsub(/[^A-Za-z0-9.-]/, "-", id)
      version = $2; gsub(/\+/, "%2B", version); gsub(/:/, "%3A", version)
      printf "%s    {\"SPDXID\": \"SPDXRef-%d-%s\", \"name\": \"%s\", \"versionInfo\": \"%s\",\n", (NR == 1 ? "" : ",\n"), NR, id, $1, $2
      printf "     \"downloadLocation\": \"NOASSERTION\", \"filesAnalyzed\": false, \"sourceInfo\": \"built package from: %s\",\n", $4
      printf "     \"externalRefs\": [{\"referenceCategory\": \"PACKAGE-MANAGER\", \"referenceType\": \"purl\","
      printf " \"referenceLocator\": \"pkg:deb/debian/%s@%s?arch=%s\"}]}", $1, version, $3 }'
  cat <<END

  ],
  "relationships": [
END
  dpkg-query -W -f='${Package} ${Version} ${Architecture}\n' | LC_ALL=C sort | awk '
    { gsub(/[^A-Za-z0-9.-]/, "-", $1)
      printf "%s    {\"spdxElementId\": \"SPDXRef-DOCUMENT\", \"relationshipType\": \"DESCRIBES\",", (NR == 1 ? "" : ",\n")
      printf " \"relatedSpdxElement\": \"SPDXRef-%d-%s\"}", NR, $1 }'
  printf '\n  ]\n}\n'
}

finish() {
  install -d -o 65532 -g 65532 -m 0750 /var/lib/uniquanf
  echo 'uniquanf:x:65532:65532:uniquanf:/var/lib/uniquanf:/usr/sbin/nologin' >>/etc/passwd
  echo 'uniquanf:x:65532:' >>/etc/group
  # Tools to install, mount, log in and format; awk and the dpkg database stay until the list is written.
  unwanted=
  for package in adduser apt bsdutils curl debconf debian-archive-keyring e2fsprogs fdisk gnupg gpg gpgv init-system-helpers \
      login logsave mount openssl passwd perl-base sysvinit-utils usr-is-merged util-linux util-linux-extra; do
    if dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
      unwanted="$unwanted $package"
      rm -f "/var/lib/dpkg/info/$package.prerm" "/var/lib/dpkg/info/$package.postrm"  # they need one another
    fi
  done
  # shellcheck disable=SC2086  # a list of words
  dpkg --purge --force-depends --force-remove-essential --force-remove-protected $unwanted >/dev/null 2>&1
  install -d /usr/share/sbom
  list_packages "$1" >"/usr/share/sbom/$1.spdx.json"
  rm -rf /etc/apt /var/lib/apt /var/cache/apt /var/cache/debconf /var/cache/ldconfig /var/log/* /root/.gnupg \
    /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /usr/share/lintian /usr/lib/x86_64-linux-gnu/perl-base \
    /etc/*- /etc/machine-id /var/lib/dpkg/*-old /var/lib/dpkg/lock* /var/lib/dpkg/triggers/Lock /usr/bin/dpkg* /usr/bin/apt* \
    /tmp/* /var/tmp/*
  find / -xdev -type f -perm /6000 -delete
  find / -xdev -newermt "@${SOURCE_DATE_EPOCH:-0}" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} + 2>/dev/null || true
}

case ${1:-} in
  install) shift; install_packages "$@" ;;
  finish) finish "$2" ;;
  *) echo "usage: root.sh install PACKAGE... | finish NAME" >&2; exit 2 ;;
esac
