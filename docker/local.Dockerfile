# multilangd with local mode and the Python example, built from this repository: for examples/docker-compose.yaml.
# Both stages have the same Debian release, so that the binary finds the C library that it was linked with.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM python:3.13-slim-bookworm
WORKDIR /app
COPY --from=build /src/target/release/multilangd /usr/local/bin/multilangd
COPY examples examples
# The local endpoints accept any credentials, but the AWS SDK must have some.
ENV AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
USER 65534:65534
ENTRYPOINT ["multilangd"]
CMD ["local"]
