// A record processor on Clever's amazon-kinesis-client-go. It knows the protocol from before KCL 2.1 only: run it with
// multilangd.childProtocol = shutdown, or no shard can end.
package main

import (
	"log"
	"math/big"
	"os"

	"github.com/Clever/amazon-kinesis-client-go/kcl"
)

type orders struct {
	checkpointer kcl.Checkpointer
}

func (o *orders) Initialize(shard string, checkpointer kcl.Checkpointer) error {
	o.checkpointer = checkpointer
	log.Print("reading ", shard) // to stderr: stdout belongs to the protocol
	return nil
}

func (o *orders) ProcessRecords(records []kcl.Record) error {
	for _, record := range records {
		log.Print(record.Data) // base64
	}
	if len(records) == 0 {
		return nil
	}
	last := records[len(records)-1]
	sequence, valid := new(big.Int).SetString(last.SequenceNumber, 10)
	if !valid {
		log.Fatal("not a sequence number: ", last.SequenceNumber)
	}
	o.checkpointer.Checkpoint(kcl.SequencePair{Sequence: sequence, SubSequence: last.SubSequenceNumber})
	return nil
}

// Shutdown gets TERMINATE at the end of a shard, ZOMBIE if the lease is lost, SHUTDOWN_REQUESTED at a stop.
func (o *orders) Shutdown(reason string) error {
	if reason != "ZOMBIE" {
		o.checkpointer.Shutdown()
	}
	return nil
}

func main() {
	kcl.New(os.Stdin, os.Stdout, os.Stderr, &orders{}).Run()
}
