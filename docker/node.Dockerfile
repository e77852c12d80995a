# A record processor in Node, with the daemon in the same image. `docker/image.sh` builds the image `multilangd`.
# app/ contains processor.js, my.properties (executableName = node /app/processor.js), package.json and its lock file.
FROM node:22-slim
WORKDIR /app
COPY app/package.json app/package-lock.json ./
# aws-kcl contains no jars and has no install script: its command kcl-bootstrap, which is not used, would download them.
RUN npm ci --omit=dev
COPY app ./
COPY --from=multilangd /multilangd /usr/local/bin/multilangd
# A slim image may contain no CA certificates.
COPY --from=multilangd /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Environment variables take precedence over the properties file: set this to off to open no port.
ENV MULTILANGD_STATUS=0.0.0.0:9465 MULTILANGD_LOG_FORMAT=json
USER 65534:65534
ENTRYPOINT ["multilangd"]
CMD ["/app/my.properties"]
