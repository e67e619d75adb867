package comet

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// certificate serves a certificate from files and looks for a newer one now and then, so that renewing it
// needs no restart.
type certificate struct {
	certFile, keyFile string
	// reload is how often it looks.
	reload time.Duration

	mu      sync.Mutex
	cert    *tls.Certificate
	looked  time.Time
	changed time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cert != nil && time.Since(c.looked) < c.reload {
		return c.cert, nil
	}
	c.looked = time.Now()
	info, err := os.Stat(c.certFile)
	if err == nil && c.cert != nil && info.ModTime().Equal(c.changed) {
		return c.cert, nil
	}
	var cert tls.Certificate
	if err == nil {
		cert, err = tls.LoadX509KeyPair(c.certFile, c.keyFile)
	}
	if err != nil {
		if c.cert != nil {
			// The old one goes on; a half-written file is read again soon.
			return c.cert, nil
		}
		return nil, fmt.Errorf("load certificate %s: %w", c.certFile, err)
	}
	c.cert, c.changed = &cert, info.ModTime()
	return c.cert, nil
}
