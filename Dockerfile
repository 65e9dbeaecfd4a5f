# The service alone: no torch, no compiler, no shell tools of our own, not root.
#
#   docker build -t cxr-serve .                              # CPU
#   docker build -t cxr-serve:gpu --build-arg DEVICE=gpu .   # CUDA comes with the pip packages, so the base is the same
#   docker run --rm --read-only --tmpfs /tmp -v ./model_store:/srv/model_store:ro -p 127.0.0.1:8000:8000 \
#     -e CXR_WAIVE_API_KEY=true cxr-serve                    # without a key only because the port is the loopback's
#
# docker-compose.yml does the same with monitoring; docs/deploy.md has the sizes and times.

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG DEVICE=cpu
COPY requirements/serve-${DEVICE}.txt /tmp/requirements.txt
# The packages' own tests (22 MB) stay out; bytecode is made below, in a form that holds no time of day.
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --disable-pip-version-check --no-cache-dir --no-compile \
      --only-binary :all: --require-hashes -r /tmp/requirements.txt \
 && find /opt/venv -type d -name tests -prune -exec rm -r {} +
COPY cxr /srv/cxr
COPY app /srv/app
COPY LICENSE /srv/
# Models are a volume: they change without the program, and the program without them.
RUN mkdir /srv/model_store
# The root is read-only at run time, so bytecode that is not here is made again at every start.
RUN /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib /srv

FROM ${BASE}
ARG DEVICE=cpu
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="cxr-serve" \
      org.opencontainers.image.description="Chest-radiograph classifiers over HTTP. Research use, not for diagnosis." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"
RUN useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --uid 10001 cxr
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv /srv
WORKDIR /srv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CXR_HOST=0.0.0.0 \
    CXR_PORT=8000 \
    CXR_STORE=/srv/model_store \
    CXR_DEVICE=${DEVICE}
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Python's own client, without its site packages: the image has no curl, and a probe should cost little.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-ISc", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['CXR_PORT']), timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "app"]
