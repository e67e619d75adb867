package hook

import (
	"errors"
	"fmt"
	"time"
)

// Config is what an operator can set.
type Config struct {
	// Endpoints are the receivers, a line each; see ParseEndpoint.
	Endpoints []string `help:"Receivers of webhooks, each \"name url secrets events [tenant]\"; docs/webhooks.md says what that is." sep:";" default:""`
	// File holds such lines, too.
	File string `help:"File with such a line for each receiver; empty lines and those that begin with # are skipped." default:""`
	// Concurrency bounds the requests to one endpoint.
	Concurrency int `help:"Most requests of this job to one receiver at once." default:"8"`
	// PerClaim is how many hooks of one key are taken at once.
	PerClaim int `help:"Most webhooks of one conversation or user that are taken out of the database at once." default:"8"`
	// Timeout bounds one request.
	Timeout time.Duration `help:"Time limit of one request to a receiver." default:"10s"`
	// Lease is for how long a key is one sender's: what a sender that dies had in hand is sent by another one after it.
	Lease time.Duration `help:"How long what a job has in hand is kept from the others: so long it waits if that job dies. More than twice the timeout." default:"60s"`
	// RetryMin and RetryMax space the tries.
	RetryMin time.Duration `help:"Wait after the first try that failed; it doubles." default:"5s"`
	RetryMax time.Duration `help:"Longest wait between two tries." default:"30m"`
	// GiveUpAfter is how old a webhook may be when it has failed again.
	GiveUpAfter time.Duration `help:"A webhook that fails and is older than this is dropped." default:"24h"`
	// PollInterval is how often the queue is looked at for what other jobs put in, and for what is to be tried again.
	PollInterval time.Duration `help:"Time between two looks for webhooks that are due." default:"1s"`
	// MeasureInterval is how often the backlog is measured.
	MeasureInterval time.Duration `help:"Time between two measurements of what waits." default:"15s"`
}

// Default returns what the settings are where nothing is said.
func Default() Config {
	return Config{
		Concurrency: 8, PerClaim: 8, Timeout: 10 * time.Second, Lease: time.Minute, RetryMin: 5 * time.Second, RetryMax: 30 * time.Minute,
		GiveUpAfter: 24 * time.Hour, PollInterval: time.Second, MeasureInterval: 15 * time.Second,
	}
}

// margin is what is left of a lease when no further request is begun: clocks differ.
func (c *Config) margin() time.Duration { return min(c.Lease/4, 5*time.Second) }

// Validate reports the first setting that can't work.
func (c *Config) Validate() error {
	for name, d := range map[string]time.Duration{
		"timeout": c.Timeout, "lease": c.Lease, "retry-min": c.RetryMin, "retry-max": c.RetryMax, "give-up-after": c.GiveUpAfter,
		"poll-interval": c.PollInterval, "measure-interval": c.MeasureInterval,
	} {
		if d <= 0 {
			return fmt.Errorf("hook: %s must be above 0", name)
		}
	}
	switch {
	case c.Concurrency < 1 || c.PerClaim < 1:
		return errors.New("hook: concurrency and per-claim must be at least 1")
	case c.RetryMax < c.RetryMin:
		return errors.New("hook: retry-max must be at least retry-min")
	case c.Lease < 2*c.Timeout:
		return errors.New("hook: lease must be at least twice the timeout")
	}
	_, err := c.endpoints()
	return err
}
