#!/bin/bash
# Runs in the guest, a Debian whose process 1 is systemd: the package from its installation
# to its removal, at the true cgroup root. Every line it prints is a step; one that fails
# is told with what was said.
cd /root || exit
failed=0

# step NAME CODE PATTERN COMMAND...
step() {
    local name=$1 code=$2 pattern=$3 said got
    shift 3
    said=$(timeout 90 bash -c '"$@"' step "$@" 2>&1 </dev/null)
    got=$?
    if [ "$got" = "$code" ] && grep -qE -- "$pattern" <<<"$said"; then
        echo "ok   $name"
    else
        echo "FAIL $name: code $got: $said"
        failed=$((failed + 1))
    fi
}
eventually() {
    for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done
    "$@"
}
gone() { for path in "$@"; do [ ! -e "$path" ] || { echo "$path is left"; return 1; }; done; }
export -f eventually gone
get=(curl -sS -m 30 https://up.test:8443)
untagged() { step "nobody else notices: $1" 0 hello curl -sS -m 30 --cacert ca.pem https://up.test:8443/; }
works() {
    step "whole: $1" 0 '' eventually enforcer status
    step "a job: $1" 0 hello enforcer run -- "${get[@]}/"
    untagged "$1"
}

new=(openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
"${new[@]}" -x509 -subj /CN=roots -keyout ca.key -out ca.pem 2>/dev/null
"${new[@]}" -subj /CN=up.test -keyout up.key -out up.csr 2>/dev/null
openssl x509 -req -in up.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out up.pem \
    -extfile <(echo subjectAltName=DNS:up.test) 2>/dev/null
echo "127.0.0.1 localhost up.test" >/etc/hosts
useradd --create-home dev
mkdir -p www/admin && echo hello >www/index.html && echo value-that-is-secret >www/secret
systemd-run --quiet --unit=upstream --working-directory=/root/www python3 -c '
import http.server, ssl
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/up.pem", "/root/up.key")
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()'
eventually curl -sS --cacert ca.pem https://up.test:8443/ >/dev/null
untagged "before"

step "installation" 0 'systemctl enable --now enforcer' apt-get install -y ./enforcer.deb
step "installing starts nothing" 3 inactive systemctl is-active enforcer
cat >/etc/enforcer/policies.d/up.yaml <<'POLICY'
version: 1
name: up
rules:
  - {id: up, when: {host: up.test}, addresses: [loopback], mask: {response: [secrets]}}
  - {id: admin, when: {host: up.test, path: /admin/**}, deny: administration is not for jobs}
  - {id: get, when: {host: up.test, port: 8443, method: GET}, allow: true}
POLICY
printf value-that-is-secret >/etc/enforcer/secrets.d/HOUSE
cp ca.pem /etc/enforcer/upstream-roots.pem
# The emulated machine starts a service in more than two seconds.
sed -i 's|^#hold_ms.*|hold_ms = 60000|' /etc/enforcer/config.toml
sed -i 's|^#ca_file|ca_file|; s|^\[dns.names\]$|&\n"up.test" = ["127.0.0.1"]|' /etc/enforcer/config.toml
step "start" 0 '' systemctl enable --now enforcer
works "started"
step "not for everybody" 125 'a member of the group' runuser -u dev -- enforcer run -- true
usermod --append --groups enforcer dev
step "a job of a member" 0 hello runuser -u dev -- sh -c "cd /; enforcer run -- ${get[*]}/"
step "a denial" 0 'administration is not for jobs' enforcer run -- "${get[@]}/admin/x"
step "a secret" 0 '^\[MASKED:HOUSE\]$' enforcer run -- "${get[@]}/secret"
step "UDP" 1 'Operation not permitted' enforcer run -- sh -c 'exec bash -c "echo x >/dev/udp/127.0.0.1/9"'
step "reload" 0 '' systemctl reload enforcer
enforcer run --name stays -- sleep 300 2>/dev/null &
step "a job that stays" 0 '' eventually sh -c 'enforcer status | grep stays'
cat >load.sh <<'LOAD'
while [ ! -e /tmp/enough ]; do
    curl -sS -m 60 https://up.test:8443/ || echo "failed $?"
done
LOAD
enforcer run --name load -- bash load.sh >load.log 2>&1 &
step "a job that keeps asking" 0 '' eventually grep -q hello load.log
before=$(stat -c %i /sys/fs/cgroup/system.slice/enforcer.service/own)
step "restart" 0 '' systemctl restart enforcer
step "the own cgroup is another one" 1 '' [ "$before" = "$(stat -c %i /sys/fs/cgroup/system.slice/enforcer.service/own)" ]
answers=$(grep -c hello load.log)
step "the job goes on to ask" 0 '' eventually sh -c "[ \$(grep -c hello load.log) -gt $((answers + 2)) ]"
touch /tmp/enough
step "no request failed while it restarted" 1 '^0$' sh -c "grep -v -e hello -e 'the service has ended' load.log | grep -c ."
step "nothing is left in the store of descriptors" 0 '=0$' systemctl show enforcer -p NFileDescriptorStore
step "the job that ran on is known" 0 stays enforcer status
works "restarted"
killed=$(systemctl show enforcer -p MainPID --value)
kill -9 "$killed"
# The job's own cgroup, without the service's help.
step "refused at once after a crash" 7 '' bash -c 'echo $$ >/sys/fs/cgroup/enforcer-jobs.slice/stays-*/cgroup.procs; exec curl -sS -m 3 --resolve up.test:8443:127.0.0.1 https://up.test:8443/'
step "systemd starts it again" 0 '' eventually sh -c "pid=\$(systemctl show enforcer -p MainPID --value); [ \$pid != 0 ] && [ \$pid != $killed ]"
works "killed"
tamper='import ctypes, os, struct
path = ctypes.create_string_buffer(b"/sys/fs/bpf/enforcer/link_connect4")
bpf = lambda command, *words: ctypes.CDLL(None, use_errno=True).syscall(321, command, (ctypes.c_uint32 * len(words))(*words), 4 * len(words))
address = ctypes.addressof(path)
link = bpf(7, address & 0xffffffff, address >> 32, 0, 0)
assert link >= 0 and bpf(34, link) == 0'
step "somebody detaches a program" 0 '' python3 -c "$tamper"
step "it is noticed" 0 '' eventually sh -c 'enforcer status | grep "CHANGED by somebody: connect4"'
step "nobody tagged has a network" 7 '' bash -c 'echo $$ >/sys/fs/cgroup/enforcer-jobs.slice/stays-*/cgroup.procs; exec curl -sS -m 3 --resolve up.test:8443:127.0.0.1 https://up.test:8443/'
step "until somebody has looked" 0 'have a network again' enforcer reload
works "after tampering"
step "recordings" 0 '' enforcer sessions verify
step "stop" 0 '' systemctl stop enforcer
untagged "stopped"
step "start again" 0 '' systemctl start enforcer
works "started again"
step "removal" 0 '' apt-get purge -y enforcer
step "nothing is left" 0 '' gone /sys/fs/bpf/enforcer /run/enforcer /etc/enforcer /var/lib/enforcer \
    /sys/fs/cgroup/enforcer-jobs.slice /sys/fs/cgroup/system.slice/enforcer.service
untagged "removed"
echo "vm-verdict: $failed"
systemctl poweroff --force --force
