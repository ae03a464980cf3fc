#!/bin/bash
# Tests the metrics and the files that are made for them: deploy/prometheus and deploy/grafana.
#   tests/metrics.sh [BINARY]
# Starts the binary as a demo, sends requests, and checks what it says with promtool, and that the rules
# and the dashboard name only what is there. Without promtool (Debian: prometheus) it is installed, as
# root; else the checks are skipped, or fail where REQUIRE_PROMTOOL=1.
set -eu
cd "$(dirname "$0")/.."
binary=$(realpath "${1:-${FLOW_PROXY_BIN:-${CARGO_TARGET_DIR:-target}/release/flow-proxy}}")
[ -x "$binary" ] || { echo "no $binary: make build first" >&2; exit 1; }
alerts=deploy/prometheus/alerts.yml
dashboard=deploy/grafana/flow-proxy.json
unset "${!FLOW_PROXY_@}"
export no_proxy='*'

if ! command -v promtool >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update -q && apt-get install -y -q --no-install-recommends prometheus; } >/dev/null 2>&1 || true
fi
if ! command -v promtool >/dev/null; then
  echo "promtool is missing: install Debian's prometheus, or prometheus.io's" >&2
  [ "${REQUIRE_PROMTOOL:-0}" != 1 ] || exit 1
  exit 0
fi

work=$(mktemp -d)
demo=
clean_up() {
  [ -z "$demo" ] || { kill "$demo" && wait "$demo"; } 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

"$binary" demo --port 0 --log-file "$work/log" >"$work/out" 2>&1 &
demo=$!
# The first address is that of 127.0.0.1.
address() { sed -n 's|.*Listening on http://||p' "$work/log" 2>/dev/null | head -n 1; }
for _ in $(seq 150); do
  [ -z "$(address)" ] || break
  sleep 0.1
done
url=http://$(address)
post() { curl -sS -o "$work/response" -H 'Content-Type: application/json' "$url$1" -d "$2"; }
said='"messages":[{"role":"user","content":"Good morning, Flow!"}]'
for _ in 1 2 3; do
  post /v1/chat/completions "{\"model\":\"demo-gpt\",$said}"
done
post /v1/chat/completions "{\"model\":\"demo-gpt\",\"stream\":true,\"max_tokens\":3,$said}"
post /v1/messages "{\"model\":\"demo-claude\",\"stream\":true,\"max_tokens\":3,$said}"
post /v1/responses '{"model":"demo-vip","input":"Good morning, Flow!"}'
curl -sS -o "$work/response" "$url/v1/nothing"

curl -sS -o "$work/metrics" -w '%{http_code}' "$url/-/metrics" >"$work/status"
[ "$(cat "$work/status")" = 200 ] || { echo "GET /-/metrics: $(cat "$work/status")" >&2; exit 1; }
promtool check metrics <"$work/metrics"
python3 tests/metrics_names.py "$work/metrics" "$alerts" "$dashboard" "$work/dashboard.yml"
promtool check rules "$alerts" "$work/dashboard.yml"
promtool test rules tests/alerts_test.yml
