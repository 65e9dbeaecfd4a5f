# The service alone, on the CPU: no torch, no compiler, not root.
#
#   docker build -t cxr-serve .
#   docker run --rm -p 127.0.0.1:8000:8000 --read-only cxr-serve

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY requirements/serve-cpu.txt .
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-compile -r serve-cpu.txt \
 && /opt/venv/bin/pip uninstall -y -q pip setuptools

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="cxr-serve" \
      org.opencontainers.image.description="Chest-radiograph classifier service. Research use, not for diagnosis." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --no-create-home --uid 10001 cxr
WORKDIR /srv
COPY --from=build /opt/venv /opt/venv
COPY cxr cxr
COPY app app
COPY model_store model_store
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CXR_HOST=0.0.0.0
USER cxr
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["python", "-m", "app"]
