#!/bin/sh
# Builds dist/flow-proxy, one static file that needs nothing else on Linux. `make static` calls this.
#
# TARGET chooses another target (for example aarch64-unknown-linux-musl) than musl on this machine's
# architecture; set its linker and C compiler by the variables of cargo and of the crate cc.
set -eu
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
rustc=${RUSTC:-rustc}
host=$("$rustc" -vV | sed -n 's/^host: //p')
target=${TARGET:-${host%%-*}-unknown-linux-musl}
set -- # The positional parameters are the options for rustc, for the binary only.

# True if rustc has a standard library for the target.
has_std() {
  for std in "$("$rustc" --print target-libdir --target "$1" 2>/dev/null)"/libstd-*.rlib; do
    [ -e "$std" ] && return 0
  done
  return 1
}

# Prints what is missing for a musl build and how to add it; nothing if all is there.
missing() {
  has_std "$target" || echo "  rustup target add $target"
  # No check where the system itself is musl, or where the user has chosen a C compiler.
  if [ "${host##*-}" != musl ] && [ -z "$chosen_cc" ] && ! command -v "$musl_cc" >/dev/null; then
    echo "  $musl_cc, a C compiler for musl, for the C code in some crates (in Debian: the package musl-tools)"
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
  # The allocator's C code calls __popcountdi2, which not every toolchain's compiler_builtins has.
  # libgcc has it. Given by its path, since -lgcc works only if the linker is a C compiler.
  libgcc=$(${chosen_cc:-cc} -print-libgcc-file-name) || libgcc=
  [ ! -f "$libgcc" ] || set -- -C "link-arg=$libgcc"
  made="musl ($target)"
elif [ -n "${TARGET:-}" ]; then
  printf 'Cannot build for %s. Add\n%s\n' "$target" "$missing" >&2
  exit 1
else
  printf 'A build with musl is not possible here. To make it possible, add\n%s\n' "$missing"
  echo "Building the static glibc variant instead."
  made="static glibc ($host)"
  target=$host
  export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
fi

# With --target, build scripts and procedural macros are not linked statically.
"$cargo" rustc --bin flow-proxy --release --locked --target "$target" -- "$@"

mkdir -p dist
# Remove the old file instead of overwriting it: it may be running.
rm -f dist/flow-proxy
cp "${CARGO_TARGET_DIR:-target}/$target/release/flow-proxy" dist/flow-proxy
echo "Made dist/flow-proxy with $made, $(($(wc -c <dist/flow-proxy) / 1024)) KiB."
case $made in
  *glibc*)
    echo "It resolves names by /etc/hosts and DNS only: other sources in /etc/nsswitch.conf (mdns,"
    echo "sss, ldap, …) need the shared libraries of the same glibc that it was built with."
    ;;
esac
