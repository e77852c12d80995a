# A record processor in .NET, with the daemon beside it. `docker/build.Dockerfile` makes the image `multilangd`.
# app/ has Processor.csproj and my.properties (executableName = dotnet /app/Processor.dll). Of Amazon's client only the
# project ClientLibrary is needed: its Bootstrap project downloads the jars of the Java daemon.
FROM mcr.microsoft.com/dotnet/sdk:9.0 AS build
WORKDIR /src
COPY app ./
RUN dotnet publish Processor.csproj --configuration Release --output /out

FROM mcr.microsoft.com/dotnet/runtime:9.0
WORKDIR /app
COPY --from=build /out ./
COPY app/my.properties ./
# The runtime would create a socket for diagnostics in /tmp, for each child.
ENV DOTNET_EnableDiagnostics=0
COPY --from=multilangd /multilangd /usr/local/bin/multilangd
# A slim image may have none.
COPY --from=multilangd /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A variable takes precedence over the file: to open no port, set MULTILANGD_STATUS to off here.
ENV MULTILANGD_STATUS=0.0.0.0:9465 MULTILANGD_LOG_FORMAT=json
USER 65534:65534
# The daemon is process 1: it receives the signal, and waits for processes that record processors leave behind.
ENTRYPOINT ["multilangd"]
CMD ["/app/my.properties"]
