#!/bin/sh
# Checks the dependencies with cargo-deny: known vulnerabilities, licences, duplicates, sources. What cannot
# be had, cargo-deny or the database of vulnerabilities, is skipped, or an error with REQUIRE_AUDIT=1.
set -eu
cd "$(dirname "$0")/.."

missing() {
  if [ "${REQUIRE_AUDIT:-}" = 1 ]; then
    echo "make audit: $1" >&2
    exit 1
  fi
  echo "make audit: skipped: $1"
}

cargo=${CARGO:-cargo}
root=${CARGO_TARGET_DIR:-target}/audit
deny=$(command -v cargo-deny || echo "$root/bin/cargo-deny")
if [ ! -x "$deny" ]; then
  echo "make audit: building cargo-deny, which takes some minutes"
  if ! "$cargo" install --quiet --locked --root "$root" --target-dir "$root/build" cargo-deny; then
    missing "cargo-deny cannot be installed"
    exit 0
  fi
  rm -rf "$root/build"
fi

"$deny" --locked check licenses bans sources
if "$deny" --locked fetch db; then
  "$deny" --locked check --disable-fetch advisories
else
  missing "the database of vulnerabilities cannot be had"
fi
