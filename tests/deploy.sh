#!/bin/bash
# Tests the files in deploy/ with the programs that they are for, on loopback and in a temporary
# directory. Parts whose program is missing are skipped, with a line that says so.
#   tests/deploy.sh [BINARY [STATIC BINARY]]
# The files are used unchanged except for paths, accounts and ports of the installed system.
set -u
cd "$(dirname "$0")/.." || exit 1
binary=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/flow-proxy}")
static=$(realpath "${2:-dist/flow-proxy}")
[ -x "$binary" ] || { echo "no $binary: make build first" >&2; exit 1; }
work=$(mktemp -d)
failures=0
pids=()
unset "${!FLOW_PROXY_@}"
export no_proxy='*'

ok() { echo "ok: $1"; }
skip() { echo "skip: $1"; }
failed() { echo "FAILED: $1" >&2; failures=$((failures + 1)); return 1; }
# check WHAT COMMAND…: the command must succeed.
check() {
  local what=$1 output
  shift
  if output=$("$@" 2>&1); then ok "$what"; else
    failed "$what"
    printf '%s\n' "$output" | sed 's/^/  | /' >&2
    return 1
  fi
}
not() { ! "$@"; }
have() { command -v "$1" >/dev/null; }
# eventually COMMAND…: repeats the command until it succeeds, for at most 15 s.
eventually() {
  local end=$((SECONDS + 15))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}
clean_up() {
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null
  [ ! -e "$work/cron/flow-proxy.pid" ] || kill "$(cat "$work/cron/flow-proxy.pid")" 2>/dev/null
  wait
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM
# HOST:PORT on which the flow-proxy that writes this log listens.
address() { sed -n 's|.*Listening on http://||p' "$1" | grep -v "^\[::1\]" | tail -1; }
has_line() { grep -q "$1" "$2"; }

# Makes a directory as the service files expect it, with secrets and settings.
home_of() {
  mkdir -p "$1"
  cp secrets.json.template "$1/secrets.json"
  chmod 600 "$1/secrets.json"
  echo FLOW_PROXY_PORT=0 >"$1/.env"
}

try_install() {
  local root=$work/install file
  check "make install" make -s install DESTDIR="$root" PREFIX=/usr BINARY="$binary" || return
  check "the installed binary runs" "$root/usr/bin/flow-proxy" --version
  if have man; then
    check "the man page has no errors" test -z "$(man --warnings -l "$root/usr/share/man/man1/flow-proxy.1" 2>&1 >/dev/null)"
    MANWIDTH=200 man -l "$root/usr/share/man/man1/flow-proxy.1" 2>/dev/null | col -b >"$work/man"
  else
    skip "man is missing"
    tr -d '\\' <deploy/flow-proxy.1 >"$work/man"
  fi
  for word in $("$binary" --help | grep -oE -- '--[a-z][a-z-]*|FLOW_PROXY_[A-Z_]+' | sort -u); do
    grep -q -e "$word" "$work/man" || failed "the man page does not have $word"
  done
  while read -r option _ _ default; do
    grep -A 6 -e "^ *$option " "$work/man" | tr -s '\n ' ' ' | grep -q -F "Default: $default" ||
      failed "the man page has another default for $option than $default"
  done < <("$binary" --help | grep -E '^  --[a-z-]+ [A-Z]+ +FLOW_PROXY')
  ok "the man page has every option, variable and default of --help"
  for shell in bash:share/bash-completion/completions/flow-proxy \
    zsh:share/zsh/site-functions/_flow-proxy fish:share/fish/vendor_completions.d/flow-proxy.fish; do
    file=$root/usr/${shell#*:}
    if have "${shell%%:*}"; then
      check "${shell%%:*} reads its completions" "${shell%%:*}" -n "$file"
    else
      check "completions for ${shell%%:*} are there (${shell%%:*} itself is missing)" test -s "$file"
    fi
  done
  check "make uninstall" make -s uninstall DESTDIR="$root" PREFIX=/usr
  check "uninstall leaves nothing" test -z "$(find "$root" -type f)"
}

try_systemd() {
  have systemd-analyze || { skip "systemd-analyze is missing"; return; }
  local unit=$work/flow-proxy.service
  sed -e "s|^ExecStart=.*|ExecStart=$binary|" -e '/^Documentation/d' \
    deploy/systemd/flow-proxy.service >"$unit"
  local said
  said=$(systemd-analyze verify --man=no "$unit" 2>&1 | grep -F flow-proxy)
  check "systemd-analyze verify" test -z "$said" || echo "$said" >&2
  check "systemd-analyze security: exposure below 2.0" \
    systemd-analyze security --offline=yes --threshold=20 "$unit"
  systemd-analyze security --offline=yes "$unit" 2>/dev/null | tail -1
  if have systemd-sysusers; then
    check "systemd-sysusers" systemd-sysusers --dry-run "$PWD/deploy/systemd/flow-proxy.sysusers"
  else
    skip "systemd-sysusers is missing"
  fi
}

try_supervisor() {
  have supervisord && have supervisorctl || { skip "supervisor is missing"; return; }
  local dir=$work/supervisor
  home_of "$dir/lib"
  mkdir -p "$dir/log" "$dir/bin"
  sed -e "s|/usr/local/bin/flow-proxy|$binary|" -e "s|/var/lib/flow-proxy|$dir/lib|" \
    -e "s|/var/log/flow-proxy|$dir/log|" -e '/^user=/d' \
    deploy/supervisor/flow-proxy.conf >"$dir/program.conf"
  cat >"$dir/supervisord.conf" <<S
[unix_http_server]
file=$dir/control
[supervisord]
logfile=$dir/supervisord.log
pidfile=$dir/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://$dir/control
[include]
files=$dir/program.conf
S
  supervisord -n -c "$dir/supervisord.conf" >/dev/null 2>&1 &
  pids+=($!)
  # logrotate's script calls supervisorctl without -c.
  printf '#!/bin/sh\nexec %s -c %s "$@"\n' "$(command -v supervisorctl)" "$dir/supervisord.conf" \
    >"$dir/bin/supervisorctl"
  chmod +x "$dir/bin/supervisorctl"
  local control=$dir/bin/supervisorctl log=$dir/log/flow-proxy.log first
  is_running() { "$control" status flow-proxy | grep -q RUNNING; }
  check "supervisor starts it" eventually is_running || return
  check "it serves under supervisor" eventually curl -sf "http://$(address "$log")/-/health"
  try_logrotate "$log" "the program in supervisor" env PATH="$dir/bin:$PATH"
  first=$("$control" pid flow-proxy)
  kill -KILL "$first"
  is_restarted() { is_running && [ "$("$control" pid flow-proxy)" != "$first" ]; }
  check "supervisor restarts it after a kill -9" eventually is_restarted
  check "it serves again" eventually curl -sf "http://$(address "$log")/-/health"
  check "supervisor stops it" "$control" stop flow-proxy
  check "its log says that it stopped" has_line ' - INFO - Stopped$' "$log"
  check "supervisor saw exit code 0" has_line 'stopped: flow-proxy (exit status 0)' "$dir/supervisord.log"
}

# try_logrotate LOG WHAT [PREFIX…]: rotates the log of a running proxy; PREFIX sets the environment.
try_logrotate() {
  have logrotate || { skip "logrotate is missing"; return; }
  local log=$1 what=$2 dir
  shift 2
  dir=$(dirname "$log")
  sed -e "s|/var/log/flow-proxy/flow-proxy.log|$log|" -e "s|/var/lib/flow-proxy|$dir|" \
    -e '/^ *su /d' deploy/logrotate/flow-proxy >"$dir/logrotate.conf"
  chmod 644 "$dir/logrotate.conf"
  local url
  url=http://$(address "$log")
  check "logrotate rotates the log of $what" \
    "$@" logrotate -f -s "$dir/logrotate.state" "$dir/logrotate.conf" || return
  check "the old lines are in $(basename "$log").1" has_line 'Listening on' "$log.1"
  check "the log was reopened" eventually test -s "$log" || return
  curl -s "$url/-/health?" -o /dev/null
  check "new lines go to the new file" eventually has_line '"GET /-/health" 200' "$log"
  check "secrets were reloaded by the same signal" eventually has_line 'Reloaded 2 configurations' "$log"
  # Later calls of "address" need this line.
  grep -h 'Listening on' "$log.1" >>"$log"
}

try_cron() {
  have flock && have ps || { skip "flock or ps is missing"; return; }
  local dir=$work/cron log line reboot minute first port
  home_of "$dir"
  mkdir "$dir/bin"
  cp "$binary" "$dir/bin/flow-proxy"
  cp deploy/cron/flow-proxy-keep "$dir/bin/"
  log=$dir/flow_proxy_plugin.log
  if crontab -h 2>&1 | grep -q -e '-n '; then
    check "crontab takes the lines" crontab -n deploy/cron/flow-proxy.crontab
  else
    skip "this crontab has no dry run"
  fi
  reboot=$(sed -n 's/^@reboot *//p' deploy/cron/flow-proxy.crontab)
  minute=$(sed -n 's/^\* \* \* \* \* *//p' deploy/cron/flow-proxy.crontab)
  # The minimal environment in which cron runs its lines.
  as_cron() {
    env -i HOME="$dir" LOGNAME="$(id -un)" SHELL=/bin/sh PATH="$dir/bin:/usr/local/bin:/usr/bin:/bin" \
      FLOW_PROXY_DIR="$dir" FLOW_PROXY_KEEP_PAUSE=0 /bin/sh -c "$1"
  }
  # A fixed port, so that "health" finds the proxy.
  "$binary" demo --port 0 --log-file "$work/port.log" >/dev/null 2>&1 &
  first=$!
  eventually has_line 'Listening on' "$work/port.log"
  port=$(address "$work/port.log")
  kill "$first"
  wait "$first"
  echo "FLOW_PROXY_PORT=${port##*:}" >"$dir/.env"
  pid_of() { cat "$dir/flow-proxy.pid"; }
  healthy() { "$binary" health --port "${port##*:}"; }

  check "cron: @reboot starts it" as_cron "$reboot" || return
  check "it serves" eventually healthy || return
  first=$(pid_of)
  check "cron: a second @reboot line does nothing" as_cron "$reboot"
  check "cron: the line of every minute leaves a healthy one alone" as_cron "$minute"
  check "… it is the same process" test "$(pid_of)" = "$first"
  # Except for the line about that check itself, which may be written after it.
  check "… and start.log is emptied" not has_line "Listening on" "$dir/start.log"
  try_logrotate "$log" "the one with a pid file"
  kill -KILL "$first"
  check "cron: a dead one is started again" as_cron "$minute"
  check "it serves" eventually healthy
  first=$(pid_of)
  kill -STOP "$first"
  (sleep 12 && kill -CONT "$first" 2>/dev/null) &
  check "cron: one that hangs is stopped and started again" as_cron "$minute"
  check "… it is another process" test "$(pid_of)" != "$first"
  check "… which serves" eventually healthy
  check "flow-proxy-keep stop" as_cron "flow-proxy-keep stop"
  check "… stopped it" not healthy
  echo FLOW_PROXY_PORT=nonsense >"$dir/.env"
  as_cron "$minute"
  check "start.log says why a start failed" eventually has_line "nonsense" "$dir/start.log"
}

# Runs the image's content as the Dockerfile describes it: one file, the environment, the account.
try_docker() {
  local file=deploy/docker/Dockerfile root=$work/image user entry health
  if have hadolint; then check "hadolint" hadolint "$file"; else skip "hadolint is missing"; fi
  check "the Dockerfile copies one file, into an empty image" \
    test "$(grep -E '^(FROM|COPY|ADD|RUN)' "$file" | tr '\n' ';')" = "FROM scratch;COPY dist/flow-proxy /flow-proxy;"
  [ -x "$static" ] || { skip "no dist/flow-proxy: make static, to try the image"; return; }
  if [ "$(id -u)" != 0 ] || ! chroot / true 2>/dev/null; then
    skip "testing the image needs root and chroot"
    return
  fi
  user=$(sed -n 's/^USER //p' "$file")
  entry=$(sed -n 's/^ENTRYPOINT \["\(.*\)"\]$/\1/p' "$file")
  health=$(sed -n 's/^HEALTHCHECK.* CMD \["\(.*\)"\]$/\1/p' "$file" | sed 's/", "/ /g')
  mapfile -t environment < <(grep -oE 'FLOW_PROXY_[A-Z_]+=[^ ]+' "$file")
  mkdir -p "$root/etc/flow-proxy" "$root/dev"
  cp "$static" "$root/flow-proxy"
  cp secrets.json.template "$root/etc/flow-proxy/secrets.json"
  chown -R "$user" "$root/etc/flow-proxy"
  chmod 600 "$root/etc/flow-proxy/secrets.json"
  mknod -m 666 "$root/dev/null" c 1 3 2>/dev/null || install -m 666 /dev/null "$root/dev/null"
  chmod 755 "$work" # The account must be able to read its root.
  contained() { exec env -i "${environment[@]}" "FLOW_PROXY_PORT=$1" \
    "$(command -v chroot)" --userspec="$user" "$root" "${@:2}"; }
  # Bound to all addresses for a moment, as the image is; the credentials are fake.
  (contained 0 "$entry") 2>"$work/image.log" &
  pids+=($!)
  local pid=$!
  check "the image's command starts without root, certificates, libraries or a writable file" \
    eventually has_line 'Listening on' "$work/image.log" || { cat "$work/image.log" >&2; return; }
  local port
  port=$(address "$work/image.log")
  port=${port##*:}
  # shellcheck disable=SC2086
  check "its HEALTHCHECK finds it" bash -c "$(declare -f contained); $(declare -p environment user root); contained $port $health"
  check "it warns that it is bound to all addresses" has_line 'WARNING - Bound to 0.0.0.0' "$work/image.log"
  check "it warns of nothing else" test "$(grep -c -E 'WARNING|ERROR' "$work/image.log")" = 1
  kill "$pid"
  wait "$pid"
  check "it stops on SIGTERM with exit code 0" test $? = 0
  # shellcheck disable=SC2086
  check "then its HEALTHCHECK fails" not bash -c "$(declare -f contained); $(declare -p environment user root); contained $port $health"
}

yaml_python() {
  for python in "${KUBERNETES_VALIDATE_PYTHON:-python3}" python3; do
    "$python" -c 'import yaml' 2>/dev/null && { echo "$python"; return; }
  done
  return 1
}

try_compose() {
  if docker compose version >/dev/null 2>&1; then
    touch "$work/none"
    check "docker compose config" docker compose -f deploy/docker/compose.yaml config -q
  elif python=$(yaml_python); then
    skip "docker compose is missing; its file is only read as YAML"
    check "compose.yaml is YAML" "$python" -c 'import sys, yaml
services = yaml.safe_load(open(sys.argv[1]))["services"]
assert services["flow-proxy"]["ports"] == ["127.0.0.1:8899:8899"]' deploy/docker/compose.yaml
  else
    skip "neither docker compose nor PyYAML is there"
  fi
}

try_kubernetes() {
  local all=$work/kubernetes.yaml python
  if have kubectl; then
    check "kubectl kustomize builds the manifests" kubectl kustomize deploy/kubernetes -o "$all"
    check "there are 7 of them" test "$(grep -c '^kind:' "$all")" = 7
  else
    skip "kubectl is missing"
  fi
  if have kubeconform; then
    check "kubeconform" kubeconform -strict -summary "$all"
  elif python=$(yaml_python) && "$python" -c 'import kubernetes_validate' 2>/dev/null; then
    check "the manifests fit the schemas of Kubernetes" "$python" - deploy/kubernetes/[!k]*.yaml <<'P'
import sys, yaml, kubernetes_validate
for path in sys.argv[1:]:
    for document in yaml.safe_load_all(open(path)):
        kubernetes_validate.validate(document, "1.33", strict=True)
P
  else
    skip "neither kubeconform nor kubernetes-validate (PyPI; KUBERNETES_VALIDATE_PYTHON) is there"
  fi
  sed -n '/secrets.json: |/,$p' deploy/kubernetes/secret.yaml | sed -e 1d -e 's/^    //' >"$work/secret.json"
  chmod 600 "$work/secret.json"
  check "the Secret's secrets.json is one" "$binary" check --secrets-file "$work/secret.json"
  check "without enableServiceLinks: false the Service would break its pods" \
    not env FLOW_PROXY_PORT=tcp://10.0.0.1:8899 "$binary" check --secrets-file "$work/secret.json"
  check "… and it is set" has_line 'enableServiceLinks: false' deploy/kubernetes/deployment.yaml
  for path in $(sed -n 's/^ *path: //p' deploy/kubernetes/deployment.yaml); do
    check "the probe's $path is 200" curl -sf "http://$demo$path"
  done
}

# Prints the time from the first to the last event of a stream, in ms, and the number of events.
stream() {
  local first='' last=0 count=0 line
  while IFS= read -r line; do
    [[ $line == data:* ]] || continue
    last=${EPOCHREALTIME/[.,]/}
    first=${first:-$last}
    count=$((count + 1))
  done < <(curl -sN -m 30 "$@" -H 'Content-Type: application/json' -d \
    '{"model":"demo-gpt","stream":true,"messages":[{"role":"user","content":"Good morning, Flow!"}]}')
  echo "$(((last - ${first:-0}) / 1000)) $count"
}

# try_front NAME SOCKET: what must hold for each of them.
try_front() {
  local name=$1 through direct_ms direct_events ms events
  through=(-k --unix-socket "$2")
  local key='FAKE-front-key-replace-me' url=https://llm.example/v1
  status() { curl -s -o "$work/response" -w '%{http_code}' "${through[@]}" "$@"; }
  check "$name starts" eventually curl -s "${through[@]}" https://llm.example/ || return
  check "$name asks for a key" test "$(status $url/models)" = 401
  check "$name: a wrong key is no key" test "$(status -H "Authorization: Bearer x$key" $url/models)" = 401
  check "$name takes OpenAI's kind of key" \
    test "$(status -H "Authorization: Bearer $key" $url/models)" = 200
  check "$name takes Anthropic's kind of key" \
    test "$(status -H "X-Api-Key: $key" $url/models)" = 200
  check "$name keeps /-/ to itself" test "$(status -H "X-Api-Key: $key" https://llm.example/-/health)" = 404
  head -c 3000000 /dev/zero | tr '\0' ' ' >"$work/large"
  echo '{"model":"demo-gpt","messages":[{"role":"user","content":"hi"}]}' >>"$work/large"
  check "$name lets 3 MB in" test "$(status -H "X-Api-Key: $key" -H 'Content-Type: application/json' \
    --data-binary "@$work/large" $url/chat/completions)" = 200
  read -r direct_ms direct_events < <(stream "http://$demo/v1/chat/completions")
  read -r ms events < <(stream "${through[@]}" -H "X-Api-Key: $key" $url/chat/completions)
  echo "    stream: direct $direct_events events in $direct_ms ms, through $name $events in $ms ms"
  check "$name loses no event" test "$events" = "$direct_events" -a "$events" -gt 3
  # If the front buffered the stream, all events would arrive at once.
  check "$name passes a stream on piece by piece" test "$direct_ms" -gt 100 -a $((ms * 2)) -gt "$direct_ms"
}

make_certificate() {
  [ -e "$work/front.pem" ] || {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=llm.example \
      -keyout "$work/front.key" -out "$work/front.crt" 2>/dev/null
    cat "$work/front.crt" "$work/front.key" >"$work/front.pem"
  }
}

try_nginx() {
  have nginx && have openssl || { skip "nginx or openssl is missing"; return; }
  make_certificate
  local dir=$work/nginx
  mkdir -p "$dir/tmp"
  sed -e "s|listen 443 ssl|listen unix:$dir/socket ssl|" -e "s|/etc/nginx/flow-proxy|$work/front|" \
    -e "s|127.0.0.1:8899|$demo|" deploy/front/nginx.conf >"$dir/flow-proxy.conf"
  cat >"$dir/nginx.conf" <<N
daemon off; pid $dir/pid; error_log $dir/error.log; worker_processes 1;
events {}
http {
  access_log off;
  client_body_temp_path $dir/tmp/1; proxy_temp_path $dir/tmp/2; fastcgi_temp_path $dir/tmp/3;
  uwsgi_temp_path $dir/tmp/4; scgi_temp_path $dir/tmp/5;
  include $dir/flow-proxy.conf;
}
N
  [ "$(id -u)" != 0 ] || sed -i '1i user root;' "$dir/nginx.conf"
  check "nginx -t" nginx -t -p "$dir" -c "$dir/nginx.conf" || return
  nginx -p "$dir" -c "$dir/nginx.conf" 2>"$dir/stderr" &
  pids+=($!)
  try_front nginx "$dir/socket"
  grep -E '\[(error|alert|crit|emerg)\]' "$dir/error.log" | sed 's/^/  | /'
}

try_haproxy() {
  have haproxy && have openssl || { skip "haproxy or openssl is missing"; return; }
  make_certificate
  local dir=$work/haproxy
  mkdir -p "$dir"
  sed -e "s|bind :443|bind unix@$dir/socket|" -e "s|/etc/haproxy/flow-proxy.pem|$work/front.pem|" \
    -e "s|127.0.0.1:8899|$demo|" deploy/front/haproxy.cfg >"$dir/haproxy.cfg"
  check "haproxy -c" haproxy -c -f "$dir/haproxy.cfg" || return
  local said
  said=$(haproxy -c -f "$dir/haproxy.cfg" 2>&1 | grep -iE 'warning|notice')
  check "haproxy warns of nothing" test -z "$said" || echo "$said" >&2
  haproxy -db -f "$dir/haproxy.cfg" >"$dir/stderr" 2>&1 &
  pids+=($!)
  try_front HAProxy "$dir/socket"
}

# The proxy that the probes and the fronts use.
"$binary" demo --port 0 --log-file "$work/demo.log" >/dev/null 2>&1 &
pids+=($!)
eventually has_line 'Listening on' "$work/demo.log" || { echo "the demo does not start" >&2; exit 1; }
demo=$(address "$work/demo.log")

for part in install systemd supervisor cron docker compose kubernetes nginx haproxy; do
  echo "-- $part"
  try_$part
done
[ $failures = 0 ] || { echo "$failures failures" >&2; exit 1; }
echo "All parts that could be tested here work."
