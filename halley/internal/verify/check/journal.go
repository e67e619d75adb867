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
	// Device: a device is UID's.
	Device Kind = "device"
	// Member: the conversation has had UID in it from its first entry on, and always will. Of a conversation without such events its
	// own entries say who is in it.
	Member Kind = "member"
	// Sent: an application gave its client something to send. Those of a device in a conversation are in the order of sending.
	Sent Kind = "sent"
	// Told: the client told what became of something: Code if it was refused for good, else it is stored, at Seq if that is known.
	Told Kind = "told"
	// Handed: the client handed an entry over to the application of a device.
	Handed Kind = "handed"
	// Reset: the client said that the next entry it hands over doesn't follow those before.
	Reset Kind = "reset"
	// Gone: the client said that the conversation isn't its user's any more.
	Gone Kind = "gone"
	// Marked: the client showed its user's own read marker at Read.
	Marked Kind = "marked"
	// Stored: an entry as it is in the store in the end. Those of a conversation are in the order in which the store gave them.
	Stored Kind = "stored"
	// Roster: in the end the store says that UID is in the conversation and has read up to Read.
	Roster Kind = "roster"
	// Listed: in the end the conversation is on the device's list: its last entry is Seq, read up to Read, with Unread messages.
	Listed Kind = "listed"
	// Disturbed: from At to Until the run itself kept a device from being told anything in time.
	Disturbed Kind = "disturbed"
	// Phase: something that is done to the cluster begins, and is called Body.
	Phase Kind = "phase"
	// Over: what was done to the cluster has ended; now it has to recover.
	Over Kind = "over"
	// Pushed: the server accepted push Seq to a device that read slowly, one of its session ID. Got: it came. Dropped: the device was told
	// that Seq pushes were dropped for it. Silence is the end: all that comes of that session has come by now.
	Pushed  Kind = "pushed"
	Got     Kind = "got"
	Dropped Kind = "dropped"
	Silence Kind = "silence"
)

// What an entry does.
const (
	Message  = "message"
	Edit     = "edit"
	Recall   = "recall"
	Reaction = "reaction"
	Pin      = "pin"
	Created  = "created"
	Joined   = "joined"
	Left     = "left"
	Removed  = "removed"
)

// Event is a line of the journal. Events of one device, and stored ones of one conversation, are in the order in which they happened;
// of others' order nothing is known.
type Event struct {
	Kind Kind `json:"kind"`
	// At is when, by the clock of the journal.
	At    time.Duration `json:"at"`
	Until time.Duration `json:"until,omitempty"`
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
	// Target is the message that a change changes.
	Target int64 `json:"target,omitempty"`
	// Body is what a message says, or shall say from an edit on. Of Stored and Handed it is what it said then.
	Body string `json:"body,omitempty"`
	// Changed is the place of the last change that is in a message.
	Changed int64 `json:"changed,omitempty"`
	// Reaction is what a reaction adds, or with Off takes away; a pin with Off takes down.
	Reaction string `json:"reaction,omitempty"`
	Off      bool   `json:"off,omitempty"`
	// Reactions are a message's as it was then, each the reaction, a space and the uid. Pinned is whether it was pinned.
	Reactions []string `json:"reactions,omitempty"`
	Pinned    bool     `json:"pinned,omitempty"`
	// Members are who came with an entry, or went.
	Members []string `json:"members,omitempty"`
	// Read is up to where was read, Unread how many messages follow it.
	Read   int64 `json:"read,omitempty"`
	Unread int64 `json:"unread,omitempty"`
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
