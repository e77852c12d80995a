// A record processor with Clever's amazon-kinesis-client-go. Reports every message to the test over a
// socket. Its Checkpoint is deferred: the library sends it after the status of the batch. A checkpoint
// requested in Shutdown is sent at once, without numbers, and its answer is never read.
//
// argv: PORT
package main

import (
	"encoding/json"
	"math/big"
	"net"
	"os"

	"github.com/Clever/amazon-kinesis-client-go/kcl"
)

type processor struct {
	test         *json.Encoder
	shard        string
	checkpointer kcl.Checkpointer
}

func (p *processor) report(what string, body any) {
	event := map[string]any{"pid": os.Getpid(), "shard": p.shard, "what": what, "body": body}
	if err := p.test.Encode(event); err != nil {
		panic(err)
	}
}

func (p *processor) Initialize(shard string, checkpointer kcl.Checkpointer) error {
	p.shard, p.checkpointer = shard, checkpointer
	p.report("initialize", nil)
	return nil
}

func (p *processor) ProcessRecords(records []kcl.Record) error {
	p.report("processRecords", map[string]any{"records": records})
	if len(records) == 0 {
		return nil
	}
	last := records[len(records)-1]
	sequence, right := new(big.Int).SetString(last.SequenceNumber, 10)
	if !right {
		panic(last.SequenceNumber)
	}
	p.checkpointer.Checkpoint(kcl.SequencePair{Sequence: sequence, SubSequence: last.SubSequenceNumber})
	return nil
}

func (p *processor) Shutdown(reason string) error {
	if reason == "ZOMBIE" {
		p.report("leaseLost", nil)
		return nil
	}
	p.checkpointer.Shutdown()
	p.report(map[string]string{"TERMINATE": "shardEnded", "SHUTDOWN_REQUESTED": "shutdownRequested"}[reason], nil)
	return nil
}

func main() {
	test, err := net.Dial("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	kcl.New(os.Stdin, os.Stdout, os.Stderr, &processor{test: json.NewEncoder(test), shard: "?"}).Run()
}
