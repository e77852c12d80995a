# A record processor in Python, with the daemon in the same image. `docker/image.sh` builds the image `multilangd`.
# app/ contains processor.py, my.properties (executableName = python /app/processor.py) and requirements.txt.
FROM python:3.13-slim
# amazon_kclpy contains the KCL jars, which are not used.
# `pip install` would download them. This stage takes the library alone, which requirements.txt therefore does not name.
WORKDIR /kclpy
RUN pip download --no-cache-dir --no-deps --no-binary amazon_kclpy amazon_kclpy==3.2.0 \
 && tar -xzf amazon_kclpy-3.2.0.tar.gz --strip-components=1 amazon_kclpy-3.2.0/amazon_kclpy

FROM python:3.13-slim
COPY app/requirements.txt /app/
RUN pip install --no-cache-dir -r /app/requirements.txt
COPY app /app
# Beside processor.py, where Python looks first.
COPY --from=0 /kclpy/amazon_kclpy /app/amazon_kclpy
COPY --from=multilangd /multilangd /usr/local/bin/multilangd
# A slim image may contain no CA certificates.
COPY --from=multilangd /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Environment variables take precedence over the properties file: set this to off to open no port.
ENV MULTILANGD_STATUS=0.0.0.0:9465 MULTILANGD_LOG_FORMAT=json
WORKDIR /app
USER 65534:65534
# The daemon is process 1: it receives signals, and reaps orphaned processes of record processors.
ENTRYPOINT ["multilangd"]
CMD ["/app/my.properties"]
