#!/bin/sh
# Builds dist/flow-proxy, one file that runs on a bare Linux. `make static` calls it.
#
# TARGET chooses another target than this machine's with musl (aarch64-unknown-linux-musl, say);
# its linker and C compiler are then set as cargo and the crate cc read them from the environment.
set -eu
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
rustc=${RUSTC:-rustc}
host=$("$rustc" -vV | sed -n 's/^host: //p')
target=${TARGET:-${host%%-*}-unknown-linux-musl}
set -- # Holds what rustc is to get for the binary alone.

# Whether rustc has a standard library for the target.
has_std() {
  for std in "$("$rustc" --print target-libdir --target "$1" 2>/dev/null)"/libstd-*.rlib; do
    [ -e "$std" ] && return 0
  done
  return 1
}

# What is missing for a musl build, as commands that add it; empty if nothing is.
missing() {
  has_std "$target" || echo "  rustup target add $target"
  # A musl system's own C compiler makes code for musl, and so does one that was chosen.
  if [ "${host##*-}" != musl ] && [ -z "$chosen_cc" ] && ! command -v "$musl_cc" >/dev/null; then
    echo "  $musl_cc, a C compiler for musl, as some crates have parts in C (Debian's musl-tools has musl-gcc)"
  fi
}

underscored=$(echo "$target" | tr - _)
eval "chosen_cc=\${CC_$underscored:-\${TARGET_CC:-}}"
if [ "${target%%-*}" = "${host%%-*}" ]; then
  musl_cc=musl-gcc
else
  musl_cc=${target%%-*}-linux-musl-gcc
fi
missing=$(missing)

if [ -z "$missing" ]; then
  if [ "${host##*-}" != musl ] && [ -z "$chosen_cc" ]; then
    export "CC_$underscored=$musl_cc"
    chosen_cc=$musl_cc
  fi
  # The allocator's C code calls __popcountdi2, as x86-64 in general has no instruction for it. Not
  # every toolchain's compiler_builtins has that function; the C compiler's own library does. By its
  # path instead of -lgcc, which only a C compiler as the linker finds.
  libgcc=$(${chosen_cc:-cc} -print-libgcc-file-name) || libgcc=
  [ ! -f "$libgcc" ] || set -- -C "link-arg=$libgcc"
  made="musl ($target)"
elif [ -n "${TARGET:-}" ]; then
  printf 'Cannot build for %s. Add\n%s\n' "$target" "$missing" >&2
  exit 1
else
  printf 'Not possible here: a build with musl. To make it so, add\n%s\n' "$missing"
  echo "Building the static glibc variant instead."
  made="static glibc ($host)"
  target=$host
  export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
fi

# With --target, build scripts and procedural macros are not linked statically.
"$cargo" rustc --bin flow-proxy --release --locked --target "$target" -- "$@"

mkdir -p dist
# Not copied over the old file, which may be running.
rm -f dist/flow-proxy
cp "${CARGO_TARGET_DIR:-target}/$target/release/flow-proxy" dist/flow-proxy
echo "Made dist/flow-proxy with $made, $(($(wc -c <dist/flow-proxy) / 1024)) KiB."
case $made in
  *glibc*)
    echo "It resolves names by /etc/hosts and DNS alone: other sources in /etc/nsswitch.conf (mdns,"
    echo "sss, ldap, …) need the shared libraries of the very glibc that it was built with."
    ;;
esac
