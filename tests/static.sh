#!/bin/sh
# Runs the static binary (dist/flow-proxy, or the one given) in a root directory with nothing but the
# binary, its secrets.json, resolv.conf, hosts and a test CA: it starts, serves, resolves a name, and
# trusts a TLS upstream by --ca-file. What this machine does not support is skipped, with a line.
set -eu
cd "$(dirname "$0")/.."
binary=${1:-dist/flow-proxy}
name=upstream.test
pids=

skip() { echo "skip: $1"; exit 0; }
ok() { echo "ok: $1"; }
fail() {
  echo "FAILED: $1" >&2
  sed 's/^/  | /' "$root"/stderr "$work"/tls.log 2>/dev/null >&2 || true
  exit 1
}
clean_up() {
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$work"
}

[ -x "$binary" ] || { echo "no $binary: make static first" >&2; exit 1; }
for tool in openssl curl; do
  command -v $tool >/dev/null || skip "static: $tool is missing"
done
work=$(mktemp -d)
root=$work/root
trap clean_up EXIT
trap 'exit 1' INT TERM
mkdir -p "$root/etc" "$work/www/v1"
cp "$binary" "$root/flow-proxy"

# Runs in the empty root, in place of the calling shell.
if [ "$(id -u)" = 0 ] && chroot "$root" /flow-proxy --version >/dev/null 2>&1; then
  how=chroot
  enter() { cd / && exec chroot "$root" "$@"; }
elif unshare -r --root="$root" /flow-proxy --version >/dev/null 2>&1; then
  how=unshare
  enter() { exec unshare -r --root="$root" "$@"; }
elif "$binary" --version >/dev/null 2>&1 && ! chroot / true 2>/dev/null && ! unshare -r --root=/ true 2>/dev/null; then
  skip "static: neither chroot nor unshare -r is allowed here"
else
  fail "$binary does not print its version in an empty root: is it static?"
fi
ok "prints its version in an empty root ($how)"

# A test CA, and a server certificate that it signed.
{
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
    -subj "/CN=Test CA" -keyout "$work/ca.key" -out "$root/ca.pem"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -subj "/CN=$name" -keyout "$work/server.key" -out "$work/server.csr"
  echo "subjectAltName=DNS:$name" >"$work/server.ext"
  openssl x509 -req -in "$work/server.csr" -CA "$root/ca.pem" -CAkey "$work/ca.key" \
    -CAcreateserial -days 2 -extfile "$work/server.ext" -out "$work/server.pem"
} >"$work/openssl.log" 2>&1 || { cat "$work/openssl.log"; fail "openssl made no certificates"; }
echo '{"object":"list","data":[]}' >"$work/www/v1/models"

# Waits until a line of the file matches, and prints that line.
wait_for() {
  left=100
  until grep -m 1 "$2" "$1" 2>/dev/null; do
    left=$((left - 1))
    [ $left -gt 0 ] || return 1
    sleep 0.1
  done
}

(cd "$work/www" && exec openssl s_server -WWW -accept 127.0.0.1:0 -cert "$work/server.pem" \
  -key "$work/server.key") >"$work/tls.log" 2>&1 </dev/null &
pids="$pids $!"
line=$(wait_for "$work/tls.log" '^ACCEPT') || fail "the TLS server does not start"
tls_port=${line##*:}

cat >"$root/secrets.json" <<'S'
[{"clientId": "FAKE-id", "clientSecret": "FAKE-secret", "tenant": "FAKE-tenant"}]
S
chmod 600 "$root/secrets.json"
echo "127.0.0.1 $name" >"$root/etc/hosts"
# Nothing listens there, so DNS fails at once: the name must come from the hosts file.
echo "nameserver 127.0.0.1" >"$root/etc/resolv.conf"

# Starts the proxy with the given options, and sets "proxy" to its URL.
start() {
  rm -f "$root/stderr"
  (enter /flow-proxy --port 0 --log-file /flow-proxy.log --secrets-file /secrets.json "$@") \
    >/dev/null 2>"$root/stderr" </dev/null &
  proxy_pid=$!
  pids="$pids $proxy_pid"
  line=$(wait_for "$root/stderr" 'Listening on') || fail "it does not start"
  proxy=http://127.0.0.1:${line##*:}
}
stop() {
  kill -TERM "$proxy_pid"
  wait "$proxy_pid" || fail "it ended with exit code $?"
}
# The status of a GET.
status() { curl -sS --noproxy '*' -m 20 -o "$work/response" -w '%{http_code}' "$1" || true; }

start --target-url "https://$name:$tls_port" --ca-file /ca.pem
[ "$(status "$proxy/-/health")" = 200 ] || fail "/-/health is not 200"
ok "starts and serves"
(enter /flow-proxy health --port "${proxy##*:}") || fail "health in the empty root"
ok "health finds it"
[ "$(status "$proxy/v1/models")" = 200 ] || fail "no response from https://$name: $(cat "$work/response")"
cmp -s "$work/response" "$work/www/v1/models" || fail "the response is not the upstream's"
ok "resolves a name from /etc/hosts and verifies TLS by --ca-file"
stop
ok "stops on SIGTERM with exit code 0"

start --target-url "https://$name:$tls_port"
[ "$(status "$proxy/v1/models")" = 502 ] || fail "without --ca-file the test CA is trusted"
grep -qi certificate "$work/response" || fail "the 502 does not say why: $(cat "$work/response")"
ok "rejects the same upstream without --ca-file"
stop

start --target-url "https://nowhere.test:$tls_port" --ca-file /ca.pem
[ "$(status "$proxy/v1/models")" = 502 ] || fail "an unknown name is not 502"
ok "a name that does not resolve is a 502: $(sed 's/.*"message":"//; s/",".*//' "$work/response")"
stop
