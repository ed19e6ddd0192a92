#!/bin/bash
# Succeeds when nodecast answers 200 on a path, /livez or the one that is given. Bash alone: the
# image has neither curl nor wget.
set -euo pipefail

address="${NODECAST_HTTP__LISTEN:-127.0.0.1:8080}"
exec 3<>"/dev/tcp/127.0.0.1/${address##*:}"
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "${1:-/livez}" >&3
IFS= read -r -t 2 status <&3
[[ "$status" == "HTTP/1.1 200 "* ]]
