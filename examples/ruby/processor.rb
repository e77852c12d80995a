#!/usr/bin/env ruby
# frozen_string_literal: true

# A record processor without any library: counts words and checkpoints after every batch.
#
# multilangd starts one such process for each shard. Each line on stdin is a JSON message. The processor acts on it
# and answers with a status line on stdout. Lines on stderr go to the daemon's log.
require 'json'

# Checkpoint errors that pass: the checkpoint is requested again after a pause.
RETRIED = %w[ThrottlingException KinesisClientLibDependencyException].freeze

$stdin.set_encoding(Encoding::UTF_8)
$stdout.sync = true

def send_message(message)
  $stdout.write("#{JSON.generate(message)}\n")
end

# Asks the daemon to store the position after the last delivered record, and waits for its answer.
def checkpoint
  [1, 2, 4, nil].each do |pause|
    send_message(action: 'checkpoint')
    line = $stdin.gets or abort('stdin ended before the checkpoint was answered')
    error = JSON.parse(line)['error']
    warn("checkpoint failed: #{error}") if error
    return if !RETRIED.include?(error) || pause.nil?

    sleep(pause)
  end
end

counts = Hash.new(0)
while (line = $stdin.gets)
  message = JSON.parse(line)
  action = message['action']
  case action
  when 'initialize'
    warn("#{message['shardId']}: starting after #{message['sequenceNumber']}")
  when 'processRecords'
    message['records'].each do |record|
      text = record['data'].unpack1('m').force_encoding(Encoding::UTF_8).scrub
      counts[text.split(' ', 2).first] += 1
    end
    checkpoint
  when 'shardEnded', 'shutdownRequested'
    checkpoint
    top = counts.max_by(3) { |_, count| count }.map { |word, count| "#{word} #{count}" }.join(', ')
    warn("#{action}: #{counts.values.sum} records; most frequent: #{top.empty? ? 'none' : top}")
  end
  # leaseLost needs no action: another worker owns the shard, and a checkpoint would fail.
  send_message(action: 'status', responseFor: action)
end
