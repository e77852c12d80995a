# A record processor in Node, with the daemon beside it. `docker/build.Dockerfile` makes the image `multilangd`.
# app/ has processor.js, my.properties (executableName = node /app/processor.js), package.json and its lock file.
FROM node:22-slim
WORKDIR /app
COPY app/package.json app/package-lock.json ./
# The install script of aws-kcl would download the jars of the Java daemon.
RUN npm ci --omit=dev --ignore-scripts
COPY app ./
COPY --from=multilangd /multilangd /usr/local/bin/multilangd
# A slim image may have none.
COPY --from=multilangd /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A variable takes precedence over the file: to open no port, set MULTILANGD_STATUS to off here.
ENV MULTILANGD_STATUS=0.0.0.0:9465 MULTILANGD_LOG_FORMAT=json
USER 65534:65534
# The daemon is process 1: it receives the signal, and waits for processes that record processors leave behind.
ENTRYPOINT ["multilangd"]
CMD ["/app/my.properties"]
