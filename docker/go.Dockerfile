# A record processor in Go: two static binaries and certificates. `docker/image.sh` builds the image `multilangd`.
# app/ contains the Go module and my.properties (executableName = /processor).
FROM golang:1.26 AS build
WORKDIR /src
COPY app ./
RUN CGO_ENABLED=0 go build -trimpath -ldflags=-s -o /processor .

FROM multilangd
COPY --from=build /processor /processor
COPY app/my.properties /my.properties
CMD ["/my.properties"]
