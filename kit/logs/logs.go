// Package logs sets up the one logger of a process and names the attribute keys that all roles share.
package logs

import (
	"fmt"
	"io"
	"log/slog"
)

// Attribute keys. A thing has the same key in every role's log.
const (
	Role      = "role"
	Component = "component"
	Session   = "session"
	Tenant    = "tenant"
	UID       = "uid"
	Room      = "room"
	Conv      = "conv"
	Seq       = "seq"
	Call      = "call"
	Comet     = "comet"
	Epoch     = "epoch"
	Topic     = "topic"
	Partition = "partition"
	Offset    = "offset"
	Req       = "req"
	Took      = "took"
	Err       = "err"
)

// New returns a logger that writes to w. format is "text" or "json"; level is a slog level's name. Anything
// else is an error.
func New(w io.Writer, format, level string) (*slog.Logger, error) {
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: must be debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: lv}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("log format %q: must be text or json", format)
}
