#!/usr/bin/env bash
# Check the contract: its format, its style, that it breaks no released client, and that the generated code is fresh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

buf=.venv/bin/buf
"$buf" format --diff --exit-code
"$buf" lint

# Compatibility is owed to what was released, not to every commit on the way.
release=$(git tag --list 'v[0-9]*' --sort=-version:refname --merged HEAD | head -n 1)
if [ -n "$release" ]; then
  "$buf" breaking --against ".git#tag=$release"
else
  echo "proto: nothing is released yet, so there is nothing to break"
fi

.venv/bin/python scripts/generate.py --check
