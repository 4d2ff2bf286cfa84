#!/usr/bin/env bash
# Make a folder of the wheels that a bare GPU machine lacks: bash benchmarks/gpu_wheels.sh FOLDER.
#
# The machine: Python 3.12, x86-64, glibc 2.28 or newer, with torch 2.11, torchvision, numpy, scipy, scikit-learn, h5py,
# OpenCV, pillow, matplotlib, pyyaml, rich, typer, safetensors, jinja2, portalocker, tabulate and tqdm already there. They
# stay as they are: nothing here brings its own needs along. There, install with
#   python3 -m pip install -q --no-index --no-deps --no-compile --target /tmp/site FOLDER/*.whl
set -euo pipefail

folder=${1:?"usage: bash benchmarks/gpu_wheels.sh FOLDER"}
most_mib=56 # with the working tree below 60
mkdir -p "$folder"
if compgen -G "$folder/*.whl" >/dev/null; then
    echo "$folder: holds wheels already; two versions of one package stop the whole installation. Name an empty folder" >&2
    exit 2
fi

binary=(zarr==3.1.6 donfig==0.8.1.post1 numcodecs==0.16.6 google-crc32c==1.9.0 av==18.1.0 ijson==3.6.0 termcolor==3.3.0)
platforms=()
for version in 2_28 2_27 2_24 2_17; do
    platforms+=(--platform "manylinux_${version}_x86_64")
done
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    "${platforms[@]}" --platform manylinux2014_x86_64 --dest "$folder" "${binary[@]}"

# Published as sources only, pure Python: any Python can build them. fvcore and iopath are what
# pytorchvideo.models imports; parameterized, yacs, av and networkx it only names.
python3 -m pip wheel --quiet --no-deps --wheel-dir "$folder" \
    pytorchvideo==0.1.5 fvcore==0.1.5.post20221221 iopath==0.1.10

if compgen -G "$folder/*-cp3[0-9]*-linux_*.whl" >/dev/null; then
    echo "$folder: a wheel was compiled here, for this Python and this machine; expected pure Python" >&2
    exit 1
fi
size_kib=$(du -sk "$folder" | cut -f1)
echo "$folder: $(find "$folder" -name '*.whl' | wc -l) wheels, $((size_kib / 1024)) MiB"
if ((size_kib > most_mib * 1024)); then
    echo "$folder: more than $most_mib MiB; the machine takes 64 with the working tree" >&2
    exit 1
fi
