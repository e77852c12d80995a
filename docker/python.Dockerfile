# A record processor in Python, with the daemon beside it. `docker/image.sh` makes the image `multilangd`.
# app/ has processor.py, my.properties (executableName = python /app/processor.py) and requirements.txt.
FROM python:3.13-slim
# amazon_kclpy brings KCL's jars with it; without a JVM they are of no use.
COPY app/requirements.txt /app/
RUN pip install --no-cache-dir -r /app/requirements.txt
COPY app /app
COPY --from=multilangd /multilangd /usr/local/bin/multilangd
# A slim image may have none.
COPY --from=multilangd /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A setting of the environment outweighs the file's: to open no port, set it to off here.
ENV MULTILANGD_STATUS=0.0.0.0:9465 MULTILANGD_LOG_FORMAT=json
WORKDIR /app
USER 65534:65534
# The daemon is process 1: it gets the signal, and waits for whatever record processors leave behind.
ENTRYPOINT ["multilangd"]
CMD ["/app/my.properties"]
