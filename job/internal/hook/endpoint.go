package hook

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/proto/name"
)

// Endpoint is a receiver of webhooks.
type Endpoint struct {
	// Name is what the queue, metrics and logs call it.
	Name string
	// Tenant whose events it gets; allTenants: those of all.
	Tenant string
	Events []string

	url     string
	host    string
	open    bool // neither encrypted nor on this machine
	secrets hook.Secrets
}

const allTenants = "*"

// String names the endpoint without what is secret.
func (e *Endpoint) String() string { return e.Name + " (" + e.host + ")" }

// wants reports whether the endpoint gets an event.
func (e *Endpoint) wants(tenant, event string) bool {
	return (e.Tenant == allTenants || e.Tenant == tenant) && slices.Contains(e.Events, event)
}

// ParseEndpoint reads "name url secrets events [tenant]". secrets are joined by "|", each whsec_ and base64 of 24 to 64 bytes: a receiver
// takes a signature by any of them, so that a secret can be changed. events are joined by "+". tenant is "default" if left out, "*" for
// the events of all. Errors never repeat a secret, or the URL, which may hold one.
func ParseEndpoint(line string) (*Endpoint, error) {
	f := strings.Fields(line)
	if len(f) != 4 && len(f) != 5 {
		return nil, errors.New(`endpoint: want "name url secrets events [tenant]"`)
	}
	e := &Endpoint{Name: f[0], Tenant: name.DefaultTenant, Events: strings.Split(f[3], "+")}
	if name.Tenant(e.Name) != nil {
		return nil, errors.New("endpoint: name: 1 to 32 of a-z, 0-9 and -")
	}
	fail := func(format string, args ...any) (*Endpoint, error) {
		return nil, fmt.Errorf("endpoint %s: "+format, append([]any{e.Name}, args...)...)
	}
	u, err := url.Parse(f[1])
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fail("url: want https://host/path")
	case u.User != nil || u.Fragment != "":
		return fail("url: without user, password or fragment")
	}
	e.url, e.host = u.String(), u.Scheme+"://"+u.Host
	ip, ipErr := netip.ParseAddr(u.Hostname())
	e.open = u.Scheme == "http" && u.Hostname() != "localhost" && (ipErr != nil || !ip.IsLoopback())
	if e.secrets, err = hook.ParseSecrets(f[2]); err != nil {
		return fail("%w", err)
	}
	for _, ev := range e.Events {
		if !slices.Contains(hook.Events, ev) {
			return fail("unknown event %q: there are %s", ev, strings.Join(hook.Events, ", "))
		}
	}
	if len(f) == 5 {
		e.Tenant = f[4]
		if e.Tenant != allTenants && name.Tenant(e.Tenant) != nil {
			return fail("tenant: 1 to 32 of a-z, 0-9 and -, or *")
		}
	}
	return e, nil
}

// Endpoints reads all endpoints of a configuration.
func (c *Config) endpoints() ([]*Endpoint, error) {
	lines := slices.Clone(c.Endpoints)
	if c.File != "" {
		b, err := os.ReadFile(c.File)
		if err != nil {
			return nil, fmt.Errorf("read the webhooks' endpoints: %w", err)
		}
		for s := bufio.NewScanner(strings.NewReader(string(b))); s.Scan(); {
			if line := strings.TrimSpace(s.Text()); line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
	}
	var out []*Endpoint
	for _, line := range lines {
		e, err := ParseEndpoint(line)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o *Endpoint) bool { return o.Name == e.Name }) {
			return nil, fmt.Errorf("endpoint %s: there twice", e.Name)
		}
		out = append(out, e)
	}
	return out, nil
}
