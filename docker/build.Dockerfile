# The image from scratch, built in containers: needs docker or podman and no toolchain on the host.
#
#   docker build -f docker/build.Dockerfile -t multilangd .
#   docker buildx build --platform linux/amd64,linux/arm64 -f docker/build.Dockerfile -t REGISTRY/multilangd --push .
#
# Each platform is compiled by the machine that builds, without emulation: zig compiles for the other architecture.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG TARGETARCH
# A build without a .git folder cannot know its commit: --build-arg MULTILANGD_COMMIT=$(git rev-parse --short=12 HEAD).
ARG MULTILANGD_COMMIT
RUN case "$TARGETARCH" in \
      amd64) target=x86_64-unknown-linux-musl ;; \
      arm64) target=aarch64-unknown-linux-musl ;; \
      *) echo "no target for $TARGETARCH" >&2; exit 1 ;; \
    esac && packaging/build.sh "$target" && cp "dist/bin/$target/multilangd" /multilangd

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /multilangd /multilangd
# Reachable from outside the container, for probes and Prometheus.
ENV MULTILANGD_STATUS=0.0.0.0:9465 MULTILANGD_LOG_FORMAT=json
EXPOSE 9465
USER 65534:65534
STOPSIGNAL SIGTERM
ENTRYPOINT ["/multilangd"]
