#!/usr/bin/env bash
# A real Kafka (KRaft, no ZooKeeper) on loopback, from Maven Central jars, for the tests and for trying things out.
#   kafka.sh install            jars into $KAFKA_HOME/libs (needs java 17 or later, and mvn)
#   kafka.sh start [N|all]      format if new, start node N (default 1), return when it serves
#   kafka.sh stop [N|all]       clean stop (SIGTERM)
#   kafka.sh kill [N|all]       kill -9, the data stays
#   kafka.sh status             pid, port and memory of each node
#   kafka.sh wipe               stop all nodes and remove their data; the jars stay
# Environment: KAFKA_HOME (default <repository>/.kafka), KAFKA_PORT (default 19092; the controller is at + 1, SASL_SSL at + 2, the
# next node at + 10), NODES (default 1; 3 makes one cluster of three), KAFKA_HEAP, KAFKA_EXTRA (a file of further properties) and
# KAFKA_FORMAT_ARGS (see kafka/sasl-tls.sh).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${KAFKA_HOME:-$(dirname "$here")/.kafka}
base=${KAFKA_PORT:-19092}
nodes=${NODES:-1}
read -r -a heap <<<"${KAFKA_HEAP:--Xms96m -Xmx256m}"
read -r -a format_args <<<"${KAFKA_FORMAT_ARGS:-}"
small=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1)
server=(-XX:MaxMetaspaceSize=128m -XX:ReservedCodeCacheSize=64m -Xss512k -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true)

fail() {
  echo "kafka.sh: $*" >&2
  exit 1
}

need() {
  command -v "$1" >/dev/null || fail "$1 is not installed, install $2"
}

port() { echo $((base + 10 * ($1 - 1))); }

alive() {
  local pid
  pid=$(cat "$home/$1/pid" 2>/dev/null) || return 1
  # a zombie answers kill -0 for ever, so ask for its state instead
  [ -n "$pid" ] && ! grep -qs '^State:.Z' "/proc/$pid/status" && kill -0 "$pid" 2>/dev/null
}

install() {
  need java "a Java runtime, version 17 or later"
  [ -e "$home/libs/.complete" ] && return
  need mvn "Apache Maven"
  mkdir -p "$home/libs"
  mvn -q -B -Dstyle.color=never -f "$here/kafka/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$home/libs" -DincludeScope=runtime || fail "maven could not fetch the jars of Kafka"
  touch "$home/libs/.complete"
}

fill() { # fill NODE <template >properties
  local n=$1 i voters="" replicas=1 in_sync=1
  for i in $(seq "$nodes"); do voters+="$i@127.0.0.1:$(($(port "$i") + 1)),"; done
  if [ "$nodes" -ge 3 ]; then
    replicas=3
    in_sync=2
  fi
  sed -e "s|@DIR@|$home/$n|g" -e "s|@ID@|$n|g" -e "s|@VOTERS@|${voters%,}|g" -e "s|@PORT@|$(port "$n")|g" \
    -e "s|@CPORT@|$(($(port "$n") + 1))|g" -e "s|@SSLPORT@|$(($(port "$n") + 2))|g" -e "s|@RF@|$replicas|g" -e "s|@ISR@|$in_sync|g"
}

configure() {
  local n=$1
  local dir=$home/$n
  mkdir -p "$dir"
  fill "$n" <"$here/kafka/server.properties" >"$dir/server.properties"
  [ -z "${KAFKA_EXTRA:-}" ] || fill "$n" <"$KAFKA_EXTRA" >>"$dir/server.properties"
  [ -e "$dir/data/meta.properties" ] && return
  java -Xmx128m "${small[@]}" -Dlog4j2.level=WARN -cp "$home/libs/*" kafka.tools.StorageTool format \
    --cluster-id RingfenceTestCluster00 --config "$dir/server.properties" "${format_args[@]}" >"$dir/format.log" 2>&1 ||
    fail "node $n could not be formatted: $(tail -1 "$dir/format.log")"
}

launch() {
  local n=$1
  alive "$n" && return
  configure "$n"
  setsid java "${heap[@]}" "${small[@]}" "${server[@]}" -Dlog4j2.level=INFO -Dlog4j2.statusLoggerLevel=OFF \
    -cp "$home/libs/*" kafka.Kafka "$home/$n/server.properties" >"$home/$n/log" 2>&1 </dev/null &
  echo $! >"$home/$n/pid"
}

ready() { # this line is in the log once the broker has recovered and is unfenced; an open port comes earlier and is not enough
  local n=$1 i
  for i in $(seq 300); do
    grep -q 'Kafka Server started' "$home/$n/log" && return
    alive "$n" || fail "node $n died, the end of $home/$n/log is: $(tail -1 "$home/$n/log")"
    sleep 0.1
  done
  fail "node $n is not ready after 30 s, see $home/$n/log"
}

halt() { # halt NODE SIGNAL
  local n=$1 pid i
  alive "$n" || return 0
  pid=$(cat "$home/$n/pid")
  kill "-$2" "$pid"
  for i in $(seq 300); do
    alive "$n" || break
    sleep 0.1
  done
  if alive "$n"; then kill -9 "$pid"; fi
  rm -f "$home/$n/pid"
}

each() { if [ "${1:-1}" = all ]; then seq "$nodes"; else echo "${1:-1}"; fi; }

existing() { find "$home" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' 2>/dev/null | sort -n; }

status() {
  local n
  for n in $(existing); do
    if alive "$n"; then
      echo "node $n: pid $(cat "$home/$n/pid"), port $(port "$n"), $(($(awk '/VmRSS/{print $2}' "/proc/$(cat "$home/$n/pid")/status") / 1024)) MiB"
    else
      echo "node $n: down"
    fi
  done
}

case ${1:-} in
  install) install ;;
  start)
    install
    for n in $(each "${2:-}"); do launch "$n"; done
    for n in $(each "${2:-}"); do ready "$n"; done
    ;;
  stop)
    for n in $(each "${2:-}"); do halt "$n" TERM & done
    wait
    ;;
  kill) for n in $(each "${2:-}"); do halt "$n" KILL; done ;;
  status) status ;;
  wipe)
    for n in $(existing); do
      halt "$n" KILL
      rm -rf "${home:?}/$n"
    done
    ;;
  *)
    sed -n '2,11p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
