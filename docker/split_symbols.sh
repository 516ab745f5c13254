#!/bin/sh
# split_symbols.sh BIN DEBUG: moves the debugging symbols of the programs in BIN to DEBUG/PROGRAM.debug, where debuggers find
# them by the programs' build ids and links; the programs stay as small as stripped ones.
set -eu
mkdir -p "$2"
for program in "$1"/*; do
  objcopy --only-keep-debug "$program" "$2/$(basename "$program").debug"
  strip --strip-unneeded "$program"
  objcopy --add-gnu-debuglink="$2/$(basename "$program").debug" "$program"
done
