#!/usr/bin/env bash
# Builds the source distribution, and from it a wheel with the kernels for each platform.
#
# usage: scripts/build_wheels.sh [FOLDER]
#
#   FOLDER  where they are put (default: dist)
#
# The compiler is Zig's, which pip installs and which compiles for every platform on any of them. It
# and the headers of jaxlib come into an environment of their own. PYTHON is the Python to be used.
set -euo pipefail
mkdir -p "${1:-dist}"
folder=$(cd "${1:-dist}" && pwd)
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "making an environment for building"
"${PYTHON:-python3}" -m venv "$work/environment"
python=$work/environment/bin/python
"$python" -m pip install --quiet pip ziglang $("$python" -c '
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
"$python" -c '
import sys
from setuptools import build_meta
print("built", build_meta.build_sdist(sys.argv[1]))' "$work" > "$work/log" || { cat "$work/log"; exit 1; }
tail -n 1 "$work/log"
cp "$work"/resflax-*.tar.gz "$folder"

# The oldest systems on which jaxlib runs.
while read -r target platform; do
  echo "building a wheel for $platform"
  CXX="$python -m ziglang c++ -target $target -s" "$python" -m pip wheel --quiet --no-deps \
    --no-build-isolation --no-index --wheel-dir "$work/$platform" \
    --config-settings=--build-option=--plat-name="$platform" "$work"/resflax-*.tar.gz
  "$python" -c '
import sys, zipfile
if "resflax/kernels/libresflax_kernels.so" not in zipfile.ZipFile(sys.argv[1]).namelist():
    sys.exit("error: the kernels could not be built")' "$work/$platform"/*.whl
  cp "$work/$platform"/*.whl "$folder"
done << 'PLATFORMS'
x86_64-linux-gnu.2.27 manylinux_2_27_x86_64
aarch64-linux-gnu.2.27 manylinux_2_27_aarch64
x86_64-macos.11.0 macosx_11_0_x86_64
aarch64-macos.11.0 macosx_11_0_arm64
PLATFORMS
ls "$folder"
