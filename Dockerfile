# Two images from one file, sharing their layers:
#   docker build -t gatecast .                          everything: server, worker, commands
#   docker build -t gatecast:api --target api .         the API and the commands alone; no PyTorch
# For NVIDIA machines add  --build-arg DEVICE=cuda  (PyPI's CUDA build) or name an index of PyTorch's with TORCH_INDEX.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# ---------------------------------------------------------------- build: the environment in two steps
FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# No pip and no setuptools inside: the base image's pip fills the environment from outside.
RUN python -m venv --without-pip /venv
# Dependencies before our own code, so that a change of code does not fetch them again.
COPY pyproject.toml ./
RUN python -c "import re, tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
all = project['dependencies'] + project['optional-dependencies']['s3']; \
training = [d for d in all if re.split('[^a-z]', d)[0] in ('torch', 'onnx', 'onnxscript', 'safetensors')]; \
open('/serving.txt', 'w').write('\n'.join(d for d in all if d not in training)); \
open('/training.txt', 'w').write('\n'.join(training)); \
open('/torch.txt', 'w').write(next(d for d in training if d.startswith('torch')))" \
 && python -m pip --python /venv/bin/python install -r /serving.txt
COPY README.md LICENSE ./
COPY migrations migrations
COPY models models
COPY app app
# Tests, headers, and the parts of Arrow that nothing here opens: RPC and object stores. The last line fails here, not in
# somebody's night, when one of them was needed after all.
RUN python -m pip --python /venv/bin/python install --no-deps . \
 && find /venv -type d \( -name tests -o -path '*/pyarrow/include' \) -prune -exec rm -rf {} + \
 && find /venv -path '*/pyarrow/*' \( -name '*flight*' -o -name '*s3*' -o -name '*.pxi' \) -delete \
 && /venv/bin/python -c "import app.main, onnxruntime, pyarrow.compute, pyarrow.csv, pyarrow.dataset, pyarrow.parquet"

FROM build AS build-training
ARG DEVICE=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Retries off: an index that cannot be reached costs seconds, and the next step takes what PyPI has.
RUN touch /mark && sleep 1 \
 && case "$DEVICE $TORCH_INDEX" in \
      "cuda https://download.pytorch.org/whl/cpu" | *" ") ;; \
      *) python -m pip --python /venv/bin/python install --no-deps --retries 0 --timeout 10 --extra-index-url "$TORCH_INDEX" -r /torch.txt || true ;; \
    esac \
 && python -m pip --python /venv/bin/python install -r /training.txt \
 && find /venv -type d \( -name tests -o -path '*/torch/include' -o -path '*/torch/test' \) -prune -exec rm -rf {} + \
 && find /venv -name '*.a' -delete && /venv/bin/python -c "import models.training, onnx, onnxscript" \
 && mkdir /added && cd / && find venv -cnewer /mark ! -type d -print0 | tar --null --files-from=- -cf - | tar -xf - -C /added

# ---------------------------------------------------------------- api: what answers
FROM ${BASE_IMAGE} AS api
RUN groupadd --gid 10001 gatecast \
 && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin gatecast \
 && mkdir /data && chown gatecast:gatecast /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp GATECAST_DATA=/data GATECAST_HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", \
  "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('GATECAST_PORT', '8000')}/healthz\", timeout=4)"]
ENTRYPOINT ["gatecast"]
CMD ["serve", "--no-worker"]

# ---------------------------------------------------------------- the default: the API and what trains
FROM api
COPY --from=build-training /added /
CMD ["serve"]
