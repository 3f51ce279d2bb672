# The pipelines of glitchflow_plugin on itwinai's image.
#   docker build -t glitchflow_plugin .
#   mkdir -p run && cd run
#   docker run --rm --init --user "$(id -u):$(id -g)" -v "$PWD:$PWD" -w "$PWD" glitchflow_plugin \
#       +pipe_key=simulate_pipeline conf/profile=demo
# The run folder is mounted at its own path, so that paths in mlflow.db hold inside and outside.
# docs/containers-and-clusters.md tells how to use it. The tag below is the one that itwinai's documentation names; it
# moves with its releases. What decides the results is pinned in constraints.txt; to pin the base as well:
#   docker build --build-arg BASE=ghcr.io/intertwin-eu/itwinai@sha256:<digest> .
ARG BASE=ghcr.io/intertwin-eu/itwinai:torch-slim-latest

FROM ${BASE} AS build
# GWF frame files need lalsuite (GPL-2.0-or-later); --build-arg FRAMES= leaves it out.
ARG FRAMES=yes
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
# An environment of its own: the base image compiles Horovod and DeepSpeed against another torch.
RUN python3 -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v in ((3, 11), (3, 12)) else f"The base image has Python {v}, but 3.11 or 3.12 is needed")' \
    && python3 -m venv /opt/glitchflow
WORKDIR /src
COPY constraints.txt pyproject.toml ./
# With byte code: without it every start of a step takes 30 s more.
RUN /opt/glitchflow/bin/python -m pip install --no-cache-dir --constraint constraints.txt uv \
    && /opt/glitchflow/bin/uv pip install --python /opt/glitchflow/bin/python --compile-bytecode \
        --constraints constraints.txt --requirements pyproject.toml ${FRAMES:+"--extra=frames"}
COPY README.md LICENSE config.yaml ./
COPY conf conf
COPY slurm slurm
COPY src src
RUN /opt/glitchflow/bin/uv pip install --python /opt/glitchflow/bin/python --no-deps --compile-bytecode \
        --build-constraints constraints.txt .

FROM ${BASE}
USER 0
COPY --from=build /opt/glitchflow /opt/glitchflow
COPY docker-entrypoint.sh /opt/glitchflow/bin/
# Any user number works, also with a read-only root: who is not in /etc/passwd has a home in /tmp and a name.
ENV PATH="/opt/glitchflow/bin:${PATH}" \
    HOME=/tmp \
    USER=glitchflow \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=passive \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN install --directory --mode=1777 /workspace
USER 10001:10001
WORKDIR /workspace
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["glitchflow", "--help"]
