// Package check holds what people sent against what is stored and what they were shown: whether anything was lost, came twice or came
// out of order. It knows a journal of events and nothing of any server or client. It has no goroutines.
package check

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Kind is what happened.
type Kind string

// The kinds of events.
const (
	// Sent: an application gave its client something to send. Those of a device in a conversation are in the order of sending.
	Sent Kind = "sent"
	// Told: the client told what became of something: Seq if it was stored, Code if it was refused for good.
	Told Kind = "told"
	// Handed: the client handed an entry over to the application of a device.
	Handed Kind = "handed"
	// Reset: the client said that the next entry it hands over doesn't follow those before.
	Reset Kind = "reset"
	// Stored: an entry as it is in the store in the end. Those of a conversation are in the order in which the store gave them.
	Stored Kind = "stored"
	// Member: from its first entry on the conversation is shown on this device.
	Member Kind = "member"
)

// What an entry does.
const (
	Message = "message"
	Edit    = "edit"
	Recall  = "recall"
)

// Event is a line of the journal. Events of one device, and stored ones of one conversation, are in the order in which they happened;
// of others' order nothing is known.
type Event struct {
	Kind Kind `json:"kind"`
	// At is when, by the clock of the journal.
	At time.Duration `json:"at"`
	// Device is whose client it was; empty for Stored.
	Device       string `json:"device,omitempty"`
	Conversation string `json:"conversation"`
	// UID and ID name what was sent: who, and the id under which it is repeated.
	UID string `json:"uid,omitempty"`
	ID  string `json:"id,omitempty"`
	// Seq is the place in the conversation.
	Seq int64 `json:"seq,omitempty"`
	// Does is what the entry does: one of the constants, or another word that says no more than that it has a place.
	Does string `json:"does,omitempty"`
	// Target is the message that an edit or a recall is about.
	Target int64 `json:"target,omitempty"`
	// Body is what a message says, or shall say from an edit on. Of Stored and Handed it is what it said then.
	Body string `json:"body,omitempty"`
	// Changed is the place of the last change that is in Body.
	Changed int64 `json:"changed,omitempty"`
	// Code is why it was refused.
	Code string `json:"code,omitempty"`
}

// Write writes events, one JSON object a line.
func Write(w io.Writer, events []Event) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	for i := range events {
		if err := e.Encode(&events[i]); err != nil {
			return err
		}
	}
	return b.Flush()
}

// Read reads what Write wrote.
func Read(r io.Reader) ([]Event, error) {
	var out []Event
	for d, n := json.NewDecoder(r), 1; ; n++ {
		var e Event
		switch err := d.Decode(&e); {
		case err == io.EOF:
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("event %d: %w", n, err)
		}
		out = append(out, e)
	}
}
