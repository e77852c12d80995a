# A record processor in Node, with the daemon beside it. `docker/image.sh` makes the image `multilangd`.
# app/ has processor.js, my.properties (executableName = node /app/processor.js), package.json and its lock file.
FROM node:22-slim
WORKDIR /app
COPY app/package.json app/package-lock.json ./
# aws-kcl's install step fetches KCL's jars, which nobody needs here.
RUN npm ci --omit=dev --ignore-scripts
COPY app ./
COPY --from=multilangd /multilangd /usr/local/bin/multilangd
# A slim image may have none.
COPY --from=multilangd /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A setting of the environment outweighs the file's: to open no port, set it to off here.
ENV MULTILANGD_STATUS=0.0.0.0:9465 MULTILANGD_LOG_FORMAT=json
USER 65534:65534
ENTRYPOINT ["multilangd"]
CMD ["/app/my.properties"]
