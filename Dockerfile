# batchscore on CPUs: for cron, Kubernetes, Airflow's pods, and the workers of Flink.
# Build it at the repository's root, after `python -m pip wheel --no-deps --wheel-dir dist .`:
#     docker build --tag registry.example.org/batchscore:0.1.0 .
# Dockerfile.gpu is the same for GPUs.

# Jobs are pickled for one minor version of Python.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# The wheel pins no versions, and workers must have the launcher's.
COPY constraints.txt dist/batchscore-*.whl /install/
# Stores and formats of models; leave out what no job uses.
ARG EXTRAS=s3,gcs,xgboost,lightgbm,onnx,sklearn
RUN sed -e 's/ *\\$//' -e '/^ *--hash/d' -e '/^ *#/d' /install/constraints.txt > /install/pins.txt \
    && python -m pip install --no-cache-dir --constraint /install/pins.txt \
       "batchscore[${EXTRAS}] @ file://$(ls /install/batchscore-*.whl)" \
    && rm -r /install

# It runs on a read-only root, and writes to its scratch folder alone: mount one at /scratch.
RUN useradd --uid 10001 --create-home --home-dir /scratch batchscore
USER 10001
WORKDIR /scratch
ENV HOME=/scratch TMPDIR=/scratch PYTHONUNBUFFERED=1

ENTRYPOINT ["batchscore"]
CMD ["--help"]
