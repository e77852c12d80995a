# A record processor in Ruby, with the daemon in the same image. `docker/image.sh` builds the image `multilangd`.
# app/ contains processor.rb, my.properties (executableName = ruby /app/processor.rb), Gemfile and Gemfile.lock. The gem
# aws-kclrb contains no jars: the task of its sample that downloads them is not needed.
FROM ruby:3.4-slim
WORKDIR /app
COPY app/Gemfile app/Gemfile.lock ./
RUN bundle config set without development && bundle install
COPY app ./
COPY --from=multilangd /multilangd /usr/local/bin/multilangd
# A slim image may contain no CA certificates.
COPY --from=multilangd /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Environment variables take precedence over the properties file: set this to off to open no port.
ENV MULTILANGD_STATUS=0.0.0.0:9465 MULTILANGD_LOG_FORMAT=json
USER 65534:65534
# The daemon is process 1: it receives signals, and reaps orphaned processes of record processors.
ENTRYPOINT ["multilangd"]
CMD ["/app/my.properties"]
