#!/bin/bash
# Generates core/pyswarm_core/v1 from protos/. With --check: into a temporary folder, and fails where the two differ.
set -euo pipefail
cd "$(dirname "$0")/.."
out=core
if [ "${1:-}" = --check ]; then out=$(mktemp -d); trap 'rm -rf "$out"' EXIT; fi
PATH=$PWD/.venv/bin:$PATH .venv/bin/python -m grpc_tools.protoc -I protos \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
  protos/pyswarm_core/v1/*.proto
# messages only: no service, so no stub
for f in "$out"/pyswarm_core/v1/*_pb2_grpc.py; do
  if ! grep -q "class .*Stub" "$f"; then rm -f "$f" "${f}i"; fi
done
if [ "$out" != core ]; then
  touch "$out/pyswarm_core/v1/__init__.py"
  if ! diff -r -x __pycache__ "$out/pyswarm_core/v1" core/pyswarm_core/v1; then
    echo "The generated code differs from protos/: run 'make proto' and commit the result." >&2; exit 1
  fi
  echo "generated code matches protos/"
fi
