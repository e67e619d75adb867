package logic

import (
	"fmt"
	"log/slog"
	"net"

	"github.com/halley-im/halley/kit/loopback"
)

// Openness is how far a feature is open that lets strangers in by their own word.
type Openness string

// Values of Openness. Empty is off.
const (
	Off          Openness = "off"
	Open         Openness = "open"
	OpenAnywhere Openness = "open-anywhere"
)

// On reports whether the feature is on at all.
func (o Openness) On() bool { return o == Open || o == OpenAnywhere }

// Validate refuses what is none of the values: a typing error must not open anything.
func (o Openness) Validate() error {
	switch o {
	case "", Off, Open, OpenAnywhere:
		return nil
	}
	return fmt.Errorf("%q is none of off, open, open-anywhere", string(o))
}

// CheckOpen refuses a configuration that would let strangers in from other machines unless it says so: with goim-compat or demo
// "open" every listener that clients or backends can reach must be on loopback. addrs are the bound addresses of all such
// listeners of the process, comets' included; where roles run apart each composition hands in its own. It warns of what is open.
func CheckOpen(c Config, addrs []net.Addr, log *slog.Logger) error {
	for _, f := range []struct {
		name, what string
		open       Openness
	}{
		{"goim-compat", "goim's unsigned tokens are trusted and goim's HTTP API works without a key: anybody who can connect may be anybody", c.GoimCompat},
		{"demo", "anybody who can connect may log in under any name and push", c.Demo},
	} {
		if err := f.open.Validate(); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if !f.open.On() {
			continue
		}
		if f.open == Open {
			for _, a := range addrs {
				if !loopback.Addr(a) {
					return fmt.Errorf("%s is open but %s can be reached from other machines: listen on 127.0.0.1, or set %s to open-anywhere",
						f.name, a, f.name)
				}
			}
		}
		log.Warn("open to strangers", "setting", f.name, "value", string(f.open), "meaning", f.what)
	}
	return nil
}
