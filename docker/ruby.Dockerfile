# A record processor in Ruby, with the daemon beside it. `docker/build.Dockerfile` makes the image `multilangd`.
# app/ has processor.rb, my.properties (executableName = ruby /app/processor.rb), Gemfile and Gemfile.lock. The gem
# aws-kclrb contains no jars: the task of its sample that downloads them is not needed.
FROM ruby:3.4-slim
WORKDIR /app
COPY app/Gemfile app/Gemfile.lock ./
RUN bundle config set without development && bundle install
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
