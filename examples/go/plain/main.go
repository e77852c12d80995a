// A record processor without any library: counts words and checkpoints after every batch.
//
// multilangd starts one such process for each shard. Each line on stdin is a JSON message. The processor acts on it
// and answers with a status line on stdout. Lines on stderr go to the daemon's log.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
)

type record struct {
	Data           []byte `json:"data"` // encoding/json decodes the base64
	PartitionKey   string `json:"partitionKey"`
	SequenceNumber string `json:"sequenceNumber"`
}

type message struct {
	Action         string   `json:"action"`
	ShardID        string   `json:"shardId"`
	SequenceNumber string   `json:"sequenceNumber"`
	Records        []record `json:"records"`
	Error          string   `json:"error"` // null where a checkpoint succeeded
}

// bufio.Scanner is not used: a batch is one line and may have several megabytes.
var input = json.NewDecoder(os.Stdin)

func send(line string, arguments ...any) {
	if _, err := fmt.Printf(line+"\n", arguments...); err != nil {
		log.Fatal(err)
	}
}

// Asks the daemon to store the position after the last delivered record, and waits for its answer.
func checkpoint() {
	send(`{"action":"checkpoint"}`)
	var answer message
	if err := input.Decode(&answer); err != nil {
		log.Fatal("no answer to the checkpoint: ", err)
	}
	if answer.Error != "" {
		log.Print("checkpoint failed: ", answer.Error)
	}
}

func main() {
	counts, total := map[string]int{}, 0
	for {
		var in message
		if err := input.Decode(&in); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		switch in.Action {
		case "initialize":
			log.Printf("%s: starting after %s", in.ShardID, in.SequenceNumber)
		case "processRecords":
			for _, record := range in.Records {
				word, _, _ := strings.Cut(string(record.Data), " ")
				counts[word]++
				total++
			}
			checkpoint()
		case "shardEnded", "shutdownRequested":
			checkpoint()
			log.Printf("%s: %d records of %d different words", in.Action, total, len(counts))
		}
		// leaseLost needs no action: another worker owns the shard, and a checkpoint would fail.
		send(`{"action":"status","responseFor":"%s"}`, in.Action)
	}
}
