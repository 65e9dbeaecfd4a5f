# A small archive to try the gateway with: Debian's Orthanc with DICOMweb. A hospital has its own.

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends orthanc orthanc-dicomweb wget \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /var/lib/orthanc/db && chown -R orthanc /var/lib/orthanc
COPY deploy/gateway/orthanc.json /etc/orthanc/orthanc.json
USER orthanc
VOLUME /var/lib/orthanc/db
EXPOSE 8042 4242
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
  CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8042/system"]
CMD ["Orthanc", "/etc/orthanc/orthanc.json"]
