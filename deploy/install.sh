#!/bin/sh
# Installs flow-proxy below DESTDIR/PREFIX, or removes it. `make install` and `make uninstall` call it.
#
# BINARY is the file to install, for example dist/flow-proxy; default: the release build. The binary
# itself prints the completions, so it must run on this machine.
set -eu
cd "$(dirname "$0")/.."

root=${DESTDIR:-}${PREFIX:-/usr/local}
bin=$root/bin/flow-proxy
man=$root/share/man/man1/flow-proxy.1
bash=$root/share/bash-completion/completions/flow-proxy
zsh=$root/share/zsh/site-functions/_flow-proxy
fish=$root/share/fish/vendor_completions.d/flow-proxy.fish

case ${1:-} in
  install)
    binary=${BINARY:-}
    if [ -z "$binary" ]; then
      binary=${CARGO_TARGET_DIR:-target}/release/flow-proxy
      # Under sudo, cargo is often not in PATH: then an existing build is installed.
      if command -v "${CARGO:-cargo}" >/dev/null || [ ! -x "$binary" ]; then
        "${CARGO:-cargo}" build --release --locked
      fi
    fi
    # Works while the old binary is running: install removes the old file first.
    install -D -m 755 "$binary" "$bin"
    install -D -m 644 deploy/flow-proxy.1 "$man"
    made=$(mktemp)
    trap 'rm -f "$made"' EXIT
    for shell in bash zsh fish; do
      "$bin" completions $shell >"$made"
      eval "install -D -m 644 \"\$made\" \"\$$shell\""
    done
    printf 'Installed:\n  %s\n  %s\n  %s\n  %s\n  %s\n' "$bin" "$man" "$bash" "$zsh" "$fish"
    ;;
  uninstall)
    rm -f "$bin" "$man" "$bash" "$zsh" "$fish"
    echo "Removed flow-proxy below $root; secrets, settings and logs stay."
    ;;
  *)
    echo "usage: install.sh install|uninstall" >&2
    exit 2
    ;;
esac
