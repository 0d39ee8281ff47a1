#!/bin/sh
# Assembles the example's native image from this machine's Python, and makes a confidential image of it.
# Needs no Docker, no root, no network. Everything lands in the folder `build` beside this script.
set -eu
cd "$(dirname "$0")"
mkdir -p build
python3 assemble.py build/native

# --allow-debug-mode: this machine simulates the enclave, and the session must say that it puts up with that.
# A simulated enclave protects the files at rest and nothing from the host that runs it (docs/threat-model.md).
exec sconify_image --from=dir:build/native --to="${TO:-oci:build/encrypted:rest-api}" --base=scratch \
    --binary=/usr/local/bin/python3 --dir=/app --dir=/tls \
    --namespace=rest-api-demo --name=rest-api --create-namespace \
    --allow-debug-mode
