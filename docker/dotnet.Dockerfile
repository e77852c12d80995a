# A record processor in .NET, with the daemon in the same image. `docker/image.sh` builds the image `multilangd`.
# app/ contains Processor.csproj and my.properties (executableName = dotnet /app/Processor.dll). Of
# amazon-kinesis-client-net only the project ClientLibrary is needed: its project Bootstrap downloads the KCL jars.
FROM mcr.microsoft.com/dotnet/sdk:9.0 AS build
WORKDIR /src
COPY app ./
RUN dotnet publish Processor.csproj --configuration Release --output /out

FROM mcr.microsoft.com/dotnet/runtime:9.0
WORKDIR /app
COPY --from=build /out ./
COPY app/my.properties ./
# Without this the runtime creates a socket for diagnostics in /tmp, for each child.
ENV DOTNET_EnableDiagnostics=0
COPY --from=multilangd /multilangd /usr/local/bin/multilangd
# A slim image may contain no CA certificates.
COPY --from=multilangd /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Environment variables take precedence over the properties file: set this to off to open no port.
ENV MULTILANGD_STATUS=0.0.0.0:9465 MULTILANGD_LOG_FORMAT=json
USER 65534:65534
# The daemon is process 1: it receives signals, and reaps orphaned processes of record processors.
ENTRYPOINT ["multilangd"]
CMD ["/app/my.properties"]
